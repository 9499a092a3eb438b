"""Large texts: a killed tokenizing goes on and ends in the same bytes, whoever encodes; tables are streamed."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data import encode, journal, prepare, tokenizing
from microgpt.data.documents import BadRows, read_documents
from microgpt.data.rows import Rows
from microgpt.data.shards import open_set
from microgpt.data.sources import find_sources
from microgpt.data.tally import Contents, Lengths
from microgpt.errors import DataError

#: makes a set whose batches and shards are small; argv: folder of the cache, config as JSON, batch that is the last
MADE = """
import json, os, signal, sys
os.environ["MICROGPT_CACHE_DIR"] = sys.argv[1]
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data import encode, journal, prepare, shards, tokenizing
encode.BATCH_CHARACTERS = 2000
prepare.LARGE, tokenizing.SHARD_BATCHES = 1, 3
last, real, calls = int(sys.argv[3]), shards.SetWriter.add_all, 0
def counted(self, span):
    global calls
    calls += 1
    if calls == last:
        self._tokens.flush()  # what follows the last whole shard may well be on the disk
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, span)
shards.SetWriter.add_all = counted
made, _ = prepare.prepare(DataConfig(**json.loads(sys.argv[2])), TokenizerConfig(vocab_size=300), show_progress=False)
print(calls, made.folder)
"""


def made(cache: Path, data: dict[str, object], last: int = 0) -> tuple[int, int, dict[str, bytes]]:
    """(exit code, calls that wrote, content of the set's files)."""
    words = [sys.executable, "-c", MADE, str(cache), json.dumps(data), str(last)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return done.returncode, 0, {}
    calls, folder = done.stdout.split()
    return 0, int(calls), content_of(Path(folder))


def content_of(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    meta = json.loads(found.pop("meta.json"))
    del meta["seconds"]
    return {**found, "meta": json.dumps(meta).encode()}


def conversations(path: Path) -> None:
    with path.open("w") as file:
        for i in range(400):
            turns = [{"role": "user", "content": f"what is {i}?"}, {"role": "assistant", "content": f"{i}é, " * 9}]
            file.write(json.dumps({"messages": turns}) + "\n")


def test_a_killed_tokenizing_goes_on_from_its_last_shard_and_any_number_of_workers_writes_the_same(
    tmp_path: Path,
) -> None:
    lines, talks, one = tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "c.txt"
    lines.write_text("".join(f"the {i} birds fly over {i * i % 977} hills é\n" for i in range(1200)))
    conversations(talks)
    one.write_text("".join(f"line {i} of the only document\n" for i in range(1500)))
    cases = [(lines, {}), (talks, {}), (one, {"document": "file"})]
    for path, more in cases:
        data = {"path": [str(path)], "tokenize_workers": 0, **more}
        code, all_calls, whole = made(tmp_path / f"whole-{path.name}", data)
        assert code == 0
        assert all_calls > 10 or more
        for workers in (1, 2):
            cache = tmp_path / f"{workers}-{path.name}"
            data["tokenize_workers"] = workers
            if path == one:  # a file's pieces are larger than a batch: one shard, but the same bytes
                assert made(cache, data)[2] == whole
                continue
            last = all_calls * 3 // 4
            assert made(cache, data, last)[0] == -signal.SIGKILL
            (part,) = (cache / "tokens").glob(".*.part")
            told = json.loads((part / "journal.json").read_text())["journal"]
            assert told["batches"] >= 3
            assert not list((cache / "tokens").glob("[0-9a-f]*/meta.json")), "nothing half made has the set's name"
            _, calls, after = made(cache, {**data, "tokenize_workers": 2 - workers})
            assert after == whole
            assert calls == all_calls - 2 * told["batches"], "it went on behind the last whole shard"
            assert not list((cache / "tokens").glob(".*.part"))


@pytest.fixture
def small_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 500)
    monkeypatch.setattr(prepare, "LARGE", 1)
    monkeypatch.setattr(tokenizing, "SHARD_BATCHES", 2)
    return tmp_path / "cache" / "tokens"


def stopped(path: Path, monkeypatch: pytest.MonkeyPatch, **data: object) -> None:
    """A tokenizing that ends after some shards."""
    real, left = tokenizing.SetWriter.add_all, [20]

    def failing(self: tokenizing.SetWriter, span: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(self, span)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(tokenizing.SetWriter, "add_all", failing)
        with pytest.raises(KeyboardInterrupt):
            prepared(path, **data)


def prepared(path: Path, **data: object) -> dict[str, bytes]:
    config = DataConfig(path=[str(path)], tokenize_workers=0, **data)  # type: ignore[arg-type]
    shards, _ = prepare.prepare(config, TokenizerConfig(kind="char"), show_progress=False)
    return content_of(shards.folder)


@pytest.mark.parametrize("damage", ["journal", "digest", "short", "gone", "none"])
def test_what_does_not_fit_the_journal_is_made_again(
    damage: str, small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"the {i} birds\n" for i in range(1000)))
    stopped(path, monkeypatch)
    (part,) = small_shards.glob(".*.part")
    told = json.loads((part / "journal.json").read_text())
    assert told["journal"]["batches"]
    if damage == "journal":
        (part / "journal.json").write_text("{")
    elif damage == "digest":
        told["journal"]["digest"] = "0" * 32
        (part / "journal.json").write_text(json.dumps(told))
    elif damage == "short":
        os.truncate(part / "train.tokens", 3)
    elif damage == "gone":
        (part / "val.starts").unlink()
    after = prepared(path)
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "fresh"))
    assert after == prepared(path)


