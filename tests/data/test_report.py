"""What is said about a data set is true: counts, near duplicates, baselines, advice; the embedded texts are good."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from microgpt import files
from microgpt.config.schema import DataConfig
from microgpt.data import documents
from microgpt.data.baselines import baselines
from microgpt.data.download import download
from microgpt.data.report import NearDuplicates, advised_block_size, inspect, percentiles
from microgpt.data.shards import SetWriter, TokenSet, open_set
from microgpt.data.sources import CORPORA, corpus_file, find_sources
from microgpt.errors import DataError

CORPUS = files.shipped("corpora")


def inspected(path: Path, **data: object):
    config = DataConfig(path=[str(path)], **data)  # type: ignore[arg-type]
    return inspect(find_sources(config), config, 0.8)


# the report


def test_the_report_counts_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"this is the text number {i} é"} for i in range(50)] + [{"text": "this is the text number 3 é"}]
    rows += [{"text": " "}, {"text": "<bos> spelled <user>"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + "{\n")
    report, lengths = inspected(path)
    good = [r["text"] for r in rows if r["text"].strip()]
    assert report.documents == len(lengths) == len(good) == 52
    assert report.characters == sum(map(len, good)) == lengths.sum()
    assert report.bytes == sum(len(t.encode()) for t in good)
    assert (report.exact_duplicates, report.split_leakage, report.control_spellings) == (1, 0, 1)
    assert (report.bad, report.empty) == (2, 1)
    assert sum(report.kinds.values()) == 52
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_large_files_that_begin_alike_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PIECE", 16)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("the same beginning\n" * 3 + f"then {name}\n")
    (tmp_path / "c.txt").write_bytes((tmp_path / "a.txt").read_bytes())
    report, _ = inspected(tmp_path, document="file")
    assert (report.documents, report.exact_duplicates) == (3, 1)


def test_a_file_of_bad_rows_only_is_told_with_lines_and_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 1}\n{"text": 2}\n')
    with pytest.raises(DataError) as caught:
        inspected(path)
    assert f"{path}:1: " in caught.value.what
    assert "not a text" in caught.value.what


@pytest.mark.parametrize(
    "lengths, wanted",
    [([], 16), ([3], 16), ([16] * 9, 16), ([17] * 9, 32), ([10] * 995 + [900] * 5, 16), ([10] * 9 + [900], 1024),
     ([10_000] * 9, 1024)],
)  # fmt: skip
def test_the_advised_context_holds_99_of_100_documents(lengths: list[int], wanted: int) -> None:
    assert advised_block_size(np.array(lengths, np.int64)) == wanted


def test_percentiles_are_of_the_values() -> None:
    told = percentiles(np.arange(1, 101))
    assert (told["p50"], told["max"], told["mean"]) == (50.5, 100, 50.5)
    assert percentiles(np.array([], np.int64)) == {}


# near duplicates


def sentence(rng: random.Random, words: int = 60) -> list[str]:
    return ["".join(rng.choices("abcdefghij", k=5)) for _ in range(words)]


def test_planted_near_duplicates_are_found_and_others_are_not() -> None:
    rng = random.Random(3)
    near = NearDuplicates(0.8)
    originals = [sentence(rng, 120) for _ in range(200)]
    for words in originals:
        near.add(" ".join(words))
    assert near.found == 0, "texts with nothing in common"
    for words in originals[:50]:
        near.add(" ".join([*words[:-2], "other", "end"]))
    assert near.found >= 48
    before = near.found
    for words in originals[50:100]:  # a third in common
        near.add(" ".join(words[:60] + sentence(rng, 60)))
    assert near.found - before <= 2
    assert near.checked == 300


def test_short_texts_say_nothing() -> None:
    near = NearDuplicates(0.8)
    for _ in range(5):
        near.add("one two three")
    assert (near.found, near.checked) == (0, 0)


def conversation_texts() -> list[str]:
    rows = [json.loads(line) for line in (CORPUS / "conversations.jsonl").read_text().splitlines()]
    return [" ".join(m["content"] for m in row["messages"]) for row in rows]


@pytest.mark.parametrize("name", ["tales", "conversations"])
def test_the_embedded_texts_hardly_repeat_each_other(name: str) -> None:
    given = conversation_texts() if name == "conversations" else (CORPUS / "tales.txt").read_text().splitlines()
    assert len(set(given)) == len(given)
    near = NearDuplicates(0.8)
    for text in given:
        near.add(text)
    assert near.checked > 100
    assert near.found / near.checked < 0.02


# the embedded corpora


def test_the_embedded_names_are_many_and_each_stands_once() -> None:
    names = (CORPUS / "names.txt").read_text(encoding="utf-8").splitlines()
    assert len(names) >= 2000
    assert len(set(names)) == len(names)
    assert len({n.casefold() for n in names}) == len(names)
    assert all(n == n.strip() and 1 < len(n) < 30 and n.isprintable() for n in names)


def test_the_embedded_corpora_are_read_without_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MICROGPT_DATA_DIR", raising=False)
    for name, corpus in CORPORA.items():
        if corpus.sha256:
            continue
        config = DataConfig(corpus=name)
        report, _ = inspect(find_sources(config), config, 0.8)
        assert (report.bad, report.empty, report.exact_duplicates, report.control_spellings) == (0, 0, 0, 0), name
        assert report.documents > 100


def test_conversations_take_turns_and_end_with_a_reply() -> None:
    for line in (CORPUS / "conversations.jsonl").read_text().splitlines():
        roles = [m["role"] for m in json.loads(line)["messages"]]
        roles = roles[1:] if roles[0] == "system" else roles
        assert roles == ["user", "assistant"] * (len(roles) // 2)


# baselines


def small_set(folder: Path, split: str, rows: list[list[int]]) -> TokenSet:
    writer = SetWriter(folder, split, "uint16", 0)
    for row in rows:
        writer.add(np.array(row))
    writer.close()
    return open_set(folder, split, "uint16")


def slow_baselines(train: list[int], val: list[int], size: int) -> tuple[float, float]:
    """Unigram with one added, and Witten-Bell bigram, in plain Python."""
    counts = Counter(train[1:])
    unigram = [(counts[w] + 1) / (len(train) - 1 + size) for w in range(size)]
    pairs, history = Counter(itertools.pairwise(train)), Counter(train[:-1])
    kinds = Counter(h for h, _ in pairs)
    one = two = 0.0
    for h, w in itertools.pairwise(val):
        one -= math.log(unigram[w])
        types = kinds[h] if history[h] else 1
        two -= math.log((pairs[h, w] + types * unigram[w]) / (history[h] + types))
    return one / (len(val) - 1), two / (len(val) - 1)


def test_baselines_equal_a_slow_plain_computation(tmp_path: Path) -> None:
    rng = random.Random(1)
    sets = []
    for split, documents_, words in (("train", 200, 9), ("val", 30, 12)):  # the last words are never seen in training
        rows = [
            [min(words - 1, 1 + int(rng.expovariate(0.4))) for _ in range(rng.randrange(1, 9))]
            for _ in range(documents_)
        ]
        sets.append(small_set(tmp_path, split, rows))
    train, val = sets
    told = baselines([(train, val)], 12)
    one, two = slow_baselines(train.tokens.tolist(), val.tokens.tolist(), 12)
    assert told.unigram == pytest.approx(one, rel=1e-12)
    assert told.bigram == pytest.approx(two, rel=1e-12)
    assert told.bigram < told.unigram + 0.5


def test_a_bigram_knows_what_always_follows(tmp_path: Path) -> None:
    rows = [[1, 2, 3, 4]] * 500
    train, val = small_set(tmp_path, "train", rows), small_set(tmp_path, "val", rows[:9])
    told = baselines([(train, val)], 5)
    assert told.bigram < 0.02
    assert told.unigram == pytest.approx(math.log(5), abs=0.01)


def test_baselines_are_proper_probabilities(tmp_path: Path) -> None:
    train = small_set(tmp_path, "train", [[1, 2, 1, 3], [2, 2]])
    for history in range(5):
        total = 0.0
        for word in range(5):
            stream = [history, word]
            tokens = TokenSet(np.array(stream), np.array([0, 1]), None)
            total += math.exp(-baselines([(train, tokens)], 5).bigram)
        assert total == pytest.approx(1, abs=1e-9)


# downloads


CONTENT = b"whole content\n" * 50_000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return
        self.send_response(200)
        if kind == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\nshort")
            return
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if kind == "short" else CONTENT)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


GOOD = hashlib.sha256(CONTENT).hexdigest()


def test_a_download_with_its_checksum_is_kept_and_not_fetched_again(address: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    assert download(f"{address}/whole", target, GOOD).read_bytes() == CONTENT
    assert download(f"{address}/missing", target, GOOD) == target
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("kind", ["missing", "short", "garbage", "chunked"])
def test_a_failed_download_leaves_nothing_and_is_one_line(kind: str, address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        download(f"{address}/{kind}", tmp_path / "a.txt", GOOD)
    assert "\n" not in str(caught.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_wrong_checksum_leaves_nothing_and_keeps_what_was_there(address: str, tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"older")
    with pytest.raises(DataError, match="sha256"):
        download(f"{address}/whole", target, "0" * 64)
    assert target.read_bytes() == b"older"
    with pytest.raises(DataError, match="cannot be downloaded"):
        download("http://127.0.0.1:9/x", tmp_path / "b.txt", GOOD)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_given_file_with_a_wrong_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names.txt").write_text("emma\n")
    monkeypatch.setenv("MICROGPT_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="sha256 differs"):
        corpus_file("names32k")


def test_every_data_set_that_is_not_embedded_has_a_checksum_and_a_licence() -> None:
    for name, corpus in CORPORA.items():
        assert corpus.licence, name
        if not corpus.sha256:
            assert (CORPUS / corpus.file).is_file(), name
        else:
            assert len(corpus.sha256) == 64
            assert corpus.url.startswith("https://") or not corpus.url
