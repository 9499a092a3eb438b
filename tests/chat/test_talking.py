"""Talking: what is sent of a long conversation, how a reply comes, the REPL's commands, and chat-once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from microgpt.cli.repl import Chat
from microgpt.config.schema import DataConfig, SamplingConfig
from microgpt.data.documents import BadRows, read_documents
from microgpt.data.sources import find_sources
from microgpt.errors import ModelError, UsageError
from microgpt.inference.chat import Reply, chat_score, fitted, prompt_sheet, repeats, reply_to, stream_reply
from microgpt.inference.engine import Request, Token
from microgpt.inference.torch_backend import engine_of
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, END_TURN, Tokenizer
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.template import encode_turns, generation_prompt

GREEDY = SamplingConfig(temperature=0, max_new_tokens=64)
HI = [("user", "Hi")]


def talk_of(exchanges: int, system: str = "") -> list[tuple[str, str]]:
    turns = [turn for i in range(exchanges) for turn in (("user", f"question {i}"), ("assistant", f"answer {i}"))]
    return [*([("system", system)] if system else []), *turns, ("user", "the last question")]


def size(tokenizer: Tokenizer, turns: Sequence[tuple[str, str]]) -> int:
    return sum(len(turn.ids) for turn in encode_turns(tokenizer, turns))


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text), tokenizer.control[END_TURN]]


# ---- fitting


def test_a_short_conversation_goes_whole(tokenizer: Tokenizer) -> None:
    turns = talk_of(3, "Be kind.")
    prompt = generation_prompt(tokenizer, encode_turns(tokenizer, turns))
    assert fitted(tokenizer, turns, 1000, 100) == (prompt, 0, 0)
    assert fitted(tokenizer, turns, len(prompt) + 10, 10) == (prompt, 0, 0)


@pytest.mark.parametrize("system", ["", "Be kind."])
@pytest.mark.parametrize("dropped", [1, 2, 5])
def test_the_oldest_exchanges_go_whole_and_are_counted(tokenizer: Tokenizer, system: str, dropped: int) -> None:
    turns = talk_of(5, system)
    first = len(turns) - 11
    left = [*turns[:first], *turns[first + 2 * dropped :]]
    kept = generation_prompt(tokenizer, encode_turns(tokenizer, left))
    room = min(8, len(kept))
    ids, tokens, count = fitted(tokenizer, turns, len(kept) + room, room)
    assert ids == kept
    assert count == 2 * dropped
    assert tokens == size(tokenizer, turns[first : first + 2 * dropped])
    assert tokens == len(generation_prompt(tokenizer, encode_turns(tokenizer, turns))) - len(ids)
    less, _, more = fitted(tokenizer, turns, len(kept) + room - 1, room) if dropped < 5 else (ids, 0, count + 2)
    assert more == count + 2
    assert len(less) <= len(ids)


def test_two_questions_in_a_row_do_not_leave_a_reply_without_its_question(tokenizer: Tokenizer) -> None:
    turns = [("user", "a"), ("user", "b"), ("assistant", "to both"), ("assistant", "more"), ("user", "last")]
    whole = len(generation_prompt(tokenizer, encode_turns(tokenizer, turns)))
    for block in range(24, whole + 4):
        ids, _, count = fitted(tokenizer, turns, block, 4)
        left = turns[count:]
        assert left[0][0] == "user"
        assert ids == generation_prompt(tokenizer, encode_turns(tokenizer, left))


def test_the_system_turn_and_the_last_turn_stay(tokenizer: Tokenizer) -> None:
    turns = talk_of(5, "Be kind.")
    least = generation_prompt(tokenizer, encode_turns(tokenizer, [turns[0], turns[-1]]))
    assert fitted(tokenizer, turns, len(least) + 1, 50)[0] == least  # a shorter reply is better than none
    with pytest.raises(UsageError, match=f"{len(least)} tokens, the context holds {len(least)}"):
        fitted(tokenizer, turns, len(least), 50)


def test_a_long_reply_does_not_push_out_what_was_just_said(tokenizer: Tokenizer) -> None:
    turns = talk_of(1)
    prompt = generation_prompt(tokenizer, encode_turns(tokenizer, turns))
    assert fitted(tokenizer, turns, 2 * len(prompt), 10_000) == (prompt, 0, 0)


# ---- a reply


def test_pieces_join_to_the_reply_and_are_never_half_a_character(plain_bytes: Tokenizer, saying: Any) -> None:
    text = "aé€😀z"  # one to four bytes, a token each, none of them twice
    model, reply = saying(plain_bytes, ids_of(plain_bytes, text)), Reply()
    pieces = list(stream_reply(engine_of(model, 1), plain_bytes, HI, GREEDY, reply))
    assert pieces == list(text)
    assert (reply.text, reply.finish, reply.tokens) == (text, "end", len(text.encode()))


@pytest.mark.parametrize("limit", range(1, 11))
def test_a_reply_that_is_cut_inside_a_character_is_still_what_was_streamed(
    plain_bytes: Tokenizer, saying: Any, limit: int
) -> None:
    model, reply = saying(plain_bytes, ids_of(plain_bytes, "aé€😀z")), Reply()
    sampling = SamplingConfig(temperature=0, max_new_tokens=limit)
    pieces = list(stream_reply(engine_of(model, 1), plain_bytes, HI, sampling, reply))
    assert "".join(pieces) == reply.text == plain_bytes.decode(reply.ids)
    assert (reply.tokens, reply.finish) == (limit, "length")


@pytest.mark.parametrize(
    ("stop", "left", "finish"),
    [
        (["fgh"], "abcde", "stop"),
        (["a"], "", "stop"),
        (["hij", "efgh", "defx"], "abcd", "stop"),
        (["ghx"], "abcdefghij", "end"),
        (["jk"], "abcdefghij", "end"),
        ([""], "abcdefghij", "end"),
        (["abcdefghijk"], "abcdefghij", "end"),
    ],
)
def test_stop_texts_are_hidden(plain_bytes: Tokenizer, saying: Any, stop: list[str], left: str, finish: str) -> None:
    model, reply = saying(plain_bytes, ids_of(plain_bytes, "abcdefghij")), Reply()
    sampling = SamplingConfig(temperature=0, max_new_tokens=64, stop=stop)
    pieces = list(stream_reply(engine_of(model, 1), plain_bytes, HI, sampling, reply))
    assert "".join(pieces) == reply.text == left
    assert reply.finish == finish


def test_a_reply_ends_with_the_context(tokenizer: Tokenizer, saying: Any) -> None:
    around = tokenizer.encode("abc")
    model, reply = saying(tokenizer, [*around, around[0]], block_size=32), Reply()
    list(stream_reply(engine_of(model, 1), tokenizer, HI, SamplingConfig(temperature=0, max_new_tokens=500), reply))
    assert reply.finish == "length"
    prompt = generation_prompt(tokenizer, encode_turns(tokenizer, HI))
    assert len(prompt) + reply.tokens == 33  # the last token need not be read any more


def test_a_reply_says_what_of_the_conversation_was_dropped(tokenizer: Tokenizer, saying: Any) -> None:
    model, turns = saying(tokenizer, ids_of(tokenizer, "ok"), block_size=64), talk_of(9, "Be kind.")
    reply = reply_to(engine_of(model, 1), tokenizer, turns, GREEDY)
    _, tokens, count = fitted(tokenizer, turns, 64, 64)
    assert (reply.tokens_dropped, reply.turns_dropped) == (tokens, count)
    assert tokens > 0


def test_a_model_of_plain_text_does_not_talk(random_model: Any) -> None:
    plain = CharTokenizer("Hi there")
    with pytest.raises(ModelError, match="not trained for chat"):
        reply_to(engine_of(random_model(plain), 1), plain, HI, GREEDY)


def test_min_new_tokens_holds_back_the_end(plain_bytes: Tokenizer, saying: Any) -> None:
    model = saying(plain_bytes, ids_of(plain_bytes, "ab"))
    assert reply_to(engine_of(model, 1), plain_bytes, HI, GREEDY).tokens == 2
    longer = reply_to(
        engine_of(model, 1), plain_bytes, HI, SamplingConfig(temperature=0, max_new_tokens=9, min_new_tokens=5)
    )
    assert longer.tokens >= 5
    assert not set(longer.ids) & set(plain_bytes.control.values())


# ---- one seed, one text


def test_a_seed_gives_the_same_text_on_every_surface(
    tmp_path: Path, tokenizer: Tokenizer, random_model: Any, save_model: Any, microgpt: Any
) -> None:
    import inspect

    from microgpt import cli
    from microgpt.checkpoints.model import load_weights, open_model
    from microgpt.errors import visible

    folder = save_model(tmp_path / "model", random_model(tokenizer), tokenizer)
    flags = {"temperature": 1.1, "max_new_tokens": 40, "top_k": 50, "top_p": 0.97, "repetition_penalty": 1.2}
    words = [w for key, value in flags.items() for w in (f"--{key.replace('_', '-')}", str(value))]
    words += ["--seed", "11", "--device", "cpu"]
    once = microgpt("chat-once", str(folder), "hello there", "--json", *words)
    said = json.loads(once.stdout)["content"]

    model = load_weights(open_model(folder))
    least = inspect.signature(cli.chat_once).parameters.get("min_new_tokens")  # its default is no choice of this test
    sampling = SamplingConfig(
        repeat_last_n=64,
        seed=11,
        min_new_tokens=least.default if least else 0,
        **flags,  # type: ignore[arg-type]
    )
    reply = reply_to(engine_of(model, 1), tokenizer, [("user", "hello there")], sampling)
    ends = sorted(tokenizer.control.values())
    ids = generation_prompt(tokenizer, encode_turns(tokenizer, [("user", "hello there")]))
    events = engine_of(model, 1).stream(Request(ids, sampling, ends, 11))
    drawn = [event.id for event in events if isinstance(event, Token)]
    chat = Chat(engine_of(model, 1), tokenizer, sampling, lambda text: None)
    chat.message("hello there")

    assert len(said) > 5
    assert said == reply.text == tokenizer.decode(drawn) == chat.turns[-1][1]
    stdin = microgpt("chat", "-m", str(folder), *words, stdin="hello there\n")
    assert visible(said) in stdin.stdout
    other = reply_to(
        engine_of(model, 1), tokenizer, [("user", "hello there")], SamplingConfig(**{**asdict(sampling), "seed": 12})
    )
    assert other.text != said


# ---- the REPL


class Talk:
    """A `Chat` with what it wrote."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, sampling: SamplingConfig = GREEDY) -> None:
        self.written: list[str] = []
        self.chat = Chat(engine_of(model, 1), tokenizer, sampling, self.written.append)

    def says(self, line: str) -> str:
        """What is written on a line that the user enters."""
        self.written.clear()
        if line.startswith("/"):
            assert self.chat.command(line)
        else:
            self.chat.message(line)
        return "".join(self.written)


