"""Scores are what a direct computation over every document says, and bits per byte is what it says by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from microgpt.config.schema import ModelConfig
from microgpt.data.batches import Batches
from microgpt.data.shards import SetWriter, TokenSet, open_set
from microgpt.inference.score import score
from microgpt.model.gpt import GPT
from microgpt.tokenizer.char import CharTokenizer

TOKENIZER = CharTokenizer("aé漢😀z")
BOS = TOKENIZER.bos
BLOCK = 8
DOCUMENTS = ["a", "éé", "漢a😀z", "zzzzzzz", "", "aé漢"]
CONFIG = ModelConfig(n_layer=1, n_head=2, n_embd=8, block_size=BLOCK, init="normal", init_std=0.5)


@pytest.fixture(scope="module")
def model() -> GPT:
    made = GPT(CONFIG, TOKENIZER.vocab_size)
    made.init_weights(1)
    return made.eval()


def token_set(folder: Path, masks: list[list[int]] | None = None) -> TokenSet:
    writer = SetWriter(folder, "val", np.uint16, BOS, masked=masks is not None)
    for i, text in enumerate(DOCUMENTS):
        mask = None if masks is None else np.array(masks[i], np.uint8)
        writer.add(np.array(TOKENIZER.encode(text), np.uint16), mask)
    writer.close()
    return open_set(folder, "val", np.uint16)


@torch.no_grad()
def losses_of(model: GPT, text: str) -> list[float]:
    ids = [BOS, *TOKENIZER.encode(text), BOS]
    logits = model(torch.tensor([ids[:-1]]))[0]
    return (-torch.log_softmax(logits.double(), -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]).tolist()


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("packing", [True, False])
def test_the_score_is_that_of_every_document_alone(tmp_path: Path, model: GPT, packing: bool, rows: int) -> None:
    each = [losses_of(model, text) for text in DOCUMENTS]
    seen: list[tuple[int, int]] = []
    batches = Batches(token_set(tmp_path), BLOCK, rows, None, packing)
    found = score(model, [batches], TOKENIZER.token_bytes(), lambda *done: seen.append(done))
    assert seen == [(i + 1, batches.per_epoch) for i in range(batches.per_epoch)]
    nats, tokens = sum(map(sum, each)), sum(map(len, each))
    size = sum(len(text.encode()) for text in DOCUMENTS)
    assert found.tokens == tokens == sum(len(text) + 1 for text in DOCUMENTS)
    if not packing:  # packed, a document may be cut between two rows
        assert found.loss == pytest.approx(nats / tokens, rel=1e-5)
        assert found.ppl == pytest.approx(math.exp(nats / tokens), rel=1e-5)
        assert found.bpb == pytest.approx(nats / math.log(2) / size, rel=1e-5)
        for place in range(BLOCK):
            here = [losses[place] for losses in each if len(losses) > place]
            assert found.position_loss[place] == pytest.approx(sum(here) / len(here), rel=1e-5)


def test_bits_per_byte_by_hand(tmp_path: Path, model: GPT) -> None:
    flat = GPT(replace(CONFIG, tied=True), TOKENIZER.vocab_size).eval()
    flat.init_weights(0)
    with torch.no_grad():
        flat.wte.zero_()  # every token is equally likely: log2(6) bits each
    found = score(flat, [Batches(token_set(tmp_path), BLOCK, 4, None)], TOKENIZER.token_bytes())
    targets = 1 + 2 + 4 + 7 + 0 + 3 + 6  # the characters of the documents, and the end of each
    size = 1 + 2 * 2 + (3 + 1 + 4 + 1) + 7 + 0 + (1 + 2 + 3)  # their bytes; an end has none
    assert found.tokens == targets
    assert found.loss == pytest.approx(math.log(6), rel=1e-6)
    assert found.ppl == pytest.approx(6, rel=1e-6)
    assert found.bpb == pytest.approx(targets * math.log2(6) / size, rel=1e-6)
    assert score(model, [Batches(token_set(tmp_path), BLOCK, 4, None)], None).bpb is None


def test_targets_that_do_not_count_are_not_scored(tmp_path: Path, model: GPT) -> None:
    masks = [[0] * (len(text) + 1) for text in DOCUMENTS]
    masks[2] = [0, 1, 1, 0, 1]
    tokens = token_set(tmp_path, masks)
    found = score(model, [Batches(tokens, BLOCK, 3, None, packing=False)], TOKENIZER.token_bytes())
    losses = losses_of(model, DOCUMENTS[2])
    counted = losses[1] + losses[2] + losses[4]
    assert found.tokens == 3
    assert found.loss == pytest.approx(counted / 3, rel=1e-5)
    assert found.bpb == pytest.approx(counted / math.log(2) / (1 + 4), rel=1e-5)
    assert np.isnan(found.position_loss[[0, 3, 5, 6, 7]]).all()


def test_scoring_twice_gives_the_same_bits(tmp_path: Path, model: GPT) -> None:
    batches = Batches(token_set(tmp_path), BLOCK, 3, None)
    first, second = (score(model, [batches], TOKENIZER.token_bytes()) for _ in range(2))
    assert (first.loss, first.bpb) == (second.loss, second.bpb)


def test_the_score_of_two_data_sets_is_that_of_all_their_documents(tmp_path: Path, model: GPT) -> None:
    batches = Batches(token_set(tmp_path), BLOCK, 3, None, packing=False)
    one = score(model, [batches], TOKENIZER.token_bytes())
    both = score(model, [batches, batches], TOKENIZER.token_bytes())
    assert both.tokens == 2 * one.tokens
    assert both.loss == pytest.approx(one.loss, rel=1e-9)
    assert both.bpb == pytest.approx(one.bpb, rel=1e-9)