def test_sets_that_nobody_goes_on_with_are_removed_after_a_month(
    small_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"the {i} birds\n" for i in range(1000)))
    stopped(path, monkeypatch)
    (part,) = small_shards.glob(".*.part")
    journal.clear_parts(small_shards)
    assert part.exists()
    os.utime(part, (0, 0))
    journal.clear_parts(small_shards)
    assert not part.exists()


def test_a_character_without_a_token_is_told_by_workers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\nthree\n")
    _, tokenizer = prepare.prepare(DataConfig(path=[str(path)]), TokenizerConfig(kind="char"))
    path.write_text("one\ntwo\nQ\n")
    with pytest.raises(DataError, match="no token for 'Q'"):
        prepare.prepare(DataConfig(path=[str(path)], tokenize_workers=2), TokenizerConfig(), tokenizer)


def test_a_tokenizer_learns_from_a_sample_of_a_large_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "a.txt"
    path.write_text("".join(f"the {i} birds\n" for i in range(2000)))
    data = DataConfig(path=[str(path)])
    sources = find_sources(data)
    split = prepare.scan(sources, data)
    passes = prepare.Passes(sources, False)

    def learned(sample: float, kind: str = "bpe") -> int:
        wanted = TokenizerConfig(kind=kind, sample_mb=sample)
        return sum(map(len, prepare.learning_texts(sources, data, split, wanted, passes)))

    every = learned(100)
    assert 0.2 * every < learned(split.characters / 1e6 / 3) < 0.5 * every
    assert learned(0.001, "char") == split.characters
    prints = {s: prepare.fingerprint(sources, data, TokenizerConfig(sample_mb=s), None) for s in (0.01, 1.0, 100.0)}
    assert prints[1.0] == prints[100.0] != prints[0.01]


# Parquet and hub data sets

