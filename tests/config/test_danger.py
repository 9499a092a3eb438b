"""Config from users is data: it builds no object, reads no secret, exhausts no machine."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from microgpt.config.compose import compose
from microgpt.config.scan import check_overrides, check_yaml_folder, split_arguments
from microgpt.config.schema import TrainConfig
from microgpt.config.search import shipped_conf
from microgpt.errors import UsageError

SECRET = "hunter2-the-secret-of-the-test"

# Runs a stage as `python -m` does, then tells which of the named modules were imported.
PROBE = """
import runpy, sys
stage = sys.argv.pop(1)
try:
    runpy.run_module(f"microgpt.{stage}", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    code = stop.code
heavy = ("hydra", "omegaconf", "torch", "pytorch_lightning", "mlflow", "datasets", "numpy")
print("IMPORTED", *[m for m in heavy if m in sys.modules])
raise SystemExit(code)
"""


def probe(folder: Path, stage: str, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, stage, *words],
        capture_output=True, text=True, timeout=240, cwd=folder,
        env=os.environ | {"SECRET_OF_TEST": SECRET, "COLUMNS": "200"},
    )  # fmt: skip
    tail = [line for line in result.stdout.splitlines() if line.startswith("IMPORTED")]
    return result, tail[-1].split()[1:] if tail else ["?"]


def children_seconds() -> float:
    """Processor time of finished child processes: unlike the clock, it does not depend on who else is at work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own(folder: Path, name: str, text: str) -> Path:
    path = folder / "conf" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused_before_hydra(folder: Path, *words: str, part: str = "_target_") -> None:
    result, imported = probe(folder, "train", *words, "seed=-1")  # so that nothing trains where the scan lets it pass
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert part in result.stderr
    assert imported == []
    assert SECRET not in result.stdout + result.stderr
    assert not (folder / "MARKER").exists()


@pytest.mark.parametrize(
    "word",
    [
        "model._target_=os.mkdir",
        "+model._target_=os.mkdir",
        "+model={_target_: os.mkdir, path: MARKER}",
        "hydra.launcher._target_=os.mkdir",
        "+hydra.callbacks.a={_target_: os.makedirs, name: MARKER}",
        "hydra.sweeper={_target_: os.mkdir}",
        "data.path=[{_target_: os.mkdir}]",
    ],
)
def test_target_in_an_override_is_refused_before_hydra(word: str, tmp_path: Path) -> None:
    refused_before_hydra(tmp_path, word)


@pytest.mark.parametrize(
    "name, text",
    [
        ("model/mine.yaml", "_target_: os.makedirs\nname: MARKER\n"),
        ("mine.yaml", "a:\n  b:\n    - c: {_target_: os.makedirs}\n"),
        ("hydra/launcher/mine.yaml", "_target_: os.makedirs\nname: MARKER\n"),
        ("hydra/job_logging/mine.yaml", '"_tar\\x67et_": os.makedirs\n'),
        ("deep/er/still/mine.yml", "x: !!str _target_\n"),
    ],
)
def test_target_in_a_users_yaml_is_refused_before_hydra(name: str, text: str, tmp_path: Path) -> None:
    own(tmp_path, name, text)
    refused_before_hydra(tmp_path, "seed=1", part=Path(name).name)


EVIL = "# @package _global_\nhydra:\n  callbacks:\n    a:\n      _target_: os.makedirs\n      name: MARKER\n"


@pytest.mark.parametrize(
    "flags", [["--config-dir", "evil"], ["--config-dir=evil"], ["-cd=evil"], ["--config-d=evil"]]
)
def test_target_in_a_folder_given_by_flag_is_refused_in_every_spelling(flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "evil" / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(EVIL)
    result, imported = probe(tmp_path, "train", *flags, "hydra/launcher=evil", "seed=-1")
    assert not (tmp_path / "MARKER").exists(), "the callback of the hostile YAML was built"
    assert (result.returncode, imported) == (2, []), result.stderr
    assert "seed" not in result.stderr


@pytest.mark.parametrize("flag", ["--config-path", "--config-name", "--experimental-rerun"])
@pytest.mark.parametrize("cut", [0, 2])
def test_flags_that_lead_to_other_config_or_pickles_are_refused_also_abbreviated(flag: str, cut: int) -> None:
    word = flag[: len(flag) - cut]  # argparse takes any unambiguous beginning
    with pytest.raises(UsageError, match=r"refused|unknown"):
        split_arguments([f"{word}=x"])


def test_a_symlinked_folder_of_user_yaml_is_read_for_danger_too(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.yaml").write_text("init: ${oc.env:SECRET_OF_TEST}\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "model").symlink_to(elsewhere)
    refused_before_hydra(tmp_path, "model=mine", part="mine.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "hydra:\n  job:\n    env_set:\n      PYTHONPATH: /evil\n",
        "hydra:\n  searchpath: [file:///evil]\n",
        "hydra:\n  callbacks: {}\n",
    ],
)
def test_hydras_own_keys_in_user_yaml_are_refused(text: str, tmp_path: Path) -> None:
    own(tmp_path, "experiment/mine.yaml", f"# @package _global_\n{text}")
    refused_before_hydra(tmp_path, "experiment=mine", part="hydra")


@pytest.mark.parametrize(
    "word",
    [
        "hydra.searchpath=[file:///evil]", "hydra.job.chdir=true", "hydra.job.env_set.A=b", "hydra.callbacks={}",
        "+hydra.mode=MULTIRUN", "hydra/job_logging=default", "hydra/callbacks=x", "+experiment@hydra.job=names",
    ],
)  # fmt: skip
def test_hydras_own_keys_on_the_command_line_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="hydra"):
        check_overrides([word], TrainConfig, [shipped_conf()])


