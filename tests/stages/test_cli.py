"""The `microgpt` command: every verb has help, every failure is one line with its exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
VERBS = ["generate", "info", "gpu-check", "runs", "train", "validate-dataset", "export", "chat", "chat-once", "ui"]


@pytest.fixture(scope="module")
def microgpt(warm_anywhere, trained: Path):
    """Run the command where two runs are."""

    def run(*words: str, code: int = 0, cwd: Path = trained):
        done = warm_anywhere("cli", *words, cwd=cwd, code=code, env={"COLUMNS": "200"})
        assert "Traceback" not in done.stdout
        return done

    return run


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert " - " in line, "what is wrong, and how to mend it"
    return line


def test_help_lists_every_verb(microgpt) -> None:
    said = microgpt("--help").stdout
    for verb in VERBS:
        assert verb in said


@pytest.mark.parametrize("verb", [*VERBS, "runs list", "runs show", "runs clean"])
def test_every_verb_has_help(microgpt, verb: str) -> None:
    said = microgpt(*verb.split(), "--help").stdout
    assert "Usage" in said
    assert len(said.splitlines()) > 5


def test_the_installed_command_says_its_version() -> None:
    command = Path(sys.executable).with_name("microgpt")
    done = subprocess.run([str(command), "--version"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0
    assert re.fullmatch(r"microgpt \d+\.\d+\.\d+\S*\n", done.stdout)


def test_generate_goes_on_from_the_prompt_and_is_repeatable(microgpt) -> None:
    words = ["generate", "--model-dir", "outputs/two", "--prompt", "an", "--num-samples", "3", "--temperature", "2"]
    first = microgpt(*words)
    lines = first.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("an") for line in lines)
    assert microgpt(*words).stdout == first.stdout
    assert microgpt(*words, "--seed", "7").stdout != first.stdout


def test_info_says_what_the_model_is(microgpt) -> None:
    said = microgpt("info", "--model-dir", "outputs/two").stdout
    assert "5,032 in" in said
    assert "1 layers x 16 wide" in said
    assert "char, 27 tokens" in said
    assert "160 steps" in said or "steps" in said
    assert "names.txt" in said


def test_gpu_check_names_torch_and_what_to_do(microgpt) -> None:
    said = microgpt("gpu-check").stdout
    assert "torch" in said
    assert "driver" in said
    assert said.strip().splitlines()[-1].startswith("next: ")


def test_runs_lists_all_runs_and_names_the_next_command(microgpt) -> None:
    said = microgpt("runs").stdout
    assert said == microgpt("runs", "list").stdout
    assert "outputs/one" in said
    assert "outputs/two" in said
    assert said.count("FINISHED") == 2


def test_runs_show_says_what_differs_from_the_defaults(microgpt) -> None:
    said = microgpt("runs", "show", "outputs/two").stdout
    assert "FINISHED" in said
    assert "trainer.max_steps=160" in said
    assert "tokenizer.kind=char" in said
    assert "optimizer.beta1" not in said


def test_clean_says_the_bytes_first_and_deletes_only_when_told(microgpt, trained: Path, tmp_path: Path) -> None:
    import shutil

    from microgpt.files import folder_bytes, human_bytes

    shutil.copytree(trained / "outputs" / "one", tmp_path / "outputs" / "one", symlinks=True)
    shutil.copytree(trained / "outputs" / "one", tmp_path / "outputs" / "keep", symlinks=True)
    size = human_bytes(folder_bytes(tmp_path / "outputs" / "one"))
    done = microgpt("runs", "clean", "outputs/one", "--dry-run", cwd=tmp_path)
    assert size in done.stdout
    assert (tmp_path / "outputs" / "one").exists()
    microgpt("runs", "clean", "outputs/one", cwd=tmp_path)
    assert (tmp_path / "outputs" / "one").exists(), "nobody was asked, so nothing is deleted"
    done = microgpt("runs", "clean", "outputs/one", "--yes", cwd=tmp_path)
    assert f"freed {size}" in done.stdout
    assert not (tmp_path / "outputs" / "one").exists()
    assert (tmp_path / "outputs" / "keep").exists()


def test_clean_without_names_takes_only_what_failed(microgpt, trained: Path) -> None:
    assert "nothing to delete" in microgpt("runs", "clean", "--yes").stdout
    assert (trained / "outputs" / "one").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--model-dir", "gone"],
        ["info", "--model-dir", "gone"],
        ["runs", "show", "gone"],
        ["runs", "clean", "gone", "--yes"],
        ["chat-once", "gone", "hello"],
    ],
)
def test_an_unknown_run_is_exit_4_and_one_line(microgpt, words: list[str]) -> None:
    assert "gone" in one_line(microgpt(*words, code=4))


def test_a_model_without_chat_tokens_is_not_talked_to(microgpt) -> None:
    one_line(microgpt("chat-once", "outputs/two", "hello", code=4))


def test_an_unknown_verb_is_exit_2(microgpt) -> None:
    done = microgpt("genrate", code=2)
    assert "generate" in done.stderr or "No such command" in done.stderr


def test_no_run_at_all_is_said_with_the_next_command(microgpt, tmp_path: Path) -> None:
    assert "python -m microgpt.train" in microgpt("runs", cwd=tmp_path).stdout
    assert "python -m microgpt.train" in one_line(microgpt("info", code=4, cwd=tmp_path))


def test_the_train_verb_prints_the_command_it_stands_for(microgpt, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"line {i} of the text\n" for i in range(200)))
    words = ["train", "--input", "text.txt", "--steps", "2", "--n-layer", "1", "--n-embd", "16", "--block-size", "16"]
    done = microgpt(*words, "--vocab-size", "300", "tracking=off", cwd=tmp_path)
    assert "$ python -m microgpt.train device=cpu data.path=text.txt" in done.stderr
    assert (tmp_path / "output" / "run.json").exists()
