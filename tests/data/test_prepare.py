"""Documents are split by content and tokenized once; no kill and no second process leaves a half cache."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data.prepare import prepare
from microgpt.data.shards import Shards, TokenSet
from microgpt.data.sources import corpus_file
from microgpt.errors import DataError, MicrogptError
from microgpt.tokenizer.base import Tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(path: Path | str, kind: str = "char", **data: object) -> tuple[Shards, Tokenizer]:
    return prepare(DataConfig(path=[str(path)], **data), TokenizerConfig(kind=kind), show_progress=False)  # type: ignore[arg-type]


def texts(tokens: TokenSet, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(tokens.document(i).tolist()) for i in range(tokens.documents)]


def lines(path: Path, count: int = 200) -> Path:
    path.write_text("".join(f"the {i} birds\n" for i in range(count)))
    return path


# split


def names32k() -> Path:
    try:
        return corpus_file("names32k")
    except DataError:
        pytest.skip("names.txt is not at hand")


def test_duplicates_never_stand_on_both_sides() -> None:
    shards, tokenizer = made(names32k())
    train, val = texts(shards.train, tokenizer), texts(shards.val, tokenizer)
    assert len(train) + len(val) == 32_033
    assert not set(train) & set(val)
    assert 0.09 < len(val) / 32_033 < 0.11


def test_the_split_is_the_same_for_any_order_and_number_of_files(tmp_path: Path) -> None:
    rows = [f"the {i} birds" for i in range(400)]
    sets = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        folder = tmp_path / f"f{seed}"
        folder.mkdir()
        for part in range(seed + 1):
            (folder / f"{part}.txt").write_text("\n".join(rows[part :: seed + 1]))
        shards, tokenizer = made(folder)
        sets.append((sorted(texts(shards.train, tokenizer)), sorted(texts(shards.val, tokenizer))))
    assert sets[0] == sets[1] == sets[2]


def test_a_document_stays_where_it_is_when_others_come(tmp_path: Path) -> None:
    first, tokenizer = made(lines(tmp_path / "a.txt", 200))
    second, larger = made(lines(tmp_path / "b.txt", 400))
    assert set(texts(first.val, tokenizer)) <= set(texts(second.val, larger))


def test_one_long_document_is_split_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    content = "".join(chr(97 + i % 26) for i in range(1000))
    path.write_text(content)
    for document in ("line", "file"):
        shards, tokenizer = made(path, document=document)
        assert texts(shards.train, tokenizer) + texts(shards.val, tokenizer) == [content[:900], content[900:]]
        assert (shards.train.positions, shards.val.positions) == (901, 101)
        assert shards.meta["train"]["characters"] == 900
        assert shards.meta["val"]["bytes"] == 100


def test_few_documents_still_give_both_splits(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for count in (2, 3, 5, 9):
        path.write_text("".join(f"{i} {count}\n" for i in range(count)))
        shards, _ = made(path)
        assert shards.val.documents >= 1
        assert shards.train.documents >= 1


# D14: too little to validate on


@pytest.mark.parametrize("content", ["a\n", "abcde\n", "same\nsame\nsame\n"])
def test_an_empty_validation_split_is_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(content)
    with pytest.raises(DataError, match="split is empty") as caught:
        made(path)
    assert "\n" not in str(caught.value)


def test_a_file_without_documents_is_one_line_with_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n \n")
    with pytest.raises(DataError, match="holds no document"):
        made(path)
    path.write_bytes(b"\xff\n\xff\n")
    for choice in ("fail", "skip"):
        with pytest.raises(DataError, match="invalid UTF-8 at byte 0"):
            made(path, on_bad_rows=choice)


def test_bad_rows_stop_or_are_left_out_as_chosen(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt")
    path.write_bytes(path.read_bytes() + b"bad \xff\n")
    with pytest.raises(DataError, match=r"1 bad row: .*:201: invalid UTF-8"):
        made(path)
    shards, _ = made(path, on_bad_rows="skip")
    assert shards.train.documents + shards.val.documents == 200
    assert shards.meta["bad_rows"] == {"invalid UTF-8": 1}


# D5, D10: what the tokens are


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_tokens_are_the_text_byte_for_byte(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    rows = [f"{i}é\x00\rx😀\u2028\ufeff  end " for i in range(30)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    shards, tokenizer = made(path, kind)
    assert sorted(texts(shards.train, tokenizer) + texts(shards.val, tokenizer)) == sorted(rows)
    for name in ("train", "val"):
        assert shards.meta[name]["bytes"] == sum(len(t.encode()) for t in texts(getattr(shards, name), tokenizer))


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_text_that_spells_control_tokens_holds_none(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    rows = [f"{i} <bos> <user> <assistant><end_turn> <system> <unk> <|endoftext|>" for i in range(40)]
    path.write_text("\n".join(rows))
    shards, tokenizer = made(path, kind)
    for tokens in (shards.train, shards.val):
        marks = np.flatnonzero(np.isin(tokens.tokens, list(tokenizer.control.values())))
        assert np.array_equal(marks, tokens.starts)
    assert sorted(texts(shards.train, tokenizer) + texts(shards.val, tokenizer)) == sorted(rows)


def test_a_trained_tokenizer_learns_nothing_from_validation(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt", 100)
    shards, tokenizer = made(path, "bpe")
    hidden = texts(shards.val, tokenizer)
    other = tmp_path / "b.txt"
    other.write_text("\n".join(t for t in path.read_text().splitlines() if t not in hidden) + "\nzz qq zz qq\n")
    assert "zz" not in "".join(tokenizer.token_text(i) for i in range(tokenizer.vocab_size))


# D11: another content, another cache


def test_the_fingerprint_follows_content_and_settings(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt")
    seen = {made(path)[0].fingerprint}
    settings: list[dict[str, object]] = [
        {"document": "file"}, {"val_fraction": 0.2}, {"format": "text"}, {"on_bad_rows": "skip"}, {"kind": "bpe"},
    ]  # fmt: skip
    for setting in settings:
        seen.add(made(path, **setting)[0].fingerprint)  # type: ignore[arg-type]
    for size in (300, 301):
        seen.add(prepare(DataConfig(path=[str(path)]), TokenizerConfig(vocab_size=size))[0].fingerprint)
    path.write_text(path.read_text().replace("7", "8"))
    seen.add(made(path)[0].fingerprint)
    assert len(seen) == 9 - ("format" in settings)
    data = DataConfig(path=[str(path)], batch_size=3, packing=False, workers=2)
    assert prepare(data, TokenizerConfig(kind="char"))[0].fingerprint == made(path)[0].fingerprint


def test_an_edit_that_keeps_size_and_name_is_noticed(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt")
    first, _ = made(path)
    before = path.stat()
    path.write_text(path.read_text().replace("the 5 ", "the 6 "))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second, _ = made(path)
    assert first.meta["data_fingerprint"] != second.meta["data_fingerprint"]
    assert first.folder != second.folder


def test_the_cache_is_used_again(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt")
    first, _ = made(path)
    written = (first.folder / "meta.json").stat()
    second, _ = made(path)
    assert (second.folder / "meta.json").stat().st_ino == written.st_ino
    copy = tmp_path / "copy.txt"
    copy.write_bytes(path.read_bytes())
    assert made(copy)[0].folder == first.folder, "the content counts, not its name"


# D12: killed, raced and damaged


KILLED = """
import os, signal, sys
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data import prepare, shards
where, number, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
owner, name = {"add_all": (shards.SetWriter, "add_all"), "close": (shards.SetWriter, "close"),
               "rename": (os, "rename"), "fsync": (os, "fsync"), "replace": (os, "replace")}[where]
