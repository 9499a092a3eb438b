"""Every failure of a command is one line and its exit code; nothing in it can play with the terminal."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys

import pytest

from microgpt import errors
from microgpt.errors import MicrogptError, Stopped, guarded, printable, visible

CODES = {
    "MicrogptError": 1, "UsageError": 2, "DataError": 3, "ModelError": 4, "DiskError": 5, "DivergedError": 6,
    "BusyError": 7, "OutOfMemoryError": 8,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MICROGPT_DEBUG", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def raising(error: BaseException) -> int:
    def command() -> None:
        raise error

    return guarded(command)


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_every_error_has_its_exit_code_and_one_line(capsys: pytest.CaptureFixture[str], name: str, code: int) -> None:
    assert raising(getattr(errors, name)("the thing is wrong", "mend it")) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: the thing is wrong - mend it\n")


def test_every_error_class_is_among_those_tested() -> None:
    found = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MicrogptError)}
    assert found == {*CODES, "Stopped"}


@pytest.mark.parametrize(("signal", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_was_obeyed_is_no_error(
    capsys: pytest.CaptureFixture[str], signal: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROGPT_DEBUG", "1")
    assert raising(Stopped(signal, "saved at step 3", "resume")) == code
    assert capsys.readouterr().err == "stopped: saved at step 3 - resume\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 8, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 5, "No space left on device (/x/y)"),
        (PermissionError(errno.EACCES, "Permission denied"), 5, "Permission denied"),
        (OSError("odd"), 5, "odd"),
        (ValueError("bad\nvalue"), 1, "ValueError: bad value"),
        (RecursionError(), 1, "RecursionError"),
        (KeyError("x" * 10_000), 1, "KeyError"),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else None,
)
def test_whatever_is_raised_becomes_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    assert raising(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert " - " in err
    assert len(err) < 600


def test_a_command_that_works_is_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: "anything") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (3, 3), ("text", 1), ("", 0)])
def test_an_exit_inside_a_command_keeps_its_code(code: object, expected: int) -> None:
    assert raising(SystemExit(code)) == expected


@pytest.mark.parametrize("variable", ["MICROGPT_DEBUG", "HYDRA_FULL_ERROR"])
def test_the_traceback_is_shown_to_who_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("MICROGPT_DEBUG", "")  # so that what guarded() sets is taken back
    monkeypatch.setenv(variable, "1")
    assert raising(errors.DataError("wrong", "mend it")) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: wrong - mend it\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 😀", "plain é 漢 😀"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\r\nc\u2028d", "a b c d"),
        ("back\x08space\x7f", r"back\x08space\x7f"),
        ("c1\x9b31m", r"c1\x9b31m"),
        ("bidi\u202egnp.exe", r"bidi\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\ud800", r"\ud800"),
        ("tab\there", r"tab\there"),
        ("nul\0", r"nul\x00"),
    ],
)
def test_what_could_play_with_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_text_for_the_terminal_keeps_its_lines_and_shows_its_escapes() -> None:
    assert visible("a\n\tb\x1b[2J\rc é") == "a\n\tb\\x1b[2J\\rc é"


def test_escapes_in_errors_reach_the_terminal_as_text() -> None:
    code = (
        "import sys; from microgpt.errors import DataError, guarded\n"
        "def f(): raise DataError('file \\x1b[2J\\x1b]0;x\\x07 \\ud800 \\n is bad', 'mend \\x9b it')\n"
        "sys.exit(guarded(f))"
    )
    for encoding in ("utf-8", "ascii"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=env)
        assert done.returncode == 3
        assert done.stderr.count(b"\n") == 1
        assert all(byte >= 32 or byte == 10 for byte in done.stderr)
        assert b"Traceback" not in done.stderr


def test_errors_survive_being_sent_between_processes() -> None:
    for error in (errors.DiskError("full", "clean"), Stopped("SIGTERM", "saved", "resume")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.exit_code) == (type(error), str(error), error.exit_code)
