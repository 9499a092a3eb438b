"""Reading, finding and fetching documents, and what is said when that fails."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from microgpt.reference import DataError, corpus, download, embedded_names, read_documents


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MICROGPT_DATA_DIR", raising=False)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "corpus.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content, documents",
    [
        (b"anna\nbob\n", ["anna", "bob"]),
        (b"anna\nbob", ["anna", "bob"]),
        (b"\n  anna \n\t\n\nbob\n\n", ["anna", "bob"]),
        (b"\xef\xbb\xbfanna\nbob", ["anna", "bob"]),
        (b"anna\r\nbob\r\n", ["anna", "bob"]),
        (b"anna\rbob\r", ["anna", "bob"]),
        ("zoë\nmaría\n".encode(), ["zoë", "maría"]),
        ("a\x0cb\x85c\u2028d\n".encode(), ["a\x0cb\x85c\u2028d"]),  # line breaks to Unicode, text to us
        (b"a\x00b\n", ["a\x00b"]),
        (b"a b\n", ["a b"]),
    ],
)
def test_lines_become_documents(tmp_path: Path, content: bytes, documents: list[str]) -> None:
    assert read_documents(written(tmp_path, content)) == documents


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n", b"\xef\xbb\xbf"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="holds no text"):
        read_documents(written(tmp_path, content))


@pytest.mark.parametrize(
    "content, place",
    [
        (b"anna\nb\xffb\n", "line 2, byte 6"),
        ("anna".encode("utf-16"), "line 1, byte 0"),
        (b"a\xed\xa0\x80", "line 1, byte 1"),  # a lone surrogate
        (b"abc\xe2\x82", "line 1, byte 3"),  # cut within a character
    ],
)
def test_what_is_not_utf8_is_refused_with_its_place(tmp_path: Path, content: bytes, place: str) -> None:
    with pytest.raises(DataError, match=place):
        read_documents(written(tmp_path, content))


def test_a_missing_file_a_folder_a_pipe_and_a_loop_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", tmp_path / "loop", Path("/dev/zero")):
        with pytest.raises(DataError, match=str(path)):
            read_documents(path)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(DataError, match="64 MB"):
        read_documents(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, b"anna")
    path.chmod(0)
    with pytest.raises(DataError, match="permission"):
        read_documents(path)


@pytest.mark.parametrize(
    "module, names",
    [
        ("site-packages/microgpt/reference/corpus.py", "site-packages/microgpt/corpora/names.txt"),
        ("checkout/src/microgpt/reference/corpus.py", "checkout/corpora/names.txt"),
    ],
)
def test_embedded_names_are_found_in_a_wheel_and_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, names: str
) -> None:
    monkeypatch.setattr(corpus, "__file__", str(tmp_path / module))
    with pytest.raises(DataError, match="--input"):
        embedded_names()
    (tmp_path / names).parent.mkdir(parents=True)
    (tmp_path / names).write_text("anna\n")
    assert embedded_names() == tmp_path / names


CONTENT = b"anna\nbob\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "remote.txt"
    path.write_bytes(CONTENT)
    return path.as_uri()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_download_fetches_once(folder: Path, source: str) -> None:
    assert download(folder, source, SHA256) == folder / "names.txt"
    assert (folder / "names.txt").read_bytes() == CONTENT
    assert os.listdir(folder) == ["names.txt"]
    assert download(folder, "file:///nowhere", SHA256) == folder / "names.txt"


def test_the_data_folder_comes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROGPT_DATA_DIR", str(tmp_path))
    (tmp_path / "names.txt").write_bytes(CONTENT)
    assert download(folder, "file:///nowhere", SHA256) == tmp_path / "names.txt"
    assert os.listdir(folder) == []


def test_a_data_folder_without_the_file_changes_nothing(
    folder: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROGPT_DATA_DIR", str(tmp_path))
    assert download(folder, source, SHA256) == folder / "names.txt"


def test_another_file_of_that_name_is_neither_used_nor_overwritten(folder: Path, source: str) -> None:
    (folder / "names.txt").write_text("mine\n")
    with pytest.raises(DataError, match="another file"):
        download(folder, source, SHA256)
    assert (folder / "names.txt").read_text() == "mine\n"


def test_other_bytes_than_promised_are_thrown_away(folder: Path, source: str) -> None:
    with pytest.raises(DataError, match="other bytes"):
        download(folder, source, "0" * 64)
    assert os.listdir(folder) == []


def test_a_source_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="file:///nowhere"):
        download(folder, "file:///nowhere", SHA256)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failing_disk_leaves_nothing_behind(
    folder: Path, source: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "replace")}[call], fail)
    with pytest.raises(OSError, match="No space left"):
        download(folder, source, SHA256)
    assert os.listdir(folder) == []


def test_the_address_and_checksum_are_those_of_the_original() -> None:
    assert corpus.NAMES_URL == "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt"
    assert corpus.NAMES_SHA256 == "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
