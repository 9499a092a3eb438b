"""Files that are never seen half-written, folders that one process owns, and checksums."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from microgpt.errors import BusyError, DiskError


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it so that their names survive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        fsync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    The temporary file stands beside its target, since a rename is atomic on one filesystem only.

    Raises:
        DiskError: the disk is full or the folder is not writable; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path, len(content)) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, as UTF-8; half a surrogate pair (an odd file name) becomes its escape, as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for a JSON value, indented, keys in the order given, NaN refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file's value.

    Raises:
        ValueError: it is not JSON, or is nested deeper than Python can read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextmanager
def new_folder(target: Path, needed: int = 0) -> Generator[Path]:
    """A folder that appears under its name only when everything in it is written and synced.

    Yields the temporary folder beside the target to write into. A target that exists changes places with the new
    folder in one step, so that a kill at any moment leaves the old folder or the new one under the name.

    Args:
        target: the folder; its parent is made.
        needed: bytes that will be written, for the message of a full disk; 0 where it is not known before.

    Raises:
        DiskError: on any failure of the filesystem; the temporary folder is removed.
    """
    try:
        make_folder(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise disk_error(error, target, needed) from error
    try:
        os.chmod(temporary, 0o755)  # mkdtemp makes private folders; these are a user's results
        yield temporary
        finish_folder(temporary, target)
    except OSError as error:
        raise disk_error(error, target, max(needed, folder_bytes(temporary))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finish_folder(temporary: Path, target: Path) -> None:
    """Bring all that is in a folder to the disk and give it its name, in one step."""
    for path in (*temporary.rglob("*"), temporary):
        if path.is_dir():
            fsync_folder(path)
        elif path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    put_in_place(temporary, target)
    fsync_folder(target.parent)


def put_in_place(new: Path, target: Path) -> None:
    """Give a folder its name; one that has it already gets the other's, and both are there at every moment."""
    try:
        os.rename(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not exchanged(new, target):  # a filesystem that cannot: the old one is away for a moment
            aside = new.with_suffix(".old")
            os.rename(target, aside)
            try:
                os.rename(new, target)
            except BaseException:
                os.rename(aside, target)
                raise
            os.rename(aside, new)


def exchanged(first: Path, second: Path) -> bool:
    """Let two paths change places in one system call; false where the system or filesystem cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, two, at_cwd, swap = os.fsencode(first), os.fsencode(second), -100, 2
    if sys.platform == "darwin":
        return libc.renamex_np(one, two, swap) == 0
    call = getattr(libc, "renameat2", None)
    return call is not None and call(at_cwd, one, at_cwd, two, swap) == 0


def disk_error(error: OSError, path: Path, needed: int) -> DiskError:
    """What a failed write tells its user: the file, the bytes needed and the bytes free."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            return DiskError(
                f"no space to write {path}: {needed:,} bytes needed, {free:,} free",
                "free some space (`microgpt runs clean --dry-run` lists what can go) and resume",
            )
    return DiskError(f"cannot write {path}: {error.strerror or error}", "check the path and its permissions")


def folder_bytes(folder: Path) -> int:
    """The bytes in all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total


def sha256_file(path: Path) -> str:
    """The hexadecimal sha256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def human_bytes(count: float) -> str:
    """`1536` as `1.5 KB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove the hidden temporary files and folders that a killed process has left, of one name or of all.

    To be called by who owns the folder (or name) alone: a living process's would go too.
    """
    for pattern in (f".{name}*.tmp", f".{name}*.old"):
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


@contextmanager
def waiting_lock(path: Path, wait: bool = True) -> Generator[bool]:
    """Hold a lock file; wait for whoever holds it. The system frees it when its holder dies.

    Yields whether it is held: always, unless it is not to be waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class FolderLock:
    """One process owns a folder; a second is refused and told who the first is.

    The lock is the kernel's (flock), so that a dead holder's lock frees itself; the file's content only tells
    pid and host to whoever is refused.

    Args:
        folder: made where it is not there.
        other: how another folder is chosen, for whoever is refused.

    Raises:
        BusyError: another live process holds it.
    """

    def __init__(self, folder: Path, other: str = "choose another with hydra.run.dir=") -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / ".lock", "a+")  # noqa: SIM115 - held until close()
        except OSError as error:
            raise disk_error(error, folder, 0) from error
        if not self._taken():
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise BusyError(
                f"the folder {folder} is in use by {holder}",
                f"wait for it, stop it, or {other}",
            )
        self._file.truncate(0)
        self._file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def _taken(self) -> bool:
        """Take the lock unless a process owns it. Who only asks (`is_locked`) shares it for a moment: try again."""
        for _ in range(1000):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                try:
                    fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return False
                fcntl.flock(self._file, fcntl.LOCK_UN)
                time.sleep(0.001)
        return False

    def close(self) -> None:
        """Give the folder back."""
        self._file.close()


def is_locked(folder: Path, name: str = ".lock") -> bool:
    """Whether a live process holds the folder's lock, or another lock file in it."""
    try:
        with open(folder / name, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def cache_folder() -> Path:
    """Where tokens, downloads and compiled code are kept between runs: MICROGPT_CACHE_DIR or the user's cache."""
    chosen = os.environ.get("MICROGPT_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "microgpt"


def shipped(name: str) -> Path:
    """A folder that travels with the package (`conf`, `pipelines`, `corpora`): in the wheel, or the checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / name
