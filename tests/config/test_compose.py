"""`compose` is the one way in: own YAML first, saved configs with the user's words over them, auto filled once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microgpt.config.auto import Facts, resolved, resolved_shape, vocabulary
from microgpt.config.build import build, flat, plain, settings
from microgpt.config.compose import compose, migrated, overlaid
from microgpt.config.schema import SCHEMA_VERSION, STAGES, TrainConfig
from microgpt.config.search import config_folders, options, user_conf
from microgpt.errors import UsageError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def own(name: str, text: str) -> None:
    path = Path("conf") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_users_own_group_file_is_found_first() -> None:
    own("model/tiny.yaml", "n_layer: 7\n")
    own("model/mine.yaml", "n_layer: 9\nn_embd: 32\n")
    assert compose([]).model.n_layer == 7
    assert compose(["model=mine"]).model.n_embd == 32
    assert compose(["model=small"]).model.n_layer == 4, "what ships is still there"
    assert {"mine", "tiny", "small"} <= set(options("model", config_folders()))


def test_an_own_experiment_can_build_on_what_ships() -> None:
    text = "# @package _global_\ndefaults:\n  - override /model: micro\n  - _self_\ntrainer:\n  max_steps: 3\n"
    own("experiment/mine.yaml", text)
    config = compose(["experiment=mine"])
    assert (config.model.n_embd, config.trainer.max_steps) == (16, 3)


def test_own_yaml_is_left_behind_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own("model/tiny.yaml", "n_layer: 7\n")
    assert compose([]).model.n_layer == 7
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert user_conf() is None
    assert compose([]).model.n_layer == 2


def test_the_stage_finds_the_same_own_files_as_compose(tmp_path: Path) -> None:
    own("model/mine.yaml", "n_layer: 9\n")
    words = ["model=mine", "--cfg", "job"]
    done = subprocess.run(
        [sys.executable, "-m", "microgpt.train", *words], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "n_layer: 9" in done.stdout


def test_a_mistake_in_own_yaml_is_refused_with_its_key() -> None:
    own("model/mine.yaml", "n_layr: 9\n")
    with pytest.raises(UsageError, match="n_layr"):
        compose(["model=mine"])
    own("model/mine.yaml", "n_layer: many\n")
    with pytest.raises(UsageError, match=r"model\.n_layer=many"):
        compose(["model=mine"])


def test_composing_leaves_no_trace_for_the_next_time() -> None:
    first = compose(["model=micro", "seed=7"])
    assert compose([]) == compose([])
    assert compose(["model=micro", "seed=7"]) == first


def test_config_comes_back_the_same_from_plain_values() -> None:
    for words in ([], ["experiment=micro"], ["data.path=[a,b]", "tracking.uri=''"]):
        config = compose(words)
        assert build(TrainConfig, plain(config)) == config
        assert set(flat(config)) == set(settings(TrainConfig))


def test_a_saved_config_keeps_all_but_what_the_user_named() -> None:
    saved = plain(compose(["model=micro", "optimizer.learning_rate=0.123", "trainer.max_steps=50", "seed=9"]))
    words = ["trainer.max_steps=70"]
    laid = overlaid(saved, words, compose(words))
    assert (laid.trainer.max_steps, laid.optimizer.learning_rate, laid.seed) == (70, 0.123, 9)
    assert laid.model.n_embd == 16


def test_a_group_named_by_the_user_is_taken_whole() -> None:
    saved = plain(compose(["model=micro", "seed=9"]))
    laid = overlaid(saved, ["model=small"], compose(["model=small"]))
    assert laid.model == compose(["model=small"]).model
    assert laid.seed == 9


def test_an_experiment_named_by_the_user_lays_what_it_changes() -> None:
    saved = plain(compose(["trainer.max_steps=50", "seed=9"]))
    laid = overlaid(saved, ["experiment=micro"], compose(["experiment=micro"]))
    assert (laid.model.n_embd, laid.data.batch_size, laid.trainer.max_steps, laid.seed) == (16, 1, 1000, 9)


def test_wrong_words_over_a_saved_config_are_refused() -> None:
    saved = plain(compose([]))
    composed = compose(["model.position=learned", "model.n_head=64"])
    with pytest.raises(UsageError, match="rope"):
        overlaid(saved, ["model.n_head=64"], composed)


def test_a_config_of_a_newer_release_is_refused_and_an_older_one_is_migrated() -> None:
    with pytest.raises(UsageError, match="version"):
        migrated({"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(UsageError, match="version"):
        migrated({"schema_version": "new"})
    old = plain(TrainConfig())
    del old["schema_version"]
    assert build(TrainConfig, migrated(old)) == TrainConfig()


def test_the_vocabulary_grows_with_the_corpus_within_its_limits() -> None:
    sizes = [vocabulary(None, n) for n in range(0, 1 << 20, 5000)]
    assert sizes == sorted(sizes)
    assert (sizes[0], vocabulary(None, 1 << 20), vocabulary(None, 1 << 40)) == (512, 4096, 4096)
    assert len(set(sizes)) > 10
    assert vocabulary(300, 1 << 40) == 300


@pytest.mark.parametrize("words", [[], ["model=micro"], ["model=large", "trainer.max_steps=7"], ["experiment=micro"]])
def test_auto_leaves_nothing_open_and_touches_nothing_that_was_chosen(words: list[str]) -> None:
    config = compose(words)
    done = resolved(config, Facts(val_rows=100, flops_per_token=10**6))
    open_keys = ("data.batch_size", "optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_steps",
                 "trainer.eval_interval", "trainer.checkpoint_interval", "trainer.eval_batches",
                 "trainer.steps_per_call", "trainer.max_steps")  # fmt: skip
    before, after = flat(config), flat(done)
    for key, value in after.items():
        if before[key] is not None and key != "device.threads":  # whose auto is 0
            assert value == before[key], key
    assert all(after[key] is not None for key in open_keys)
    assert after["device.threads"] >= 1
    assert build(TrainConfig, plain(done)) == done, "what auto chooses is within the ranges of the schema"
    assert flat(config) == before, "the config that was given stays as it was"
    assert resolved(done, Facts(10**6, 1)) == done, "filled once, it stays"


def test_auto_follows_the_rules_that_the_help_tells() -> None:
    config = resolved_shape(compose(["model.block_size=256", "trainer.max_steps=1000", "model.n_embd=64"]), 10**6)
    assert config.data.batch_size == 16
    assert config.optimizer.warmup_steps == 20
    assert config.trainer.eval_interval == config.trainer.checkpoint_interval == 50
    assert config.optimizer.learning_rate == pytest.approx(0.01)
    assert config.optimizer.schedule == "linear", "4 M tokens of 1 M: the data is read again"
    assert resolved_shape(compose(["trainer.max_steps=2"]), 8192).optimizer.schedule == "wsd", "read once, whole"
    assert resolved_shape(compose(["trainer.max_steps=2"]), 8191).optimizer.schedule == "linear"
    wide = resolved_shape(compose(["model.n_embd=640", "model.block_size=8192", "trainer.max_steps=3"]), 10**6)
    assert wide.optimizer.learning_rate == pytest.approx(0.001)
    assert (wide.data.batch_size, wide.trainer.eval_interval, wide.optimizer.warmup_steps) == (1, 3, 0)


def test_auto_validates_on_all_where_that_is_cheap_and_on_a_part_where_not() -> None:
    config = compose(["model.block_size=256", "trainer.max_steps=100"])
    assert resolved(config, Facts(val_rows=10, flops_per_token=10**6)).trainer.eval_batches == 0
    dear = resolved(config, Facts(val_rows=10**6, flops_per_token=10**9)).trainer.eval_batches
    assert dear is not None
    assert 8 <= dear < 10**5


def test_tiny_models_take_many_steps_in_a_call_and_large_ones_one() -> None:
    config = compose(["model=micro", "data.batch_size=1"])
    tiny = resolved(config, Facts(10, 6 * 4192)).trainer.steps_per_call
    assert tiny is not None
    assert tiny > 10
    assert resolved(compose([]), Facts(10, 10**9)).trainer.steps_per_call == 1


def test_a_thread_is_used_where_there_is_work_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    for flops_per_token, threads in ((6 * 4192, 1), (600_000, 6), (10**9, 8)):
        config = resolved(compose(["data.batch_size=4", "model.block_size=256"]), Facts(10, flops_per_token))
        assert config.device.threads == threads
    asked = compose(["device.threads=3", "data.batch_size=1"])
    assert resolved(asked, Facts(10, 100)).device.threads == 3, "what was chosen stays"


HEAVY = ("torch", "hydra", "omegaconf", "mlflow", "numpy", "pytorch_lightning", "datasets", "yaml")
HELP = f"""
import runpy, sys
stage = sys.argv[1]
sys.argv = [stage, "--help"]
try:
    runpy.run_module(stage, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code
print("IMPORTED", *[m for m in {HEAVY!r} if m in sys.modules])
"""


@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_every_key_and_imports_nothing_heavy(stage: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, f"microgpt.{stage}"],
        capture_output=True, text=True, timeout=240, cwd=tmp_path, env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[-1] == "IMPORTED", f"--help imports {shown[-1]}"
    firsts = {line.split()[0] for line in shown if line.startswith("  ") and line.split()}
    words = "".join(done.stdout.split())
    for key, item in settings(STAGES[stage]).items():
        assert key in firsts, key
        assert "".join(item.help.split()) in words, key
    assert not list(tmp_path.iterdir())


def test_help_names_own_options_and_version_needs_no_data(tmp_path: Path) -> None:
    own("model/mine.yaml", "n_layer: 9\n")
    run = [sys.executable, "-m", "microgpt.train"]
    shown = subprocess.run([*run, "--help"], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert "mine" in shown.stdout
    version = subprocess.run([*run, "--version"], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert version.stdout.startswith("microgpt ")