PARQUET = """
import sys
from microgpt.config.schema import DataConfig
from microgpt.data.documents import BadRows, read_documents
from microgpt.data.sources import Source
def peak():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) // 1024
data, bad = DataConfig(), BadRows()
list(read_documents([Source(sys.argv[1], "parquet", "0", 1)], data, bad))
before = peak()
told = []
found = sum(len(d.text) for d in read_documents([Source(sys.argv[2], "parquet", "0", 1000)], data, bad, told.append))
print(found, sum(told), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_parquet_file_of_many_and_of_large_row_groups_is_streamed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    texts = ["".join(map(chr, row)) for row in rng.integers(97, 123, (2000, 10_000))]  # 20 MB that do not compress
    pq.write_table(pa.table({"text": texts[:10]}), tmp_path / "little.parquet")
    for name, rows in (("many", 1000), ("one", 1 << 30)):
        path = tmp_path / f"{name}.parquet"
        table = pa.table({"text": texts * 10, "other": texts * 10})
        pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="none")
        words = [sys.executable, "-c", PARQUET, str(tmp_path / "little.parquet"), str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
        found, told, grown = map(int, done.stdout.split())
        assert found == 200_000_000
        assert told == 1000, "the bar comes to its end"
        assert grown < 100, f"{grown} MB for 200 MB of text in {name} row groups"
        path.unlink()


def test_bad_rows_of_parquet_are_named_by_file_and_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    raw = pa.array([b"one", b"tw\xff", b"x" * 600_000, b"four", None], pa.binary())
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 5, raw.buffers())}), path, row_group_size=2)
    bad = BadRows()
    data = DataConfig(path=[str(path)], max_line_mb=0.5)
    assert [d.text for d in read_documents(find_sources(data), data, bad)] == ["one", "four"]
    assert bad.shown == [
        f"{path}:2: invalid UTF-8",
        f"{path}:3: text over 524,288 bytes",
        f"{path}:5: 'text' is null",
    ]


def test_conversations_of_parquet_and_a_hub_folder_are_those_of_jsonl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = tmp_path / "rows.jsonl"
    conversations(rows)
    table = pa.Table.from_pylist([json.loads(line) for line in rows.read_text().splitlines()])
    (tmp_path / "hub").mkdir()
    for group, path in ((50, tmp_path / "rows.parquet"), (1000, tmp_path / "hub" / "train.parquet")):
        pq.write_table(table, path, row_group_size=group)
    hub = DataConfig(path=[str(tmp_path / "hub")], format="hub")
    files = [DataConfig(path=[str(rows)]), DataConfig(path=[str(tmp_path / "rows.parquet")]), hub]
    sets = [prepare.prepare(d, TokenizerConfig(kind="char"), show_progress=False)[0] for d in files]
    assert sets[0].train.mask is not None
    for other in sets[1:]:
        for name in ("train", "val"):
            for kind in ("tokens", "starts", "mask"):
                assert np.array_equal(getattr(getattr(sets[0], name), kind), getattr(getattr(other, name), kind))


# facts in little memory


def test_lengths_are_counted_as_numpy_would(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 50, 999)
    lengths = Lengths(values.tolist())
    for percent in (0, 12.5, 50, 90, 99, 100):
        assert lengths.percentile(percent) == pytest.approx(np.percentile(values, percent))
    between = Lengths()
    between.add_between(np.concatenate([[0], np.cumsum(values)]))
    assert between.arrays()[1].tolist() == lengths.arrays()[1].tolist()
    assert (len(between), between.sum()) == (999, values.sum())


@pytest.mark.parametrize("buffered", [7, 1 << 18])
def test_contents_that_stood_before_are_counted_on_disk_and_in_memory(
    buffered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microgpt.data.tally.BUFFERED", buffered)
    contents = Contents()
    for i in range(500):
        contents.add(f"text {i % 300}", i % 300 < 30)
    assert contents.duplicates() == (200, 0)
    contents = Contents()
    for held_out in (True, False, False):
        contents.add("same", held_out)
    assert contents.duplicates() == (2, 1)


def test_rows_are_the_same_when_pages_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(2).integers(1, 90, 30_000)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    starts.astype(np.int64).tofile(tmp_path / "train.starts")
    np.arange(starts[-1] + 1).astype(np.uint16).tofile(tmp_path / "train.tokens")
    sides: list[list[np.ndarray]] = []  # type: ignore[type-arg]
    for kept in (64 << 20, 0):
        monkeypatch.setattr("microgpt.data.shards.KEPT_BYTES", kept)
        tokens = open_set(tmp_path, "train", "uint16")
        assert tokens.large == (kept == 0)
        rows = Rows(tokens, 64, 1, True)
        index = [rows.take(at, 8).index for at in (0, 20_000, 3, 9_999)]
        sides.append([*index, *(tokens.tokens[i] for i in index)])
    assert all(np.array_equal(a, b) for a, b in zip(*sides))


def in_memory(tokens: np.ndarray, positions: list[int]) -> list[bool]:  # type: ignore[type-arg]
    """Which of a mapped file's tokens the system holds, without reading any."""
    pages = -(-tokens.nbytes // mmap.PAGESIZE)
    held = (ctypes.c_ubyte * pages)()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(tokens.ctypes.data), ctypes.c_size_t(tokens.nbytes), held) == 0
    return [bool(held[at * tokens.itemsize // mmap.PAGESIZE] & 1) for at in positions]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system what it holds of a file as Linux does")
@pytest.mark.parametrize("packing", [True, False])
def test_pieces_of_a_chunk_are_read_from_the_disk_before_its_batches_need_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: bool
) -> None:
    monkeypatch.setattr("microgpt.data.shards.KEPT_BYTES", 0)
    (np.arange(3001) * 20_000).tofile(tmp_path / "train.starts")
    np.zeros(3000 * 20_000 + 1, np.uint16).tofile(tmp_path / "train.tokens")
    tokens = open_set(tmp_path, "train", "uint16")
    rows = Rows(tokens, 64, 1, packing)
    with open(tmp_path / "train.tokens", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(in_memory(tokens.tokens, [30_000_000, 40_000_000])):
        pytest.skip("this file system holds its files in memory")
    wanted = [int(row[row >= 0][0]) for row in rows.take(0, 64).index]
    until = time.monotonic() + 20
    while not all(in_memory(tokens.tokens, wanted)):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not all(in_memory(tokens.tokens, list(range(0, 60_000_000, 500_000)))), "not the whole file"