@pytest.fixture
def polite(plain_bytes: Tokenizer, saying: Callable[..., GPT]) -> Talk:
    return Talk(saying(plain_bytes, ids_of(plain_bytes, "Helo, yu!")), plain_bytes)


@pytest.fixture
def babbling(tokenizer: Tokenizer, random_model: Callable[..., GPT]) -> Talk:
    return Talk(random_model(tokenizer), tokenizer, SamplingConfig(temperature=1.0, max_new_tokens=30, seed=3))


def test_a_conversation_is_remembered(polite: Talk) -> None:
    assert polite.says("Hi") == "Helo, yu!\n"
    polite.says("And?")
    assert polite.chat.turns == [
        ("user", "Hi"), ("assistant", "Helo, yu!"), ("user", "And?"), ("assistant", "Helo, yu!"),
    ]  # fmt: skip


def test_what_was_said_before_changes_the_reply(tokenizer: Tokenizer, random_model: Any) -> None:
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=30, min_new_tokens=12, seed=3)
    model = random_model(tokenizer)
    fresh = reply_to(engine_of(model, 1), tokenizer, [("user", "you?")], sampling)
    turns = [("user", "Hi"), ("assistant", "well"), ("user", "you?")]
    assert reply_to(engine_of(model, 1), tokenizer, turns, sampling).ids != fresh.ids