real, calls = getattr(owner, name), 0
def deadly(*args, **more):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **more)
setattr(owner, name, deadly)
prepare.prepare(DataConfig(path=[path]), TokenizerConfig(kind="char"), show_progress=False)
"""


@pytest.mark.parametrize(
    "where, number", [("add_all", 1), ("add_all", 2), ("close", 2), ("replace", 1), ("fsync", 2), ("rename", 1)]
)
def test_a_kill_while_tokenizing_leaves_no_half_cache(
    where: str, number: int, tmp_path: Path, own_cache: Path
) -> None:
    path = lines(tmp_path / "a.txt")
    killed = subprocess.run([sys.executable, "-c", KILLED, where, str(number), str(path)], timeout=240)
    assert killed.returncode == -signal.SIGKILL
    assert not list((own_cache / "tokens").glob("[0-9a-f]*/meta.json"))
    shards, tokenizer = made(path)
    assert sorted(texts(shards.train, tokenizer) + texts(shards.val, tokenizer)) == sorted(
        path.read_text().split("\n")[:-1]
    )


RACED = """
import sys, time
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data import prepare
real = prepare._make
def told(*args, **more):
    time.sleep(0.3)  # so that the others come meanwhile
    print("MADE", flush=True)
    return real(*args, **more)
prepare._make = told
shards, _ = prepare.prepare(DataConfig(path=[sys.argv[1]]), TokenizerConfig(kind="char"), show_progress=False)
print(shards.train.documents + shards.val.documents)
"""


def test_processes_that_start_at_once_make_the_cache_once(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt")
    racers = [
        subprocess.Popen([sys.executable, "-c", RACED, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [racer.communicate(timeout=240)[0].split() for racer in racers]
    assert [t[-1] for t in told] == ["200"] * 3
    assert sum("MADE" in t for t in told) == 1


@pytest.mark.parametrize("name", ["train.tokens", "val.tokens", "train.starts", "meta.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise"])
def test_a_damaged_cache_is_reported_in_one_line(name: str, damage: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.txt", 60)
    shards, _ = made(path)
    target = shards.folder / name
    content = target.read_bytes()
    if damage == "gone":
        target.unlink()
        if name == "meta.json":  # then nothing was ever finished: it is made again
            assert made(path)[0].train.documents == shards.train.documents
            return
    else:
        target.write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2 + 1], "noise": content[:-9] + b"x" * 7}[damage]
        )
    with pytest.raises(MicrogptError) as caught:
        made(path)
    assert caught.value.exit_code in (3, 4)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_told_as_a_disk_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(MicrogptError) as caught:
        made(lines(tmp_path / "a.txt"))
    assert caught.value.exit_code == 5
