"""Files and folders appear whole or not at all, and errors say what is needed."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from microgpt import files
from microgpt.errors import DiskError


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"", b"one", b"\x00" * 100_000):
        files.write_bytes(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]


def test_who_has_a_file_open_keeps_what_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_text(path, "é old")
    with open(path, encoding="utf-8") as reader:
        files.write_text(path, "new")
        assert reader.read() == "é old"


WRITER = """
import sys
from pathlib import Path
from microgpt.files import write_bytes
path, letter = Path(sys.argv[1]), sys.argv[2].encode()
for number in range(300):
    write_bytes(path, letter * (1000 + number * 50))
"""


def test_who_reads_while_two_processes_write_sees_one_of_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_bytes(path, b"x")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        assert len(set(path.read_bytes())) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["gone/a", "file/a", "a" * 300])
def test_a_file_that_cannot_be_written_is_a_disk_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write"):
        files.write_bytes(tmp_path / name, b"content")


def test_json_comes_back_and_what_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"b": [1, 2.5, None, "é\n"], "a": {}}
    files.write_json(path, value)
    assert files.read_json(path) == value
    for wrong in (float("nan"), float("inf"), {"x": object()}, {1: {2}}):
        with pytest.raises((ValueError, TypeError)):
            files.write_json(path, wrong)
    assert files.read_json(path) == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError):
        files.read_json(tmp_path / "a")


# ---- folders


class Broken(BaseException):
    """What a Ctrl-C is to a block."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Broken, OSError])
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_whose_making_fails_does_not_appear(
    tmp_path: Path, error: type[BaseException], exists: bool
) -> None:
    target = tmp_path / "made"
    if exists:
        target.mkdir()
        (target / "old").write_text("old")

    def make() -> None:
        with files.new_folder(target) as folder:
            (folder / "half").write_text("")
            raise error

    with pytest.raises(DiskError if error is OSError else error):
        make()
    assert os.listdir(tmp_path) == (["made"] if exists else [])
    assert not exists or (target / "old").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, Broken, OSError])
def test_an_interrupt_between_the_renames_loses_neither_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("old")
    real, calls = os.rename, []

    def rename(source: str, to: str) -> None:
        calls.append(to)
        if Path(to) == target and len(calls) == 2:
            raise error(errno.EIO, "no")
        real(source, to)

    monkeypatch.setattr(os, "rename", rename)
    try:
        with files.new_folder(target) as folder:
            (folder / "new").write_text("new")
    except (error, DiskError):
        pass
    assert os.listdir(target) in (["old"], ["new"])


def test_a_folder_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "made"
    with files.new_folder(target) as folder:
        assert folder.parent == target.parent
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("a")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "a"
    assert not folder.exists()


def test_every_file_is_synced_before_the_folder_appears_also_in_subfolders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append("rename"), rename(a, b)))
    with files.new_folder(tmp_path / "made") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("a")
        (folder / "b").write_text("b")
    made = tmp_path / "made"
    at = events.index("rename") if "rename" in events else len(events)
    for path in (made, made / "sub", made / "sub" / "a", made / "b"):
        assert path.stat().st_ino in events[:at], path
    assert tmp_path.stat().st_ino in events[at:]


# ---- what errors say


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_bytes_needed_and_free(tmp_path: Path, number: int) -> None:
    error = files.disk_error(OSError(number, "full"), tmp_path / "a", 1_234_567)
    assert "1,234,567 bytes needed" in error.what
    assert " free" in error.what
    assert error.exit_code == 5


def test_other_failures_are_told_with_their_reason(tmp_path: Path) -> None:
    error = files.disk_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "a", 1)
    assert error.what == f"cannot write {tmp_path / 'a'}: Permission denied"
    gone = files.disk_error(OSError(errno.ENOSPC, "full"), tmp_path / "gone" / "deep" / "a", 1)
    assert str(tmp_path / "gone") in gone.what


# ---- small things


def test_checksums_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()


def test_the_bytes_of_a_folder_count_files_once_and_links_not(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 5)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert files.folder_bytes(tmp_path) == 15


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KB"), (5 * 2**20, "5.0 MB"), (2**31, "2.0 GB"), (2**42, "4096.0 GB")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert files.human_bytes(count) == text


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv("MICROGPT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert files.cache_folder() == tmp_path / "x" / "microgpt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "microgpt"


@pytest.mark.parametrize("name", ["conf", "pipelines", "corpora"])
def test_what_travels_with_the_package_is_found(name: str) -> None:
    assert any(files.shipped(name).iterdir())
