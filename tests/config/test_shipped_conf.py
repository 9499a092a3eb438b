"""Every YAML that ships composes to typed config, and what config can name is what the code knows."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest

from microgpt.config.build import flat, groups, settings
from microgpt.config.compose import check_arguments, compose
from microgpt.config.help import EXAMPLES
from microgpt.config.schema import (
    STAGES,
    DataConfig,
    DeviceConfig,
    ExportConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    SweepConfig,
    TokenizerConfig,
    TrackingConfig,
    TrainConfig,
    TrainerConfig,
)
from microgpt.config.search import options, shipped_conf
from microgpt.data.sources import CORPORA
from microgpt.errors import UsageError

GROUPS = {
    "model": ModelConfig,
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "optimizer": OptimizerConfig,
    "trainer": TrainerConfig,
    "device": DeviceConfig,
    "tracking": TrackingConfig,
    "sampling": SamplingConfig,
    "sweep": SweepConfig,
}
OPTIONS = [(g, o) for g in (*GROUPS, "experiment") for o in options(g, [shipped_conf()])]
LEAVES = {key: item for cls in STAGES.values() for key, item in settings(cls).items()}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("group, option", OPTIONS, ids=lambda v: v)
def test_every_shipped_option_composes_to_typed_config(group: str, option: str) -> None:
    config = compose([f"{group}={option}"])
    assert isinstance(config, TrainConfig)
    for name, cls in GROUPS.items():
        assert type(getattr(config, name)) is cls
    if group != "experiment":  # an option sets keys of its own group only
        default = flat(TrainConfig())
        assert all(k.startswith(f"{group}.") for k, v in flat(config).items() if v != default[k])


def test_every_group_of_the_schema_has_its_folder_of_options() -> None:
    assert set(groups(TrainConfig)) == set(GROUPS)
    folders = {p.name for p in shipped_conf().iterdir() if p.is_dir()}
    assert folders <= {*GROUPS, "experiment"}, "a folder of conf/ that no stage reads"
    assert all(options(group, [shipped_conf()]) for group in GROUPS)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_composes_to_the_defaults_of_its_schema(stage: str) -> None:
    config, default = compose([], stage), STAGES[stage]()
    assert type(config) is type(default)
    assert (shipped_conf() / f"{stage}.yaml").is_file()
    if stage == "train":  # its groups name exactly what the schema says
        assert flat(config) == flat(default)


def test_experiments_choose_what_they_say() -> None:
    micro = compose(["experiment=micro"])
    assert (micro.model.n_embd, micro.data.packing, micro.data.batch_size) == (16, False, 1)
    fast = compose(["experiment=fast"])
    assert (fast.tokenizer.vocab_size, fast.model.n_embd, fast.trainer.max_steps) == (1536, 32, 400)
    assert fast.tokenizer.kind == "cl100k"
    assert fast.tokenizer.fallback


def test_values_on_the_command_line_win_over_the_experiment() -> None:
    config = compose(["experiment=micro", "model.n_embd=32", "trainer.max_steps=7"])
    assert (config.model.n_embd, config.trainer.max_steps, config.model.block_size) == (32, 7, 16)


def test_presets_have_the_shapes_that_the_design_promises() -> None:
    wanted = {
        "micro": (16, 4, 1, 16),
        "micro_first": (16, 4, 1, 8),
        "tiny": (64, 4, 2, 256),
        "small": (128, 4, 4, 512),
        "medium": (256, 8, 6, 1024),
        "large": (384, 8, 8, 1024),
        "gpt2": (768, 12, 12, 1024),
    }
    for name, shape in wanted.items():
        m = compose([f"model={name}"]).model
        assert (m.n_embd, m.n_head, m.n_layer, m.block_size) == shape, name


def test_tokenizer_kinds_in_config_are_those_in_code() -> None:
    from microgpt.tokenizer.load import KINDS, make_tokenizer

    assert set(LEAVES["tokenizer.kind"].choices) == set(KINDS)
    assert set(options("tokenizer", [shipped_conf()])) == set(KINDS)
    with pytest.raises(UsageError, match="no such tokenizer"):
        make_tokenizer("words", 300, lambda: ["a"])


def test_sweeps_in_config_are_those_in_code() -> None:
    from microgpt.scaling.study import KIND
    from microgpt.sweeps.drive import KINDS
    from microgpt.sweeps.search import SAMPLERS
    from microgpt.sweeps.study import PRUNERS

    kinds = {*KINDS, KIND}
    assert set(LEAVES["sweep.kind"].choices) == kinds
    assert set(LEAVES["sweep.pruner"].choices) == set(PRUNERS)
    assert set(LEAVES["sweep.sampler"].choices) == set(SAMPLERS)
    assert {compose([f"sweep={option}"]).sweep.kind for option in options("sweep", [shipped_conf()])} == kinds


def test_corpora_in_config_are_those_in_code() -> None:
    assert set(LEAVES["data.corpus"].choices) == set(CORPORA)
    for option in options("data", [shipped_conf()]):
        data = compose([f"data={option}"]).data
        if data.format == "auto":
            assert data.corpus == option


def test_file_formats_in_config_are_those_that_files_can_have() -> None:
    from microgpt.data.sources import ENDINGS

    assert set(LEAVES["data.format"].choices) == {"auto", "text", "hub", *ENDINGS.values()}


def test_optimizers_in_config_have_their_options() -> None:
    assert set(LEAVES["optimizer.name"].choices) <= set(options("optimizer", [shipped_conf()]))


def test_devices_and_trackers_in_config_have_their_options() -> None:
    assert set(options("device", [shipped_conf()])) == set(LEAVES["device.name"].choices)
    assert set(options("tracking", [shipped_conf()])) == set(LEAVES["tracking.kind"].choices)


@pytest.mark.parametrize("key", ["mlp", "norm", "position", "init"])
def test_every_choice_of_the_model_makes_a_model_of_its_own(key: str) -> None:
    torch = importlib.import_module("torch")
    from microgpt.model.gpt import GPT

    seen: dict[bytes, str] = {}
    tokens = torch.arange(8).reshape(1, 8)
    for choice in LEAVES[f"model.{key}"].choices:
        shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "init": "normal", "bias": True}
        model = GPT(ModelConfig(**{**shape, key: choice}), 8).eval()
        model.init_weights(1)
        with torch.no_grad():
            for p in model.parameters():  # so that gains and gates count
                p.add_(0.05 * torch.sin(torch.arange(p.numel(), dtype=p.dtype)).reshape(p.shape))
            losses = model.losses(tokens, tokens.roll(-1), torch.arange(8).reshape(1, 8), None)
        shown = np.round(losses.double().numpy(), 9).tobytes()
        assert shown not in seen, f"model.{key}={choice} computes the same as {seen.get(shown)}"
        seen[shown] = choice


def test_every_schedule_in_config_gives_a_rate_of_its_own() -> None:
    from microgpt.training.schedule import make_schedule

    curves = set()
    for choice in LEAVES["optimizer.schedule"].choices:
        schedule = make_schedule(OptimizerConfig(schedule=choice, warmup_steps=2), 20)
        curves.add(tuple(round(schedule.factor(step), 9) for step in range(20)))
    assert len(curves) == len(LEAVES["optimizer.schedule"].choices)


def test_formats_and_number_formats_of_exports_are_those_that_are_proved() -> None:
    from microgpt.export.formats import FORMATS

    assert LEAVES["format"].choices == tuple(FORMATS)
    assert set(LEAVES["dtype"].choices) == {dtype for form in FORMATS.values() for dtype in form.tolerance}


@pytest.mark.parametrize("key", LEAVES)
def test_every_setting_tells_its_meaning_and_its_default_is_allowed(key: str) -> None:
    from microgpt.config.build import _in_range

    item = LEAVES[key]
    assert len(item.help) >= 5, "help text is missing"
    assert not item.help.endswith("."), "help is a phrase, not a sentence"
    assert _in_range(item, item.default)
    if item.base in (int, float):
        low, high = item.ge if item.ge is not None else item.gt, item.le if item.le is not None else item.lt
        assert low is not None, "a number without a lower limit lets nonsense through"
        assert high is not None or key == "schema_version"


def test_every_group_tells_its_meaning() -> None:
    for cls in (*STAGES.values(), *GROUPS.values(), ExportConfig):
        assert cls.__doc__
        assert dataclasses.is_dataclass(cls)
        assert not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring that dataclasses make"


@pytest.mark.parametrize("stage", EXAMPLES)
def test_the_examples_of_help_are_accepted(stage: str) -> None:
    assert set(EXAMPLES) == set(STAGES)
    for example in EXAMPLES[stage]:
        python, flag, module, *words = example.split()
        assert (python, flag, module) == ("python", "-m", f"microgpt.{stage}")
        overrides = [w for w in words if not w.startswith("-")]
        check_arguments(overrides, stage)
        if "-m" not in words:
            compose(overrides, stage)
