"""Thousands of mutated model, checkpoint and data files: each works or is refused in one line, with exit 3 or 4."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from mutating import mutated_bytes, mutated_json

from microgpt.checkpoints.folder import MANIFEST, META, OPTIMIZER, STATE, TOKENIZER, WEIGHTS, find, write_folder
from microgpt.checkpoints.model import load_weights, open_model
from microgpt.config.schema import DataConfig, OptimizerConfig, TokenizerConfig
from microgpt.data.batches import Batches
from microgpt.data.prepare import prepare
from microgpt.errors import MicrogptError
from microgpt.training.checkpoint_io import FolderCheckpointIO
from microgpt.training.optimizer import check_state, make_optimizer

MEBIBYTE = 2**20
SECONDS = 20.0


@pytest.fixture
def no_hang() -> Iterator[Callable[[], None]]:
    """Raises in the test when a stretch takes too long; call it at the start of the next stretch."""

    def rung(number: int, frame: object) -> None:
        raise TimeoutError("it hangs")

    former = signal.signal(signal.SIGALRM, rung)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, SECONDS) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def fuzz(
    count: int, seed: str, attempt: Callable[[random.Random], Callable[[], object]], no_hang: Callable[[], None]
) -> int:
    """Try `count` mutations; returns how many were refused. Anything but a refusal in one line fails the test."""
    draw, process, refused, before = random.Random(seed), psutil.Process(), 0, 0
    torch.set_num_threads(1)
    for number in range(count):
        if number == count // 5:  # caches and pools are full by now
            before = process.memory_info().rss
        no_hang()
        action = attempt(draw)
        try:
            action()
        except MicrogptError as error:
            refused += 1
            if error.exit_code not in (3, 4) or "\n" in str(error):
                pytest.fail(f"mutation {number}: {error!r}")
    grown = (process.memory_info().rss - before) / MEBIBYTE
    assert grown < 50, f"memory grew by {grown:.0f} MiB"
    return refused


# ---- models and checkpoints


def mutated(name: str, content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.4:
        return mutated_bytes(content, draw)
    if name.endswith(".safetensors"):
        length = int.from_bytes(content[:8], "little")
        header = json.dumps(mutated_json(json.loads(content[8 : 8 + length]), draw)).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return json.dumps(mutated_json(json.loads(content), draw)).encode()


def resumable(folder: Path) -> None:
    """Read a checkpoint as a resumed run does, up to the first update."""
    opened = open_model(folder)
    model = load_weights(opened)
    loaded = FolderCheckpointIO(model, opened.tokenizer, {}).load_checkpoint(folder)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=0.01))
    try:
        check_state(optimizer, loaded["optimizer_states"][0])
    except (KeyError, ValueError, TypeError, AttributeError):
        return  # training/fit.py makes one line of these, and the test below holds it
    optimizer.load_state_dict(loaded["optimizer_states"][0])
    with torch.no_grad():
        model(torch.tensor([[0, 1, 2]]))
    opened.tokenizer.decode([0, 1, 2])


@pytest.mark.parametrize("sealed", [False, True], ids=["bare", "under_a_manifest"])
def test_mutated_models_and_checkpoints_are_refused_or_work(
    unbroken: Path, tmp_path: Path, torture: bool, sealed: bool, no_hang: Callable[[], None]
) -> None:
    good = {p.name: p.read_bytes() for p in find(unbroken / "checkpoints", "latest").iterdir()}
    listed = {name: content for name, content in good.items() if name != MANIFEST}
    folder = tmp_path / "m"

    def attempt(draw: random.Random) -> Callable[[], object]:
        name = draw.choice([WEIGHTS, OPTIMIZER, TOKENIZER, META, STATE, *([] if sealed else [MANIFEST])])
        content = mutated(name, good[name], draw)
        shutil.rmtree(folder, ignore_errors=True)
        if sealed:  # as an attacker or another tool would: the checksums are right
            write_folder(folder, {**listed, name: content}, 3)
        else:
            folder.mkdir()
            for other in (*listed, *([MANIFEST] if name == MANIFEST else [])):
                (folder / other).write_bytes(content if other == name else good[other])
            if name == MANIFEST:
                (folder / MANIFEST).write_bytes(content)
        return lambda: resumable(folder)

    count = 5000 if torture else 400
    assert fuzz(count, f"model {sealed}", attempt, no_hang) > count // 4


def test_a_checkpoint_with_a_foreign_training_state_is_refused_by_the_run_in_one_line(
    warm: Any, unbroken: Path, tmp_path: Path, torture: bool
) -> None:
    """The manifest is right, so only the run itself can tell: no traceback, whatever stands in it."""
    shutil.copytree(unbroken, tmp_path / "run")
    last = find(tmp_path / "run" / "checkpoints", "latest")
    good = {p.name: p.read_bytes() for p in last.iterdir() if p.name != MANIFEST}
    draw = random.Random(4)
    codes: list[int] = []
    for _ in range(100 if torture else 6):
        name = draw.choice([OPTIMIZER, STATE])
        write_folder(last, {**good, name: mutated(name, good[name], draw)}, 120)
        child = warm.start("train", "resume=run", "trainer.additional_steps=1", cwd=tmp_path)
        codes.append(child.wait())
        said = child.said
        assert codes[-1] in (0, 4), said
        assert "Traceback" not in said
        write_folder(last, good, 120)
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(unbroken, tmp_path / "run")
    assert 4 in codes


# ---- data

TURNS = [{"role": "user", "content": "Is it <bos> far?"}, {"role": "assistant", "content": "No, <|end|> near."}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": f"a line of text, number {i}\nwith é and 漢"} for i in range(12)],
    "messages": [{"messages": [*TURNS, *TURNS, {"role": "assistant", "content": str(i)}][:4]} for i in range(12)],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": "a"}]} for i in range(12)
    ],
    "dolly": [{"instruction": f"say {i}", "context": "", "response": f"it is {i}"} for i in range(12)],
    "alpaca": [{"instruction": f"say {i}", "input": "x", "output": f"it is {i}"} for i in range(12)],
}
TEXT = "".join(f"line {i} of a text with é, 漢 and <bos>\r\n" for i in range(30)) + "<|endoftext|>\nmore\x00text"


def mutated_rows(rows: list[dict[str, Any]], draw: random.Random) -> bytes:
    lines = [json.dumps(row) for row in rows]
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(mutated_json(rows[at], draw))
    content = "\n".join(lines).encode()
    return mutated_bytes(content, draw) if draw.random() < 0.4 else content


def test_mutated_data_files_are_refused_or_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torture: bool, no_hang: Callable[[], None]
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(cache))

    def attempt(draw: random.Random) -> Callable[[], object]:
        kind = draw.choice(["txt", *ROWS])
        path = tmp_path / f"data.{'txt' if kind == 'txt' else 'jsonl'}"
        content = mutated_bytes(TEXT.encode(), draw) if kind == "txt" else mutated_rows(ROWS[kind], draw)
        path.write_bytes(content)
        data = DataConfig(
            path=[str(path)],
            document=draw.choice(["line", "file", "separator"]),
            on_bad_rows=draw.choice(["fail", "skip"]),
            schema=draw.choice(["auto", kind if kind != "txt" else "text"]),
        )

        def action() -> None:
            try:
                shards, _ = prepare(data, TokenizerConfig(kind="char"), show_progress=False, block_size=16)
                batch = Batches(shards.train, 16, 2, 1).micro_batch(0)
                assert batch.inputs.shape == (2, 16)
            finally:
                shutil.rmtree(cache / "tokens", ignore_errors=True)

        return action

    count = 10_000 if torture else 1200
    assert fuzz(count, "data", attempt, no_hang) > count // 10


def test_mutated_parquet_files_are_refused_or_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torture: bool, no_hang: Callable[[], None]
) -> None:
    from datasets import Dataset

    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "data.parquet"
    Dataset.from_list(ROWS["text"]).to_parquet(path)
    good = path.read_bytes()

    def attempt(draw: random.Random) -> Callable[[], object]:
        path.write_bytes(mutated_bytes(good, draw))

        def action() -> None:
            prepare(DataConfig(path=[str(path)]), TokenizerConfig(kind="char"), show_progress=False)
            shutil.rmtree(tmp_path / "cache" / "tokens", ignore_errors=True)

        return action

    assert fuzz(500 if torture else 20, "parquet", attempt, no_hang) > 2
