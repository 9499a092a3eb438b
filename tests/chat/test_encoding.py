"""From turns to targets: which ids stand where, which of them count, and how long conversations are divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.config.schema import DataConfig, ModelConfig, TokenizerConfig
from microgpt.data.batches import Batches
from microgpt.data.documents import Document
from microgpt.data.encode import Encoded, Encoder, Rules
from microgpt.data.mixture import MixedBatches, prepare_all
from microgpt.data.prepare import prepare
from microgpt.data.shards import SetWriter, Span, TokenSet, open_set
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, END_TURN, Tokenizer
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.template import encode_turns, generation_prompt

Turns = Sequence[tuple[str, str]]
TALK = (("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye"), ("assistant", "So long"))


class Counted(NamedTuple):
    skipped: int
    divided: int
    cut: int


def counted_of(made: Encoded) -> Counted:
    return Counted(*(made.numbers[name] for name in ("skipped_long", "divided", "cut_replies")))


def document(turns: Turns) -> Document:
    text = "\n".join(f"{role}: {text}" for role, text in turns)
    return Document(text, "messages", text, turns=tuple(turns))


def encoded(tokenizer: Tokenizer, documents: list[Document], block: int | None, skip_long: bool = False) -> Encoded:
    """Documents that are all training ones."""
    return Encoder(tokenizer, Rules(0.0, False, True, skip_long, block, "uint16")).encoded(documents)


def cut_apart(span: Span) -> list[tuple[Any, Any]]:
    """(ids without BOS, mask) of each document of a span."""
    assert span.mask is not None
    assert len(span.mask) == len(span.tokens)
    ends = [*span.starts[1:].tolist(), len(span.tokens)]
    return [(span.tokens[s + 1 : e].astype(np.int64), span.mask[s:e]) for s, e in zip(span.starts.tolist(), ends)]


def pieces_of(
    tokenizer: Tokenizer, turns: Turns, block_size: int | None = None, skip_long: bool = False
) -> tuple[Any, Counted]:
    made = encoded(tokenizer, [document(turns)], block_size, skip_long)
    return cut_apart(made.spans["train"]), counted_of(made)


def spelled(tokenizer: Tokenizer, turns: Turns) -> list[int]:
    """(role, text, end_turn)*, built here from nothing but `encode` and the control ids."""
    ids: list[int] = []
    for role, text in turns:
        ids += [tokenizer.control[f"<{role}>"], *tokenizer.encode(text), tokenizer.control[END_TURN]]
    return ids


def replies(tokenizer: Tokenizer, turns: Turns) -> list[int]:
    """The ids that count: each reply with its end."""
    said = [text for role, text in turns if role == "assistant"]
    return [i for text in said for i in (*tokenizer.encode(text), tokenizer.control[END_TURN])]


def written(folder: Path, tokenizer: Tokenizer, talks: Sequence[Turns], block_size: int) -> TokenSet:
    writer = SetWriter(folder, "train", "uint16", tokenizer.bos, masked=True)
    for ids, mask in cut_apart(encoded(tokenizer, [document(t) for t in talks], block_size).spans["train"]):
        writer.add(ids, mask)
    writer.close()
    return open_set(folder, "train", "uint16")


def talks_of(count: int, words: int = 3) -> list[Turns]:
    return [
        (("user", f"question {i} " + "why " * (i % 5)), ("assistant", f"answer {i} " + "so " * (i % words)))
        for i in range(count)
    ]


# ---- ids and masks


def test_a_conversation_is_role_text_end_turn_between_bos(tmp_path: Path, tokenizer: Tokenizer) -> None:
    ((ids, mask),), _ = pieces_of(tokenizer, TALK)
    assert ids.tolist() == spelled(tokenizer, TALK)
    assert len(mask) == len(ids) + 1
    assert mask[-1] == 0  # the closing BOS
    stream = written(tmp_path, tokenizer, [TALK, TALK], 256).tokens.tolist()
    bos, one = tokenizer.bos, spelled(tokenizer, TALK)
    assert stream == [bos, *one, bos, *one, bos]


def test_training_and_talking_agree_on_the_ids(tokenizer: Tokenizer) -> None:
    ((ids, _),), _ = pieces_of(tokenizer, TALK)
    turns = encode_turns(tokenizer, TALK)
    assert [i for turn in turns for i in turn.ids] == ids.tolist()
    prompt = generation_prompt(tokenizer, turns[:-1])
    assert prompt == [tokenizer.bos, *ids.tolist()][: len(prompt)]


def test_the_mask_is_on_replies_and_their_end_alone(tokenizer: Tokenizer) -> None:
    ((ids, mask),), _ = pieces_of(tokenizer, TALK)
    assert ids[mask[:-1] > 0].tolist() == replies(tokenizer, TALK)
    control = {tokenizer.control[t] for t in ("<user>", "<assistant>", "<system>")}
    assert not control & set(ids[mask[:-1] > 0].tolist())
    assert int((ids[mask[:-1] > 0] == tokenizer.control[END_TURN]).sum()) == 2


SPELLINGS = [BOS, *CHAT_TOKENS, "x<assistant>y", "<user>Hi<end_turn><assistant>"]


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("text", SPELLINGS)
def test_text_that_spells_a_control_token_stays_text(tokenizer: Tokenizer, kind: str, text: str) -> None:
    used = tokenizer if kind == "bpe" else CharTokenizer("".join(SPELLINGS), (BOS, *CHAT_TOKENS))
    ((ids, mask),), _ = pieces_of(used, (("user", text), ("assistant", text)))
    control = [i for i in ids.tolist() if i in used.control.values()]
    assert control == [used.control[t] for t in ("<user>", END_TURN, "<assistant>", END_TURN)]
    assert used.decode(ids.tolist()) == text + text
    assert used.decode(ids[mask[:-1] > 0].tolist()) == text


# ---- long conversations


def test_a_long_conversation_is_divided_at_turn_ends_with_its_system_turn_repeated(tokenizer: Tokenizer) -> None:
    system = ("system", "Be kind.")
    exchanges = [(("user", f"question {i}"), ("assistant", f"answer number {i}")) for i in range(9)]
    turns = [system, *(turn for exchange in exchanges for turn in exchange)]
    block = 1 + len(spelled(tokenizer, [system, *exchanges[0], *exchanges[1]]))
    pieces, encoder = pieces_of(tokenizer, turns, block)
    groups = [turns[1 + at : 5 + at] for at in range(0, 18, 4)]
    assert [ids.tolist() for ids, _ in pieces] == [spelled(tokenizer, [system, *group]) for group in groups]
    assert [ids[mask[:-1] > 0].tolist() for ids, mask in pieces] == [replies(tokenizer, group) for group in groups]
    assert (encoder.divided, encoder.cut, encoder.skipped) == (1, 0, 0)


def test_a_conversation_that_just_fits_is_not_divided(tokenizer: Tokenizer) -> None:
    size = len(spelled(tokenizer, TALK)) + 1
    pieces, encoder = pieces_of(tokenizer, TALK, size)
    assert (len(pieces), encoder.divided) == (1, 0)
    pieces, encoder = pieces_of(tokenizer, TALK, size - 1)
    assert (len(pieces), encoder.divided, encoder.cut) == (2, 1, 0)


def test_a_reply_that_does_not_fit_is_cut_and_counted(tokenizer: Tokenizer) -> None:
    turns = (("user", "Hi"), ("assistant", "a b c " * 100), ("user", "Bye"), ("assistant", "Bye"))
    pieces, encoder = pieces_of(tokenizer, turns, 32)
    assert encoder.cut == 1
    (ids, mask), rest = pieces
    assert ids.tolist() == spelled(tokenizer, turns)[:31]
    assert mask[-1] == 0  # a BOS that cuts a reply is not to be learned as its end
    assert rest[0].tolist() == spelled(tokenizer, turns[2:])


def test_a_question_that_leaves_no_room_for_its_reply_is_counted_and_left_out(tokenizer: Tokenizer) -> None:
    pieces, encoder = pieces_of(tokenizer, (("user", "a b c " * 100), ("assistant", "Hello!")), 32)
    assert pieces == []
    assert (encoder.cut, encoder.divided) == (1, 1)


def test_skip_long_keeps_whole_conversations_only(tokenizer: Tokenizer) -> None:
    size = len(spelled(tokenizer, TALK)) + 1
    pieces, encoder = pieces_of(tokenizer, TALK, size, skip_long=True)
    assert (len(pieces), encoder.skipped) == (1, 0)
    pieces, encoder = pieces_of(tokenizer, TALK, size - 1, skip_long=True)
    assert (pieces, encoder.skipped, encoder.divided, encoder.cut) == ([], 1, 0, 0)


def test_skip_long_keeps_texts_whose_tokens_with_both_bos_fit_block_size_and_one(tokenizer: Tokenizer) -> None:
    text = Document("the cat sat", "text", "the cat sat")
    size = len(tokenizer.encode(text.text)) + 2
    for block, kept in ((size - 1, 1), (size - 2, 0)):
        made = encoded(tokenizer, [text], block, skip_long=True)
        assert (len(made.spans["train"].starts), counted_of(made).skipped) == (kept, 1 - kept)


WORDS = st.text(alphabet="abc dé€<>", min_size=1, max_size=24)
EXCHANGE = st.tuples(st.lists(WORDS, min_size=1, max_size=2), st.lists(WORDS, min_size=1, max_size=2))
BYTES = train_bpe([], 261, (BOS, *CHAT_TOKENS))


@settings(max_examples=150, deadline=None)
@given(
    system=st.one_of(st.none(), WORDS),
    exchanges=st.lists(EXCHANGE, min_size=1, max_size=6),
    block=st.integers(2, 160),
)
def test_every_piece_fits_and_has_whole_exchanges_or_is_counted(
    system: str | None, exchanges: list[Any], block: int
) -> None:
    first = [] if system is None else [("system", system)]
    groups = [[*(("user", u) for u in users), *(("assistant", a) for a in said)] for users, said in exchanges]
    turns = [*first, *(turn for group in groups for turn in group)]
    pieces, encoder = pieces_of(BYTES, turns, block)
    before = spelled(BYTES, first)
    encoded = [spelled(BYTES, group) for group in groups]
    assert all(len(ids) + 1 <= block for ids, _ in pieces)
    assert all(len(mask) == len(ids) + 1 and mask[-1] == 0 and mask.any() for ids, mask in pieces)
    assert encoder.cut == sum(len(before) + len(ids) + 1 > block for ids in encoded)
    assert encoder.divided == (len(before) + sum(map(len, encoded)) + 1 > block)
    # the pieces are, in order, runs of whole exchanges behind the system turn, or the beginning of one too long
    at = 0
    for ids, mask in pieces:
        ids = ids.tolist()
        assert ids[: len(before)] == before
        rest, counted, start = ids[len(before) :], mask[len(before) : -1], 0
        while start < len(rest):
            while (
                len(before) + len(encoded[at]) + 1 > block and rest[start:] != encoded[at][: block - 1 - len(before)]
            ):
                at += 1  # cut so far that nothing of a reply was left
            wanted = replies(BYTES, groups[at])
            whole = rest[start : start + len(encoded[at])] == encoded[at]
            assert whole or (start == 0 and rest == encoded[at][: block - 1 - len(before)])
            stop = start + len(encoded[at])
            learned = np.array(rest[start:stop])[counted[start:stop] > 0].tolist()
            assert learned == (wanted if whole else wanted[: len(learned)])
            start, at = stop, at + 1
    assert all(len(before) + len(ids) + 1 > block for ids in encoded[at:])


# ---- batches


@pytest.mark.parametrize("packing", [True, False])
def test_masks_survive_packing(tmp_path: Path, write_rows: Any, packing: bool) -> None:
    talks = talks_of(60)
    rows = [[{"role": role, "content": text} for role, text in turns] for turns in talks]
    config = DataConfig(path=[str(write_rows(*rows))], packing=packing)
    prepared = prepare_all(config, TokenizerConfig(vocab_size=300), show_progress=False, block_size=64)
    tokenizer, (shards,) = prepared.tokenizer, prepared.parts
    said = [tokenizer.encode(text) for turns in talks for role, text in turns if role == "assistant"]
    end = tokenizer.control[END_TURN]
    for tokens, batches in (
        (shards.train, prepared.train_batches(config, 64, 4, 1)),
        (shards.val, prepared.val_batches(config, 64, 4)[0]),
    ):
        assert tokens.mask is not None
        for number in range(batches.per_epoch):
            batch = batches.fixed(number) if tokens is shards.val else batches.micro_batch(number)
            place = np.where(batch.index >= 0, batch.index, 0) + 1
            learned = (batch.index >= 0) & (tokens.mask[place] > 0)
            assert ((batch.targets >= 0) == learned).all()
            assert (batch.targets[learned] == tokens.tokens[place][learned]).all()
            assert not learned[batch.inputs == tokenizer.control["<user>"]].any()
            segments = np.zeros_like(batch.index) if batch.segments is None else batch.segments
            for row, pieces in zip(batch.targets, segments):
                for piece in set(pieces[pieces >= 0].tolist()):
                    ids = row[(pieces == piece) & (row >= 0)].tolist()
                    if not packing and ids:  # no ids: a row that fills up the last batch
                        assert ids[-1] == end
                        assert ids[:-1] in said  # a row is a conversation, and what is learned of it is its reply
                    elif ids:  # a packed row can begin or end inside a conversation
                        inner = ids[:-1] if ids[-1] == end else ids
                        assert any(
                            inner == reply[i : i + len(inner)] for reply in said for i in range(len(reply) + 1)
                        )


def test_the_targets_of_an_epoch_are_the_replies_of_the_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    talks = talks_of(40)
    tokens = written(tmp_path, tokenizer, talks, 64)
    batches = Batches(tokens, 64, 8, None)
    targets = np.concatenate([batches.fixed(i).targets.ravel() for i in range(batches.per_epoch)])
    ids = targets[targets >= 0].tolist()
    ends = int((np.array(ids) == tokenizer.control[END_TURN]).sum())
    assert ends == 40
    counted = sorted(ids)
    assert counted == sorted(i for turns in talks for i in replies(tokenizer, turns))


def test_targets_of_user_positions_move_no_gradient(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokens = written(tmp_path, tokenizer, talks_of(12), 64)
    batch = Batches(tokens, 64, 4, 1).micro_batch(0)
    assert tokens.mask is not None
    user = (tokens.mask[np.where(batch.index >= 0, batch.index, 0) + 1] == 0) | (batch.index < 0)
    assert user.any()
    assert not user.all()

    def gradients(stream: np.ndarray[Any, Any]) -> list[torch.Tensor]:
        """Of the loss on the same inputs with targets read from another stream of tokens."""
        model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, init="normal"), tokenizer.vocab_size)
        model.init_weights(1)
        other = Batches(TokenSet(stream, tokens.starts, tokens.mask), 64, 4, 1).micro_batch(0)
        loss = model.loss(
            torch.from_numpy(batch.inputs),
            torch.from_numpy(other.targets),
            torch.from_numpy(batch.positions),
            None if batch.segments is None else torch.from_numpy(batch.segments),
        )
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = np.array(tokens.tokens)
    altered = np.where(np.array(tokens.mask) == 0, (plain + 7) % tokenizer.vocab_size, plain)
    assert (altered != plain).any()
    true = gradients(plain)
    assert any(g.abs().sum() > 0 for g in true)
    assert all(torch.equal(a, b) for a, b in zip(true, gradients(altered)))
    replies_altered = np.where(np.array(tokens.mask) > 0, (plain + 7) % tokenizer.vocab_size, plain)
    assert not all(torch.equal(a, b) for a, b in zip(true, gradients(replies_altered)))


def test_loss_on_all_counts_every_position(write_rows: Any) -> None:
    rows = [[{"role": role, "content": text} for role, text in turns] for turns in talks_of(40)]
    path = str(write_rows(*rows))
    counted: dict[str, int] = {}
    for loss_on in ("assistant", "all"):
        config = DataConfig(path=[path], loss_on=loss_on)
        prepared = prepare_all(config, TokenizerConfig(vocab_size=300), show_progress=False, block_size=64)
        (batches,) = prepared.val_batches(config, 64, 4)
        made = [batches.fixed(i) for i in range(batches.per_epoch)]
        counted[loss_on] = sum(b.target_count for b in made)
        if loss_on == "all":
            assert counted["all"] == sum(int((b.index >= 0).sum()) for b in made) == prepared.parts[0].val.positions
    assert 0 < counted["assistant"] < counted["all"]


def test_conversations_are_divided_anew_for_another_context(write_rows: Any) -> None:
    turns = [turn for exchange in talks_of(12) for turn in exchange]
    rows = [[{"role": r, "content": f"{t} {n}"} for r, t in turns] for n in range(8)]
    config, wanted = DataConfig(path=[str(write_rows(*rows))]), TokenizerConfig(vocab_size=300)
    counts = {b: prepare(config, wanted, None, False, b)[0].meta["conversations"]["divided"] for b in (64, 4096)}
    assert counts == {64: 8, 4096: 0}


# ---- mixtures


def mixed(tmp_path: Path, tokenizer: Tokenizer, weights: list[float], rows: int = 8, seed: int = 5) -> MixedBatches:
    sets = []
    for i in range(len(weights)):
        (tmp_path / f"{seed}-{rows}-{i}").mkdir(exist_ok=True)
        sets.append(written(tmp_path / f"{seed}-{rows}-{i}", tokenizer, talks_of(25 + 11 * i), 32))
    return MixedBatches([Batches(s, 32, rows, seed + i) for i, s in enumerate(sets)], weights, seed)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [([1, 1], [128, 128]), ([7, 3], [179, 77]), ([0.5, 0.25, 0.25], [128, 64, 64]), ([1e6, 1], [255, 1])],
)
def test_every_256_rows_hold_each_share_exactly(
    tmp_path: Path, tokenizer: Tokenizer, weights: list[float], shares: list[int]
) -> None:
    batches = mixed(tmp_path, tokenizer, weights)
    for first in (0, 32, 320):
        part = np.concatenate([batches.micro_batch(step).part for step in range(first, first + 32)])  # type: ignore[misc]
        assert np.bincount(part, minlength=len(weights)).tolist() == shares


def test_the_batch_of_a_step_is_a_function_of_the_step(tmp_path: Path, tokenizer: Tokenizer) -> None:
    one, other = mixed(tmp_path, tokenizer, [2, 1]), mixed(tmp_path, tokenizer, [2, 1])
    forward = [one.micro_batch(step) for step in range(70)]
    for step in (69, 3, 31, 32, 0):
        again = other.micro_batch(step)
        for name in ("inputs", "targets", "positions", "segments", "index", "part"):
            assert np.array_equal(getattr(again, name), getattr(forward[step], name)), (step, name)
    reseeded = mixed(tmp_path, tokenizer, [2, 1], seed=6)
    assert any(not np.array_equal(reseeded.micro_batch(step).part, forward[step].part) for step in range(4))


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_each_set_gives_its_rows_in_its_own_order_without_gaps(
    tmp_path: Path, tokenizer: Tokenizer, rows: int
) -> None:
    batches = mixed(tmp_path, tokenizer, [5, 2, 1], rows)
    taken: list[list[Any]] = [[], [], []]
    for step in range(-(-700 // rows)):
        batch = batches.micro_batch(step)
        assert batch.part is not None
        for row, part in enumerate(batch.part.tolist()):
            taken[part].append(batch.index[row])
    for part, alone in enumerate(batches.parts):
        wanted = alone.rows.take(0, len(taken[part])).index
        assert np.array_equal(np.stack(taken[part]), wanted)


def test_micro_batches_and_ranks_divide_the_same_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    wide, narrow = mixed(tmp_path, tokenizer, [2, 1], 8), mixed(tmp_path, tokenizer, [2, 1], 2)
    for step in (0, 9, 33):
        whole = wide.micro_batch(step)
        split = [narrow.micro_batch(step, m, 2, r, 2) for m in range(2) for r in range(2)]
        assert np.array_equal(whole.inputs, np.concatenate([b.inputs for b in split]))
        assert np.array_equal(whole.targets, np.concatenate([b.targets for b in split]))


def test_a_mixture_of_text_and_conversations_counts_text_wholly_and_conversations_in_replies(
    tmp_path: Path, write_rows: Any
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"the cat number {i} sat on the mat\n" for i in range(60)))
    talk = write_rows(*[[{"role": r, "content": t} for r, t in turns] for turns in talks_of(60)])
    config = DataConfig(mixture=[f"{text}:1", f"{talk}:1"])
    prepared = prepare_all(config, TokenizerConfig(vocab_size=300), show_progress=False, block_size=48)
    assert prepared.tokenizer.is_chat
    batches = prepared.train_batches(config, 48, 16, 1)
    batch = batches.micro_batch(0)
    assert batch.part is not None
    for part, everything in ((0, True), (1, False)):
        rows = batch.part == part
        real, counted = batch.index[rows] >= 0, batch.targets[rows] >= 0
        assert (counted == real).all() == everything
        assert counted.any()
