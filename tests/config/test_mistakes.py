"""Wrong config is refused with everything a user needs: key, value, range, nearest name, and all of it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microgpt.config.build import build, is_name, settings
from microgpt.config.compose import compose
from microgpt.config.schema import STAGES, ModelConfig, TrainConfig
from microgpt.errors import UsageError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stage(name: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"microgpt.{name}", *words],
        capture_output=True, text=True, timeout=240, cwd=cwd, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


def refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert " - " in lines[0], "no mend"
    for part in parts:
        assert part in lines[0]


def mistake(*words: str, stage: str = "train") -> str:
    with pytest.raises(UsageError) as caught:
        compose(list(words), stage)
    return str(caught.value)


def test_a_typo_names_the_nearest_key_and_the_keys_of_its_group(tmp_path: Path) -> None:
    group = [k.partition(".")[2] for k in settings(TrainConfig) if k.startswith("model.")]
    result = stage("train", "model.n_hed=3", cwd=tmp_path)
    refused(result, "model.n_hed", "did you mean model.n_head?", *group)
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


@pytest.mark.parametrize(
    "word, hint",
    [
        ("n_head=3", "model.n_head"),
        ("modle.n_head=3", "model.n_head"),
        ("modle=tiny", "model"),
        ("sed=3", "seed"),
        ("optimizer.lerning_rate=1", "optimizer.learning_rate"),
        ("trainer.learning_rate=0.1", "optimizer.learning_rate"),
        ("model=tny", "tiny"),
        ("experiment=nmes", "names"),
        ("model.mlp=swigl", "swiglu"),
        ("model", "model"),
    ],
)
def test_every_kind_of_typo_gets_the_nearest_name(word: str, hint: str) -> None:
    assert f"did you mean {hint}?" in mistake(word)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_refuses_an_unknown_key(name: str, tmp_path: Path) -> None:
    refused(stage(name, "trakcing.uri=x", cwd=tmp_path), "trakcing.uri")


def test_all_wrong_values_are_reported_at_once() -> None:
    text = mistake("model.n_layer=-1", "model.dropout=7", "optimizer.schedule=linaer", "trainer.max_steps=ten")
    assert text.startswith("4 mistakes")
    for part in (
        "model.n_layer=-1: must be a whole number from 1 to 1,024",
        "model.dropout=7: must be a number from 0 to below 1",
        "optimizer.schedule=linaer: must be linear, cosine, wsd or constant (did you mean linear?)",
        "trainer.max_steps=ten: must be a whole number from 1",
    ):
        assert part in text


def test_all_unknown_keys_are_reported_at_once() -> None:
    text = mistake("model.n_hed=3", "optimizer.lr=1", "experiment=nmes")
    assert "model.n_hed" in text
    assert "optimizer.lr" in text
    assert "experiment=nmes" in text


def test_a_typo_does_not_hide_a_wrong_value() -> None:
    text = mistake("model.n_hed=3", "optimizer.learning_rate=-1")
    assert "model.n_hed" in text
    assert "optimizer.learning_rate=-1" in text


def test_a_wrong_value_brings_no_second_complaint_about_the_default_in_its_place() -> None:
    text = mistake("model.n_head=-2", "model.n_embd=66")
    assert "model.n_head=-2" in text
    assert "model.n_head=4" not in text


NUMBERS = [key for key, item in settings(TrainConfig).items() if item.base in (int, float)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e30, "x", [1], {"a": 1}, True])
def test_no_number_takes_what_is_not_a_finite_number_in_range(value: object) -> None:
    raw: dict[str, object] = {}
    for key in NUMBERS:
        group, _, leaf = key.rpartition(".")
        (raw.setdefault(group, {}) if group else raw)[leaf] = value  # type: ignore[index]
    with pytest.raises(UsageError) as caught:
        build(TrainConfig, raw)
    for key in NUMBERS:
        assert f"{key}={value}: must be {settings(TrainConfig)[key].range}" in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "NaN", "-1", "1e999", "-1e999", "inf", "null2", "0"])
def test_a_learning_rate_that_is_no_rate_is_refused_with_its_range(value: str) -> None:
    text = mistake(f"optimizer.learning_rate={value}")
    assert "optimizer.learning_rate=" in text
    assert "from above 0 to 10" in text


def test_heads_must_divide_the_width() -> None:
    text = mistake("model.n_embd=65", "model.n_head=4")
    assert "model.n_embd=65" in text
    assert "divisible by model.n_head=4" in text
    assert "model.n_head=5 would do" in text
    assert "must divide model.n_head=4" in mistake("model.n_kv_head=3")
    assert "rope" in mistake("model.n_embd=60", "model.n_head=4", "model.position=rope")
    assert compose(["model.n_embd=60", "model.n_head=4", "model.position=learned"]).model.n_embd == 60


def test_wrong_values_end_the_command_with_two_and_one_line(tmp_path: Path) -> None:
    refused(
        stage("train", "optimizer.learning_rate=nan", "model.n_embd=65", "model.n_head=4", cwd=tmp_path),
        "optimizer.learning_rate=nan", "from above 0 to 10", "model.n_embd=65", "model.n_head=4",
    )  # fmt: skip
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("words", [["resume=latest", "from_run=latest"], ["trainer.additional_steps=5"]])
def test_keys_that_contradict_each_other_are_refused(words: list[str]) -> None:
    assert "resume" in mistake(*words)


@pytest.mark.parametrize("name", [".hidden", "a/b", "a" * 65, "a b", "<b>", "\x1b[31m", "é", ".."])
def test_run_names_are_safe_in_paths_and_terminals(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(UsageError, match="name="):
        build(TrainConfig, {"name": name})


@pytest.mark.parametrize("name", ["a", "a" * 64, "A.b_c-9", "-x"])
def test_ordinary_run_names_are_allowed(name: str) -> None:
    assert build(TrainConfig, {"name": name}).name == name


@pytest.mark.parametrize("key", ["n_kv_head", "init_std", "mlp_hidden"])
def test_auto_and_null_leave_the_choice_to_the_rules(key: str) -> None:
    for value in ("auto", "null"):
        assert getattr(compose([f"model.{key}={value}"]).model, key) is None
    assert "model.n_layer=auto" in mistake("model.n_layer=auto")


def test_lists_take_one_value_or_several_texts() -> None:
    assert compose(["data.path=a.txt"]).data.path == ["a.txt"]
    assert compose(["data.path=[a.txt,b.txt]"]).data.path == ["a.txt", "b.txt"]


@pytest.mark.parametrize("value", ["[null]", "[{a: 1}]", "[[a]]", "[true]"])
def test_a_list_of_texts_holds_texts_only(value: str) -> None:
    assert "data.path" in mistake(f"data.path={value}")


def test_a_list_of_choices_takes_one_several_and_no_other() -> None:
    assert compose(["format=gguf"], "export").format == ["gguf"]
    assert compose(["format=[gguf,onnx]"], "export").format == ["gguf", "onnx"]
    with pytest.raises(UsageError, match=r"one or more of safetensors, .* or onnx \(did you mean onnx\?\)"):
        compose(["format=[gguf,onnxx]"], "export")


def test_unknown_keys_of_a_mapping_are_named_with_their_place() -> None:
    with pytest.raises(UsageError) as caught:
        build(TrainConfig, {"model": {"n_layr": 2}, "data": 3, "colour": "red"})
    text = str(caught.value)
    assert "model.n_layr (did you mean model.n_layer?)" in text
    assert "data=3: a group takes a mapping" in text
    assert "unknown key colour" in text


def test_building_does_not_share_lists_between_configs() -> None:
    first, second = TrainConfig(), TrainConfig()
    first.data.path.append("x")
    assert second.data.path == []
    assert ModelConfig() == ModelConfig()


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path: Path) -> None:
    result = stage("train", "model.n_hed=3", "--debug", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_hydras_own_complaints_are_one_line_too(tmp_path: Path) -> None:
    refused(stage("train", "model={n_layer: 2", cwd=tmp_path), "n_layer")
    refused(stage("train", "+experiment=names", "+experiment=micro", cwd=tmp_path))


def test_a_launcher_that_is_unknown_or_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    said = mistake("hydra/launcher=jobilb")
    assert "did you mean joblib?" in said
    assert "submitit_slurm" in said
    monkeypatch.setattr("microgpt.config.scan.find_spec", lambda module: None)
    assert "pip install 'microgpt[sweep]'" in mistake("hydra/launcher=joblib")
    assert "pip install 'microgpt[sweep]'" in mistake("hydra/launcher=ray")
    compose(["hydra/launcher=basic"])