def test_clear_forgets_the_turns_and_keeps_the_system_turn(polite: Talk) -> None:
    polite.says("/system Be kind.")
    polite.says("Hi")
    assert "forgotten" in polite.says("/clear")
    assert polite.chat.turns == []
    assert polite.chat.system == "Be kind."


def test_regenerate_draws_another_reply_to_the_same_message(babbling: Talk) -> None:
    assert "no reply yet" in babbling.says("/regenerate")
    babbling.says("hello there")
    first = babbling.chat.turns[1][1]
    babbling.says("/regenerate")
    assert [role for role, _ in babbling.chat.turns] == ["user", "assistant"]
    assert babbling.chat.turns[1][1] != first


def test_the_system_turn_reaches_the_model(babbling: Talk) -> None:
    babbling.says("/system you are a cat")
    babbling.says("Hi")
    alone = reply_to(babbling.chat.engine, babbling.chat.tokenizer, HI, babbling.chat.sampling)
    with_system = [("system", "you are a cat"), *HI]
    told = reply_to(babbling.chat.engine, babbling.chat.tokenizer, with_system, babbling.chat.sampling)
    assert babbling.chat.turns[1][1] == told.text != alone.text
    assert babbling.says("/system") == "(no system turn)\n"
    assert babbling.chat.system == ""


