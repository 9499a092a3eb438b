"""The wheel works away from the checkout, starts lean, and asks for versions that are safe."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from microgpt.pipeline import read_recipe

ROOT = Path(__file__).parents[2]
FLOORS = {"torch": "2.10", "pytorch-lightning": "2.6.6", "hydra-core": "1.3.8", "mlflow": "3.11"}
HEAVY = ("torch", "pytorch_lightning", "lightning", "mlflow", "hydra", "datasets")


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {r.name.lower(): r for r in map(Requirement, project["dependencies"])}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a release builds it where the build backend is here, else by pip in isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    if importlib.util.find_spec("hatchling") and importlib.util.find_spec("build"):
        words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    else:
        words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, cwd=folder)
    if done.returncode and re.search(r"hatchling.*(no matching|not find)|connection|resolve", done.stderr, re.I):
        pytest.skip("the build backend is not here and there is no network to get it from")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's Python: the wheel installed, everything else borrowed from this environment."""
    home = tmp_path_factory.mktemp("installed") / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    own = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    words = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=120)
    # a path alone, not a site folder: the .pth file of the editable install in it is not read
    (own / "borrowed.pth").write_text("\n".join({sysconfig.get_path(k) for k in ("purelib", "platlib")}) + "\n")
    return python


def test_the_wheel_holds_config_recipes_and_corpora(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    for folder in ("conf", "pipelines", "corpora"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                assert f"microgpt/{path.relative_to(ROOT)}" in inside
    assert not [name for name in inside if name.startswith("tests") or "__pycache__" in name]
    assert any(name.endswith("dist-info/entry_points.txt") for name in inside)


@pytest.mark.slow
def test_the_installed_wheel_trains_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MICROGPT_DATA_DIR", "VIRTUAL_ENV")}
    env["OMP_NUM_THREADS"] = "1"

    def ask(*words: str) -> str:
        done = subprocess.run([python, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = Path(ask("-c", "import microgpt.train; print(microgpt.train.__file__)").strip())
    assert where.is_relative_to(python.parents[1]), "the checkout must be out of sight"
    small = ["model.n_layer=1", "model.n_embd=16", "model.block_size=16", "data.batch_size=2", "data=names"]
    small += ["tokenizer=char", "trainer.max_steps=2", "sampling.num_samples=1", "device=cpu"]
    ask("-m", "microgpt.train", *small)
    assert (tmp_path / "mlruns" / "mlflow.db").exists()
    assert (tmp_path / "outputs" / "latest" / "checkpoints" / "step-000002" / "MANIFEST.json").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"mlruns", "outputs"}
    command = subprocess.run(
        [python.with_name("microgpt"), "runs"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240
    )
    assert "FINISHED" in command.stdout


@pytest.mark.parametrize("module", ["microgpt.cli", "microgpt.train", "microgpt.validate", "microgpt.pipeline"])
def test_the_import_of_a_command_is_lean(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name, floor", FLOORS.items())
def test_the_floor_of_a_dependency_is_a_safe_version(name: str, floor: str) -> None:
    floors = [s.version for s in requirements()[name].specifier if s.operator == ">="]
    assert floors
    assert Version(floors[0]) >= Version(floor)


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {r.name.lower().replace("_", "-"): r for r in map(Requirement, filter(None, lines))}
    for name, wanted in requirements().items():
        assert name.replace("_", "-") in pinned, f"{name} is not pinned"
        (pin,) = pinned[name.replace("_", "-")].specifier
        assert pin.operator == "=="
        assert pin.version in wanted.specifier, f"{pin.version} of {name} is below its floor"


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    stages = [entry.stage for entry in read_recipe(str(path))]
    assert "train" in stages
    assert len(stages) == len(set(stages))
