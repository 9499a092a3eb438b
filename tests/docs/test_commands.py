"""README and docs tell the truth: every command line of every ```sh fence runs, in order, at a small size.

Each page runs in an empty folder of its own. A command that trains is given a small model and few steps where the
page does not say otherwise; what needs a network, a GPU, a person or a server is in SKIPPED with its reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTED_ELSEWHERE = {"reference.md": "tests/reference/test_docs.py compares its output too"}
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name not in TESTED_ELSEWHERE)]
#: pages that show what MLflow holds; the others run without it, which is quicker
TRACKED = ("tracking.md",)
SKIPPED = {
    r"^(sudo |apt|apt-get |brew )": "changes the system",
    r"^(pip|uv|npm|npx) |-m pip|-m venv|^source |bin/activate": "installs from a network",
    r"^git clone|^curl |^wget ": "needs a network or a server",
    r"^cd ": "belongs to a checkout",
    r"^make\b|\.ci/run": "belongs to a checkout; CI runs it",
    r"^docker |^systemctl ": "needs a service",
    r"microgpt (ui|serve|lab|hub|tracking-server)\b|mlflow models serve": "never ends",
    r"microgpt chat( |$)": "waits for a person",
    r"^(llama-|ollama )": "needs llama.cpp or Ollama",
    r"device=(cuda|mps)|device=(ddp|fsdp)(?!.*accelerator=cpu)|--device (cuda|mps|metal)": "needs a GPU",
    r"data=hub|tracking=server": "needs a network",
    r"(data|experiment)=(names32k|shakespeare|shakespeare_mini|dolly|oasst1)\b|--download": "downloads a data set",
    r"tokenizer=cl100k|experiment=(fast|coherent-fast|coherent-max)\b": "downloads the ranks of cl100k",
    r"resume=latest$": "needs a run that was interrupted; tests/training has one",
    r"hydra/launcher=(submitit|ray)": "needs a cluster; tests/stages has both on one machine",
    r"SLOW": "is marked as slow on its page",
}
SMALL = {"model.n_layer": "1", "model.n_embd": "16", "model.block_size": "32", "trainer.max_steps": "4"}
#: what only makes a command quicker: one thread (tests run beside each other), one validation, short samples
QUICK = {
    "trainer.eval_interval": "4",
    "device.threads": "1",
    "sampling.num_samples": "2",
    "sampling.max_new_tokens": "8",
}
SMALL_FLAGS = {"--n-layer": "1", "--n-embd": "16", "--block-size": "32", "--steps": "4", "--vocab-size": "300"}
LIMITS = {"trainer.max_steps": 4, "trainer.additional_steps": 2}
STAGE = re.compile(r"(?:python|torchrun .*) -m microgpt\.(train|validate|evaluate|export|compare|pipeline)\b")


def commands(page: Path) -> list[str]:
    """The command lines of a page; a backslash at a line's end joins the next one, comments are left out."""
    fences = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(fences).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def reason_to_skip(command: str) -> str:
    """Why a command is not run, or nothing."""
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, command)), "")


def lowered(word: str) -> str:
    """`trainer.max_steps=2000` as `trainer.max_steps=4`; other words as they are."""
    key, _, value = word.partition("=")
    return f"{key}={min(int(value), LIMITS[key])}" if key in LIMITS and value.isdigit() else word


def small(command: str, tracked: bool = False) -> str:
    """A command as the test runs it."""
    # the words of the pages' printf commands are no overrides
    if not STAGE.search(command) and not command.startswith("microgpt train"):
        return command
    named = {word.partition("=")[0].strip("'\"") for word in shlex.split(command, comments=True)}
    body = " ".join(lowered(word) for word in command.partition(" #")[0].split(" "))
    extra: list[str] = []
    found = STAGE.search(command)
    if found is None:
        if "--resume" in named:
            extra = [] if "--steps" in named else ["--steps", "2"]
        else:
            extra = [word for flag, value in SMALL_FLAGS.items() if flag not in named for word in (flag, value)]
        return shlex.join([*shlex.split(body), *extra, "tracking=off"])
    if found[1] == "train" and not {"resume", "from_run", "--help", "--cfg"} & named:
        sweeps_models = "model" in named and {"-m", "--multirun"} & named
        wanted = ({"trainer.max_steps": SMALL["trainer.max_steps"]} if sweeps_models else SMALL) | QUICK
        extra = [f"{key}={value}" for key, value in wanted.items() if key not in named]
    elif found[1] == "evaluate":
        extra = [f"{key}={value}" for key, value in QUICK.items() if not key.startswith("trainer.")]
    if not tracked and not {"tracking", "--help"} & named:
        extra.append("tracking=off")
    return " ".join([body, *extra])


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_of_the_page_runs(page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shared = tmp_path_factory.getbasetemp() / "docs-cache"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MICROGPT_CACHE_DIR": os.environ.get("MICROGPT_CACHE_DIR", str(shared)),
        "COLUMNS": "120",
    }
    for name in ("MLFLOW_TRACKING_URI", "MICROGPT_PARENT_RUN", "MICROGPT_SWEEP"):
        environment.pop(name, None)
    for command in commands(page):
        if reason_to_skip(command):
            continue
        run = small(command, page.name in TRACKED)
        done = subprocess.run(
            ["bash", "-c", run],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{page.name}: {command}\nrun as: {run}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{page.name}: {command}\n{done.stderr}"


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "docs" / name for name in TESTED_ELSEWHERE)]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in contents, f"docs/index.md does not name {page.name}"


def test_small_sizes_are_added_only_where_the_page_names_none() -> None:
    told = small("python -m microgpt.train model.n_layer=3 trainer.max_steps=2000  # note").split()
    assert "model.n_layer=3" in told
    assert "trainer.max_steps=4" in told
    assert not {"model.n_layer=1", "trainer.max_steps=2000", "note"} & set(told)
    resumed = small("python -m microgpt.train resume=a trainer.additional_steps=500")
    assert resumed.endswith("resume=a trainer.additional_steps=2 tracking=off")
    assert small("printf 'model.n_layer=3' > a.txt") == "printf 'model.n_layer=3' > a.txt"


def test_only_what_cannot_run_is_skipped() -> None:
    assert reason_to_skip("microgpt ui")
    assert not reason_to_skip("python -m microgpt.train device=cpu")