@pytest.mark.parametrize(
    ("line", "shown", "value"),
    [
        ("/temperature 0.9", "(temperature 0.9)\n", 0.9),
        ("/temperature", "(temperature 0)\n", 0),
        ("/temperature -1", "(give a number from 0 to 100)\n", 0),
        ("/temperature nan", "(give a number from 0 to 100)\n", 0),
        ("/temperature hot", "(give a number from 0 to 100)\n", 0),
    ],
)
def test_temperature_is_shown_set_and_checked(polite: Talk, line: str, shown: str, value: float) -> None:
    assert polite.says(line) == shown
    assert polite.chat.sampling.temperature == value


def test_a_saved_conversation_is_a_row_of_a_data_set(polite: Talk, tmp_path: Path) -> None:
    polite.says("/system Be kind.")
    polite.says('Hi "you" – é')
    path = tmp_path / "talk.jsonl"
    assert "saved 3 turns" in polite.says(f"/save {path}")
    data, bad = DataConfig(path=[str(path)]), BadRows()
    (document,) = read_documents(find_sources(data), data, bad)
    assert document.turns == (("system", "Be kind."), ("user", 'Hi "you" – é'), ("assistant", "Helo, yu!"))
    assert not bad.total


def test_a_conversation_that_cannot_be_saved_goes_on(polite: Talk, tmp_path: Path) -> None:
    assert "give a file" in polite.says("/save")
    assert polite.says(f"/save {tmp_path}").startswith("(")
    assert polite.says(f"/save {tmp_path}/no/such\0name").startswith("(")
    assert polite.says("Hi") == "Helo, yu!\n"


def test_help_lists_every_command(polite: Talk) -> None:
    shown = polite.says("/help")
    for word in ("/quit", "/clear", "/regenerate", "/system", "/temperature", "/save", "/help"):
        assert word in shown


def test_an_unknown_command_names_the_nearest(polite: Talk) -> None:
    shown = polite.says("/regenrate")
    assert "/regenrate" in shown
    assert "/regenerate" in shown
    assert "/help" in shown
    assert polite.chat.turns == []


def test_quit_ends_the_conversation(polite: Talk) -> None:
    assert polite.chat.command("/quit") is False


def test_a_message_that_does_not_fit_is_taken_back(polite: Talk) -> None:
    polite.says("Hi")
    assert "shorten the message" in polite.says("x" * 400)
    assert len(polite.chat.turns) == 2
    assert polite.says("Hi") == "Helo, yu!\n"