def test_the_keys_of_hydra_that_a_user_needs_are_allowed(tmp_path: Path) -> None:
    words = ["hydra.run.dir=x", "hydra.sweep.dir=y", "hydra/launcher=basic", "hydra.launcher.n_jobs=2"]
    check_overrides(words, TrainConfig, [shipped_conf()])
    own(tmp_path, "model/mine.yaml", "n_layer: 3 # plain\n")
    check_yaml_folder(tmp_path / "conf")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    "text, part",
    [
        (BOMB, "alias"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "alias"),
        ("a: !!python/object/apply:os.makedirs [MARKER]\n", "tag"),
        ("!!python/object:os.system {}\n", "tag"),
        ("a: !custom b\n", "tag"),
        ("n_layer: " + "[" * 5_000 + "]" * 5_000 + "\n", "nested"),
        ("a: '" + "x" * 1_100_000 + "'\n", "larger"),
        ("a: [\n", "YAML"),
        ("a: \udcff", "UTF-8"),
    ],
    ids=["bomb", "merge", "apply", "object", "tag", "deep", "large", "broken", "latin1"],
)
def test_hostile_yaml_is_refused_within_a_second(text: str, part: str, tmp_path: Path) -> None:
    path = own(tmp_path, "model/mine.yaml", "")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    start = children_seconds()
    refused_before_hydra(tmp_path, "model=mine", part=part)
    assert children_seconds() - start < 1.0


@pytest.mark.parametrize(
    "text",
    [
        BOMB + "stages:\n  - {stage: train, overrides: [*e]}\n",
        "stages: !!python/object/apply:os.makedirs [MARKER]\n",
        "stages: [{stage: train, overrides: ['+model._target_=os.mkdir']}]\n",
        "stages: [{stage: train, overrides: ['name=${oc.env:SECRET_OF_TEST}']}]\n",
    ],
    ids=["bomb", "apply", "target", "secret"],
)
def test_a_hostile_recipe_is_refused_within_a_second(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    start = children_seconds()
    result, _ = probe(tmp_path, "pipeline", "recipe=mine.yaml")
    assert result.returncode == 2, result.stderr[:300]
    assert "mine.yaml" in result.stderr or "refused" in result.stderr
    assert len(result.stderr) < 1000
    assert children_seconds() - start < 1.5  # Hydra itself is loaded by then
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize(
    "value",
    ["${oc.env:SECRET_OF_TEST}", "${ oc.env :SECRET_OF_TEST}", "${env:SECRET_OF_TEST}", "x${oc.env:A,b}y"],
)
def test_the_environment_is_refused_in_overrides(value: str, tmp_path: Path) -> None:
    refused_before_hydra(tmp_path, f"tracking.uri={value}", part="environment")
    refused_before_hydra(tmp_path, f"hydra.run.dir={value}", part="environment")


def test_the_environment_is_refused_where_the_resolvers_name_is_put_together(tmp_path: Path) -> None:
    words = ["name=env", "tracking.uri='${oc.${name}:SECRET_OF_TEST}'"]
    refused_before_hydra(tmp_path, *words, part="environment")
    own(tmp_path, "tracking/mine.yaml", "uri: ${oc.${name}:SECRET_OF_TEST}\n")
    refused_before_hydra(tmp_path, "name=env", "tracking=mine", part="mine.yaml")


def test_no_composed_config_holds_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_OF_TEST", SECRET)
    for value in ("'${oc.${name}:SECRET_OF_TEST}'", "'${${name}:SECRET_OF_TEST}'", "'${oc.decode:${name}}'"):
        for name in ("env", "oc.env"):
            try:
                config = compose([f"name={name}", f"tracking.uri={value}"])
            except UsageError as error:
                told = str(error)
            else:
                told = config.tracking.uri
            assert SECRET not in told, value


def test_a_tracking_password_is_refused_since_it_would_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in (
        "https://me:pass@host/x",
        "postgresql+psycopg2://me:pass@host/db",
        "postgresql://me:pass/with/slashes@host/db",
        "postgresql://host/db?user=me&password=pass",
    ):
        with pytest.raises(UsageError, match="holds a password") as caught:
            compose([f"tracking.uri='{uri}'"])
        assert "pass@" not in str(caught.value)
        assert "pass/" not in str(caught.value)
        assert "=pass" not in str(caught.value)


def test_no_secret_of_the_environment_is_in_any_file_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"the {i} little birds sang\n" for i in range(60)))
    words = ["data.path=a.txt", "tokenizer=char", "model=micro", "trainer.max_steps=2", "tracking=off", "device=cpu"]
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PASSWORD")
    done = subprocess.run(
        [sys.executable, "-m", "microgpt.train", *words],
        capture_output=True, timeout=300, cwd=tmp_path,
        env=os.environ | dict.fromkeys(names, SECRET) | {"MICROGPT_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    saved = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"config.yaml", "run.json", "metrics.jsonl"} <= {p.name for p in saved}
    for path in saved:
        assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET.encode() not in done.stdout + done.stderr
