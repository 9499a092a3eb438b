"""`python -m microgpt.reference` as a user meets it: output, mistakes, interruptions."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from microgpt.reference import DataError, embedded_names

COMMAND = [sys.executable, "-m", "microgpt.reference"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment() -> dict[str, str]:
    unset = {"MICROGPT_DATA_DIR", "PYTHONUNBUFFERED"}  # the latter would hide a missing flush
    return {name: value for name, value in os.environ.items() if name not in unset}


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs the command in a folder of its own that holds a small `names.txt` and nothing else."""
    (tmp_path / "few.txt").write_text("anna\nbob\ncarla\ndan\neva\n")

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path, env=environment | extra, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


def losses(text: str) -> list[str]:
    return re.findall(r"loss ([\d.]+)", text)


def test_a_run_prints_losses_samples_and_what_to_do_next(run: Run, tmp_path: Path) -> None:
    done = run("--input", "few.txt", "--steps", "3", "--samples", "2")
    assert done.returncode == 0
    assert done.stderr == ""
    assert re.fullmatch(
        r"5 documents \| 11 tokens \| \d+ weights \| few\.txt\n"
        r"step    1 / 3 \| loss \d\.\d{4}\n"
        r"step    2 / 3 \| loss \d\.\d{4}\n"
        r"step    3 / 3 \| loss \d\.\d{4}\n"
        r"\n"
        r"sample  1 \| \w*\n"
        r"sample  2 \| \w*\n"
        r"\n"
        r"next: microgpt train --input few\.txt  \(.*\)\n",
        done.stdout,
    )
    assert os.listdir(tmp_path) == ["few.txt"]  # it leaves nothing behind


def test_the_same_seed_prints_the_same_and_another_does_not(run: Run) -> None:
    arguments = ("--input", "few.txt", "--steps", "2", "--samples", "3")
    assert run(*arguments).stdout == run(*arguments, "--seed", "42").stdout
    assert run(*arguments).stdout != run(*arguments, "--seed", "43").stdout


def test_steps_is_the_length_of_the_schedule_and_stop_after_is_not(run: Run) -> None:
    whole = run("--input", "few.txt", "--steps", "20", "--samples", "0")
    stopped = run("--input", "few.txt", "--steps", "20", "--stop-after", "4", "--samples", "0")
    short = run("--input", "few.txt", "--steps", "4", "--samples", "0")
    assert losses(stopped.stdout) == losses(whole.stdout)[:4]
    assert losses(short.stdout) != losses(stopped.stdout)
    assert "step    4 / 20 |" in stopped.stdout
    assert "next: python -m microgpt.reference --input few.txt --steps 20 --samples 0 " in stopped.stdout


def test_stop_after_written_with_an_equals_sign_is_left_out_of_the_next_command_too(run: Run) -> None:
    done = run("--input=few.txt", "--stop-after=1", "--samples=0")
    assert "next: python -m microgpt.reference --input=few.txt --samples=0 " in done.stdout


def test_the_first_revision_has_its_own_length_and_losses(run: Run) -> None:
    first = run("--input", "few.txt", "--revision", "first", "--stop-after", "2", "--samples", "0")
    current = run("--input", "few.txt", "--stop-after", "2", "--samples", "0")
    assert "/ 500 |" in first.stdout
    assert "/ 1000 |" in current.stdout
    assert losses(first.stdout) != losses(current.stdout)


def test_temperature_reaches_the_samples(run: Run) -> None:
    cold = run("--input", "few.txt", "--steps", "1", "--temperature", "1e-9")
    assert len({line.split("|")[1] for line in cold.stdout.splitlines() if line.startswith("sample")}) == 1
    hot = run("--input", "few.txt", "--steps", "1", "--temperature", "9")
    assert len({line.split("|")[1] for line in hot.stdout.splitlines() if line.startswith("sample")}) > 10