def test_a_system_turn_that_does_not_fit_does_not_end_the_conversation(polite: Talk) -> None:
    polite.says("Hi")
    polite.says("/system " + "x" * 400)
    assert "the context holds" in polite.says("/regenerate")
    assert [role for role, _ in polite.chat.turns] == ["user", "assistant"]
    polite.says("/system")
    assert polite.says("/regenerate") == "Helo, yu!\n"


def test_dropped_turns_are_noticed_once_a_reply(tokenizer: Tokenizer, saying: Any) -> None:
    talk = Talk(saying(tokenizer, ids_of(tokenizer, "ok"), block_size=48), tokenizer)
    shown = [talk.says(f"this is question {i}") for i in range(6)]
    assert shown[0] == "ok\n"
    assert "old turns" in shown[-1]
    assert shown[-1].count("no longer fit") == 1
    assert shown[-1].endswith("ok\n")
    assert len(talk.chat.turns) == 12  # forgotten by the model, not by the user


def test_dropped_turns_are_noticed_before_an_empty_reply_too(tokenizer: Tokenizer, saying: Any) -> None:
    talk = Talk(saying(tokenizer, [tokenizer.control[END_TURN]], block_size=48), tokenizer)
    shown = [talk.says(f"this is a rather long question {i}") for i in range(6)]
    assert "no longer fit" in shown[-1]


def test_a_reply_that_is_cut_says_so(polite: Talk) -> None:
    polite.chat.sampling = SamplingConfig(temperature=0, max_new_tokens=4)
    assert polite.says("Hi") == "Helo (cut: max_new_tokens)\n"


def test_escape_sequences_of_a_model_do_not_reach_the_terminal(plain_bytes: Tokenizer, saying: Any) -> None:
    talk = Talk(saying(plain_bytes, ids_of(plain_bytes, "\x1b[2Jx\x07")), plain_bytes)
    assert "\x1b" not in talk.says("Hi")
    assert "\x07" not in "".join(talk.written)


# ---- chat-once


#: more than the 20 tokens before which a reply may not end, no byte twice
SAID = "Helo,\nyu!é abcdfgijkm"


@pytest.fixture
def model_folder(tmp_path: Path, plain_bytes: Tokenizer, saying: Any, save_model: Any) -> Path:
    return save_model(tmp_path / "model", saying(plain_bytes, ids_of(plain_bytes, SAID)), plain_bytes)


def test_chat_once_prints_the_reply_alone(model_folder: Path, stage: Any) -> None:
    done = stage("cli", "chat-once", str(model_folder), "Hi", "--temperature", "0", "--repetition-penalty", "1")
    assert done.stdout == SAID + "\n"
    assert done.stderr == ""


def test_chat_once_reads_standard_input_and_prints_json(model_folder: Path, microgpt: Any) -> None:
    words = ("--json", "--temperature", "0", "--repetition-penalty", "1")
    done = microgpt("chat-once", str(model_folder), "-", *words, stdin="Hi\nthere\n")
    shown = json.loads(done.stdout)
    assert shown["role"] == "assistant"
    assert shown["content"] == SAID
    assert shown["finish"] == "end"
    assert shown["tokens_dropped"] == 0
    assert done.stdout.count("\n") == 1


def test_a_model_that_is_not_for_chat_is_exit_4(
    tmp_path: Path, random_model: Any, save_model: Any, microgpt: Any
) -> None:
    plain = CharTokenizer("Hi there")
    folder = save_model(tmp_path / "plain", random_model(plain), plain)
    for words in (("chat-once", str(folder), "Hi"), ("chat", "--model-dir", str(folder))):
        done = microgpt(*words, code=4)
        assert done.stdout == ""
        assert done.stderr.startswith("error: this model was not trained for chat")
        assert done.stderr.count("\n") == 1


def test_an_empty_prompt_is_refused(model_folder: Path, microgpt: Any) -> None:
    assert "empty" in microgpt("chat-once", str(model_folder), "-", code=2, stdin=" \n").stderr


def test_sampling_is_the_same_for_every_command() -> None:
    """Every setting of the sampler can be given to each command that draws."""
    import inspect

    from microgpt import cli

    wanted = {
        *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "repeat_last_n", "min_new_tokens"),
        *("max_new_tokens", "stop", "seed"),
    }
    for command in (cli.generate, cli.chat, cli.chat_once):
        assert not wanted - set(inspect.signature(command).parameters), command.__name__


