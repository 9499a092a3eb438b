"""What can go wrong, as exceptions that carry their exit code.

Every failure of a command ends as one line `error: <what> - <how to mend it>` on standard error and one of
the codes below. Code that finds a fault raises one of these; nothing else prints errors or calls `sys.exit`.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

OK, UNEXPECTED, USAGE, DATA, MODEL, DISK, DIVERGED, BUSY, MEMORY, SIGINT, SIGTERM = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 143,
)  # fmt: skip


class MicrogptError(Exception):
    """A fault with a mend.

    Args:
        what: what is wrong, without a trailing full stop.
        mend: what the user can do about it.
    """

    exit_code = UNEXPECTED

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend)  # both, so that the exception survives being sent between processes
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what} - {self.mend}"


class UsageError(MicrogptError):
    """A wrong command line or config."""

    exit_code = USAGE


class DataError(MicrogptError):
    """Data that cannot be read, or that is not what the config says."""

    exit_code = DATA


class ModelError(MicrogptError):
    """A model or checkpoint that is missing, damaged or does not fit."""

    exit_code = MODEL


class DiskError(MicrogptError):
    """Disk full, folder not writable, and other failures of input and output."""

    exit_code = DISK


class DivergedError(MicrogptError):
    """Training left the numbers."""

    exit_code = DIVERGED


class BusyError(MicrogptError):
    """The output folder is in use by another run."""

    exit_code = BUSY


class OutOfMemoryError(MicrogptError):
    """The device has not enough memory for this config."""

    exit_code = MEMORY


class Stopped(MicrogptError):
    """A signal ended the command; everything was saved first.

    Args:
        signal_name: `SIGINT` or `SIGTERM`.
    """

    def __init__(self, signal_name: str, what: str, mend: str) -> None:
        super().__init__(what, mend)
        self.args = (signal_name, what, mend)
        self.exit_code = SIGINT if signal_name == "SIGINT" else SIGTERM


def printable(text: str) -> str:
    """The text on one line with control characters (ANSI escapes among them) made visible."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.splitlines()))


def redacted(text: str) -> str:
    """The text without the user names and passwords of the addresses in it, for whatever is shown or saved."""
    return SECRET_WORD.sub(r"\1***", USER_INFO.sub(r"\1***@", text))


def has_password(uri: str) -> bool:
    """Whether an address holds a secret: a password, or a user name alone, which may be a token."""
    return redacted(uri) != uri


#: `scheme://user:password@`; passwords of databases may hold slashes, so that only a space or quote ends the search
USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^\s/?#@]*|[^\s/?#:]*:[^\s'\"]*)@", re.IGNORECASE)
SECRET_WORD = re.compile(r"([?&](?:\w*password|passwd|pwd|\w*token|\w*secret)=)[^&\s'\"]+", re.IGNORECASE)


def visible(text: str) -> str:
    """A model's or user's text for a terminal: lines stay, other control characters are spelled out."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def debugging() -> bool:
    """Whether the user asked for tracebacks (`--debug`, or HYDRA_FULL_ERROR=1, see `guarded`)."""
    return os.environ.get("MICROGPT_DEBUG") == "1"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory is used up, the device's or the machine's, without importing torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


def report(error: BaseException) -> int:
    """Print the one line that an error deserves and return the exit code of the command."""
    if debugging() and not isinstance(error, Stopped):
        traceback.print_exception(error)
    if isinstance(error, MicrogptError):
        word = "stopped" if isinstance(error, Stopped) else "error"
        print(f"{word}: {redacted(printable(str(error)))}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("stopped: interrupted - run the command again to start over", file=sys.stderr)
        return SIGINT
    if is_out_of_memory(error):
        print("error: out of memory - lower data.batch_size, model.block_size or model.n_embd", file=sys.stderr)
        return MEMORY
    if isinstance(error, BrokenPipeError):  # whoever read the output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        what = printable(f"{error.strerror or error}{where}")
        print(f"error: {what} - check the path, the free space and the permissions", file=sys.stderr)
        return DISK
    what = redacted(printable(f"{type(error).__name__}: {error}"))[:300]
    print(f"error: unexpected {what} - run it again with --debug and report what it prints", file=sys.stderr)
    return UNEXPECTED


def guarded(command: Callable[[], object]) -> int:
    """Run a command and return its exit code; whatever it raises becomes one line."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ["MICROGPT_DEBUG"] = "1"
    try:
        command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else UNEXPECTED if stop.code else OK
    except BaseException as error:  # the outermost frame: nothing may pass it as a traceback
        return report(error)
    return OK