def test_a_run_without_arguments_uses_the_embedded_names(run: Run) -> None:
    try:
        names = embedded_names()
    except DataError:
        pytest.skip("corpora/names.txt is not beside this copy of the package")
    done = run("--steps", "2", "--samples", "1")
    assert done.returncode == 0, done.stderr
    assert str(names) in done.stdout
    assert "next: python -m microgpt.reference --download " in done.stdout


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--steps", "0"], "'0' will not do - give a whole number, 1 or more"),
        (["--steps", "many"], "--steps"),
        (["--steps"], "--steps"),
        (["--stop-after", "-1"], "--stop-after"),
        (["--steps", "5", "--stop-after", "6"], "past the last step, 5"),
        (["--revision", "first", "--stop-after", "501"], "past the last step, 500"),
        (["--seed", "-1"], "--seed"),
        (["--samples", "1.5"], "--samples"),
        (["--temperature", "0"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
        (["--temperature", "1e999"], "--temperature"),
        (["--revision", "second"], "'current', 'first'"),
        (["--input", "few.txt", "--download"], "--download"),
        (["--inptu", "few.txt"], "--inptu"),
        (["few.txt"], "few.txt"),
        (["two\nlines\x1b[31m"], "two\\nlines\\x1b[31m"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(run: Run, arguments: list[str], named: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: .+ - .+\n", done.stderr)
    assert named in done.stderr


@pytest.mark.parametrize(
    "content, named",
    [
        (None, "does not exist"),
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b"ok\n\xff\xfe", "not UTF-8: line 2, byte 3"),
    ],
)
def test_bad_data_is_one_line_and_exit_3(run: Run, tmp_path: Path, content: bytes | None, named: str) -> None:
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    done = run("--input", "bad.txt")
    assert done.returncode == 3
    assert done.stdout == ""
    assert re.fullmatch(r"error: bad\.txt .+ - .+\n", done.stderr)
    assert named in done.stderr


def test_a_pipe_as_input_is_refused_instead_of_waited_for(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run("--input", "pipe")
    assert done.returncode == 3
    assert "is not a file" in done.stderr


def test_download_takes_no_file_that_is_not_the_original(run: Run, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("anna\n")
    for extra in ({}, {"MICROGPT_DATA_DIR": str(tmp_path)}):
        done = run("--download", **extra)
        assert done.returncode == 3
        assert re.fullmatch(r"error: .*names\.txt is another file than .+ - .+\n", done.stderr)


def test_text_that_would_steer_the_terminal_is_spelled_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evil.txt").write_text("\x1b[31m\x07\x00\n" * 3)
    done = run("--input", "evil.txt", "--steps", "2", "--temperature", "9")
    assert done.returncode == 0
    assert "\\x1b" in done.stdout
    assert not set("\x1b\x07\x00") & set(done.stdout)


def test_characters_that_the_terminal_lacks_do_not_end_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("дмитрий\nзоя\n", encoding="utf-8")
    done = run("--input", "other.txt", "--steps", "2", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u04" in done.stdout


def started(tmp_path: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    (tmp_path / "few.txt").write_text("anna\nbob\n")
    process = subprocess.Popen(
        [*COMMAND, "--input", "few.txt", "--steps", "1000000"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step"):
        assert process.poll() is None
    return process


def test_each_loss_reaches_a_pipe_when_its_step_is_done(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "few.txt").write_text("anna\nbob\n")
    with subprocess.Popen(
        [*COMMAND, "--input", "few.txt", "--steps", "100", "--samples", "0"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        arrivals = [time.monotonic() for line in process.stdout if line.strip()]
    header, first, *_, last = arrivals
    assert first - header < last - first  # else all came at once, at the end


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path, environment: dict[str, str]) -> None:
    process = started(tmp_path, environment)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert re.fullmatch(r"stopped - .+\n", errors)


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path, environment: dict[str, str]) -> None:
    process = started(tmp_path, environment)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # as `| head` does
    assert process.wait(timeout=240) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_is_one_line_and_exit_5(run: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "--input", "few.txt"],
            cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 5
    assert re.fullmatch(r"error: .*No space left.* - .+\n", done.stderr)


def on_a_terminal(tmp_path: Path, environment: dict[str, str], *, log: bool) -> tuple[int, str, str]:
    """(exit code, what the terminal got, what the log got): the log takes stdout where asked for."""
    (tmp_path / "few.txt").write_text("anna\nbob\n")
    ours, theirs = os.openpty()
    with (tmp_path / "log").open("w+") as file:
        process = subprocess.Popen(
            [*COMMAND, "--input", "few.txt", "--steps", "30", "--samples", "2"],
            cwd=tmp_path, env=environment | {"TERM": "xterm"}, stdin=theirs,
            stdout=file if log else theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not chunk:
                break
            seen += chunk
        os.close(ours)
        code = process.wait(timeout=240)
        file.seek(0)
        return code, seen.decode(), file.read()


def test_on_a_terminal_a_bar_goes_along_and_no_loss_is_lost(tmp_path: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("rich")
    code, seen, _ = on_a_terminal(tmp_path, environment, log=False)
    assert code == 0
    assert len(losses(seen)) == 30
    assert len(re.findall(r"(?:\n|\x1b\[2K)step ", seen)) == 30  # each on a line of its own, above the bar
    assert "sample  2 |" in seen
    assert "training" in seen
    assert "100%" in seen


def test_with_output_to_a_file_the_bar_is_on_the_terminal_and_the_lines_in_the_file(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    pytest.importorskip("rich")
    code, seen, logged = on_a_terminal(tmp_path, environment, log=True)
    assert code == 0
    assert "100%" in seen
    assert losses(seen) == []
    assert len(losses(logged)) == 30
    assert "\x1b" not in logged


def test_without_rich_a_terminal_gets_plain_lines(tmp_path: Path, environment: dict[str, str]) -> None:
    blocked = tmp_path / "blocked" / "rich"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('rich is not here')\n")
    paths = f"{blocked.parent}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    code, seen, _ = on_a_terminal(tmp_path, environment | {"PYTHONPATH": paths}, log=False)
    assert code == 0
    assert len(losses(seen)) == 30
    assert "\x1b" not in seen


def test_help_names_every_flag(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for flag in ("input", "download", "steps", "stop-after", "seed", "revision", "samples", "temperature"):
        assert f"--{flag}" in done.stdout