def test_chat_has_the_defaults_of_prior_art() -> None:
    import inspect

    from microgpt import cli

    wanted = {"temperature": 0.35, "max_new_tokens": 180, "top_k": 20, "top_p": 0.92, "repetition_penalty": 1.15}
    wanted |= {"min_new_tokens": 20, "repeat_last_n": 64}
    for command in (cli.chat, cli.chat_once):
        has = {k: p.default for k, p in inspect.signature(command).parameters.items()}
        assert {k: has.get(k) for k in wanted} == wanted


def test_the_users_own_model_is_the_default(model_folder: Path, tmp_path: Path, microgpt: Any) -> None:
    own = tmp_path / "home" / ".config" / "microgpt" / "default-chat-model"
    own.parent.mkdir(parents=True)
    os.rename(model_folder, own)
    env = {"HOME": str(tmp_path / "home")}
    words = ("--temperature", "0", "--repetition-penalty", "1")
    assert "Helo" in microgpt("chat", *words, env=env, stdin="Hi\n/quit\n").stdout
    (tmp_path / "empty").mkdir()
    done = microgpt("chat", env={"HOME": str(tmp_path / "empty")}, code=4)
    assert "there is no chat model yet" in done.stderr
    assert "make chat-model" in done.stderr


# ---- scores


def test_repeats_are_four_words_that_stand_three_times() -> None:
    assert repeats(["a", "b", "c", "d", "a", "b", "c", "d", "a", "b", "c", "d"])
    assert repeats(["x", "x", "x", "x", "x", "x"])
    assert not repeats(["a", "b", "c", "d", "a", "b", "c", "d"])
    assert not repeats(["x", "x", "x", "x", "x"])
    assert not repeats([])


def test_a_model_that_always_says_the_same_scores_so(plain_bytes: Tokenizer, saying: Any) -> None:
    model = saying(plain_bytes, ids_of(plain_bytes, "ab cd"))
    score = chat_score(engine_of(model, 1), plain_bytes, ["one", "two", "three", "four"], GREEDY)
    assert (score.ended, score.empty, score.repeated) == (1, 0, 0)
    assert (score.distinct_1, score.distinct_2) == (2 / 8, 1 / 4)
    assert score.mean_tokens == 5
    assert score.replies == [(p, "ab cd") for p in ("one", "two", "three", "four")]


def test_a_model_that_says_nothing_scores_so(plain_bytes: Tokenizer, saying: Any) -> None:
    silent = saying(plain_bytes, [plain_bytes.control[END_TURN]])
    score = chat_score(engine_of(silent, 1), plain_bytes, prompt_sheet(), GREEDY)
    assert (score.ended, score.empty, score.mean_tokens) == (1, 1, 0)
    assert (score.distinct_1, score.distinct_2) == (0, 0)


def test_a_model_that_goes_round_scores_so(plain_bytes: Tokenizer, saying: Any) -> None:
    around = plain_bytes.encode(" a")
    model = saying(plain_bytes, [*around, around[0]])
    score = chat_score(engine_of(model, 1), plain_bytes, ["one"], GREEDY)
    assert (score.ended, score.repeated) == (0, 1)


@pytest.mark.parametrize("name", [t for t in (BOS, *CHAT_TOKENS) if t != END_TURN])
def test_only_end_turn_ends_a_reply_properly(plain_bytes: Tokenizer, saying: Any, name: str) -> None:
    model = saying(plain_bytes, [*plain_bytes.encode("ab"), plain_bytes.control[name]])
    score = chat_score(engine_of(model, 1), plain_bytes, ["one"], GREEDY)
    assert score.ended == 0
    assert score.replies == [("one", "ab")]


def test_the_prompt_sheet_is_fixed_and_short() -> None:
    prompts = prompt_sheet()
    assert len(prompts) >= 8
    assert len(set(prompts)) == len(prompts)
    assert all(p == p.strip() for p in prompts)
