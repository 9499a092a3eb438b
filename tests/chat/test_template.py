"""Hugging Face renders an exported chat model's conversations to the ids that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.template import encode_turns, generation_prompt

TALKS: dict[str, Sequence[tuple[str, str]]] = {
    "one question": [("user", "Hi")],
    "exchange": [("user", "hello there"), ("assistant", "I am well, thank you.")],
    "system": [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")],
    "unicode": [("user", "naïve café — 日本語 😀👩‍👩‍👧 e\u0301"), ("assistant", "日本\u200d")],
    "newlines": [("user", "\n a\n\n b\r\n\tc \n"), ("assistant", "  two  spaces \n")],
    "braces": [("user", "{{ 7 * 7 }} {% if x %} {# c #} <b>&amp;</b>"), ("assistant", "'\"\\")],
    "half a control token": [("user", "<assistant <bos <|user|>"), ("assistant", "< end_turn >")],
    "two questions": [("user", "Hi"), ("user", "Anybody?"), ("assistant", "Yes"), ("assistant", "!")],
    "long": [(role, f"turn {i}, and so on " * 9) for i in range(20) for role in ("user", "assistant")],
}


@pytest.fixture(scope="module", params=["bpe", "char", "grown"])
def both(
    request: Any,
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    random_model: Callable[..., GPT],
    save_model: Callable[..., Path],
) -> tuple[Tokenizer, Any]:
    """Our tokenizer, and transformers' own of the exported folder."""
    transformers = pytest.importorskip("transformers")
    from microgpt.checkpoints.model import open_model
    from microgpt.config.schema import SamplingConfig
    from microgpt.export.write import export_model
    from microgpt.tokenizer.bpe import train_bpe

    used = tokenizer
    if request.param == "char":
        letters = "".join(text for turns in TALKS.values() for _, text in turns) + "<>bosuertainy_d"
        used = CharTokenizer(letters, (BOS, *CHAT_TOKENS))
    elif request.param == "grown":  # a text model that was fine-tuned on conversations: control tokens stand last
        used = train_bpe(["hello there, how are you today?"] * 4, 280).grown(CHAT_TOKENS)
    folder = tmp_path_factory.mktemp(request.param)
    save_model(folder / "model", random_model(used), used)
    opened = open_model(folder / "model")
    export_model(opened, folder / "export", "safetensors", "f32", "# a card\n", SamplingConfig())
    return opened.tokenizer, transformers.PreTrainedTokenizerFast.from_pretrained(folder / "export")


def rendered(theirs: Any, turns: Sequence[tuple[str, str]], reply: bool) -> list[int]:
    messages = [{"role": role, "content": text} for role, text in turns]
    return theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=reply, return_dict=False)


@pytest.mark.parametrize("turns", TALKS.values(), ids=TALKS)
def test_hugging_face_renders_the_same_ids(both: tuple[Tokenizer, Any], turns: Sequence[tuple[str, str]]) -> None:
    ours, theirs = both
    encoded = encode_turns(ours, turns)
    assert rendered(theirs, turns, True) == generation_prompt(ours, encoded)
    assert rendered(theirs, turns, False) == [ours.bos, *(i for turn in encoded for i in turn.ids)]


def test_content_that_spells_a_control_token_is_the_one_difference(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    for name in (BOS, *CHAT_TOKENS):
        turns = [("user", "so"), ("assistant", f"a{name}b"), ("user", "so")]
        encoded = encode_turns(ours, turns)
        mine, other = generation_prompt(ours, encoded), rendered(theirs, turns, True)
        assert mine != other
        before, after = generation_prompt(ours, encoded[:1]), generation_prompt(ours, encoded[2:])[1:]
        assert mine[: len(before)] == other[: len(before)] == before
        assert mine[-len(after) :] == other[-len(after) :] == after
        assert other[len(before) : -len(after)] == [
            *ours.encode("a"), ours.control[name], *ours.encode("b"), ours.control["<end_turn>"],
        ]  # fmt: skip
        assert ours.decode(mine) == "so" + f"a{name}b" + "so"


def test_the_card_says_where_ids_differ(
    tmp_path: Path, tokenizer: Tokenizer, random_model: Any, save_model: Any
) -> None:
    from microgpt.checkpoints.model import open_model
    from microgpt.export.card import model_card
    from microgpt.export.formats import FORMATS

    opened = open_model(save_model(tmp_path / "model", random_model(tokenizer), tokenizer))
    card = " ".join(model_card(opened, None, None, FORMATS["safetensors"], []).split())
    assert "control token" in card
    assert "chat_template" in card or "chat template" in card


def test_hugging_face_knows_where_a_reply_ends(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    assert theirs.bos_token_id == ours.bos
    assert theirs.eos_token_id == ours.control["<end_turn>"]
    assert len(theirs) == ours.vocab_size


def test_a_model_of_plain_text_has_no_chat_template(tmp_path: Path, random_model: Any, save_model: Any) -> None:
    import json

    plain = CharTokenizer("abc")
    folder = save_model(tmp_path / "model", random_model(plain), plain)
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
