"""The form: what is typed becomes a command that composes to the same, and mistakes are told at their field."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from microgpt.config.build import flat
from microgpt.config.compose import compose
from microgpt.config.schema import TrainConfig
from microgpt.config.search import chosen_options
from microgpt.hub.costs import cost_rows
from microgpt.hub.form import Form, parsed, parts, word_of

HUB_FIELDS = {  # prior art A's 31 fields, as the config calls them
    "data.path", "tokenizer.kind", "tokenizer.encoding", "tokenizer.vocab_size", "model.n_layer", "model.n_embd",
    "model.n_head", "model.block_size", "trainer.max_steps", "optimizer.learning_rate", "optimizer.beta1",
    "optimizer.beta2", "optimizer.eps", "data.val_fraction", "trainer.eval_interval", "trainer.eval_batches",
    "trainer.patience", "trainer.min_delta", "sampling.temperature", "sampling.num_samples",
    "sampling.max_new_tokens", "sampling.top_k", "sampling.top_p", "sampling.repetition_penalty",
    "sampling.min_new_tokens", "sampling.repeat_last_n", "device.name", "trainer.log_interval",
    "tracking.log_level", "tracking.progress", "name",
}  # fmt: skip


def filled(*words: str) -> Form:
    form = Form()
    form.load(words)
    form.inherit(flat(compose(form.base_words())), chosen_options("train", form.experiment))
    return form


def test_every_field_of_prior_art_is_there() -> None:
    assert len(HUB_FIELDS) == 31
    assert set(Form().settings) >= HUB_FIELDS


def test_every_group_and_field_has_a_row() -> None:
    rows = Form().rows()
    assert {r.key for r in rows if r.kind == "field"} == set(Form().settings)
    assert {r.key for r in rows if r.kind == "group"} >= {"experiment", "model", "data", "tokenizer", "optimizer"}


@pytest.mark.parametrize(
    "key, text",
    [("model.n_layer", "3"), ("optimizer.learning_rate", "0.004"), ("optimizer.learning_rate", "auto"),
     ("data.path", "my texts/a b.txt, other's.txt"), ("data.separator", "it's \\ here"), ("data.chat", "false"),
     ("trainer.max_steps", "2,000"), ("tokenizer.kind", "char"), ("sampling.stop", "User:, \\n"), ("name", "a-b_c.1"),
     ("data.text_field", "a=b,c"), ("data.text_field", "naïve ☃"), ("optimizer.eps", "1e-9"), ("data.split", "[x]")],
)  # fmt: skip
def test_what_is_typed_is_what_the_command_composes(key: str, text: str) -> None:
    form = filled()
    form.set(key, text)
    assert not form.problems
    words = shlex.split(form.command())
    assert words[:3] == ["python", "-m", "microgpt.train"]
    assert flat(compose(words[3:])) == flat(form.config)


@pytest.mark.parametrize("name", ["fast", "coherent-fast", "coherent-max", "names", "chat", "micro"])
def test_a_preset_is_inherited_not_changed(name: str) -> None:
    form = filled(f"experiment={name}")
    assert form.changes == {}
    assert form.words() == [f"experiment={name}"]
    assert flat(form.config) == flat(compose([f"experiment={name}"]))
    if name == "fast":
        assert form.option("tokenizer") == "cl100k"
        assert (form.value("model.n_embd"), form.value("trainer.max_steps")) == ("32", "400")


def test_what_equals_the_inherited_is_no_change() -> None:
    form = filled()
    form.set("model.n_layer", "3")
    assert form.words() == ["model.n_layer=3"]
    form.set("model.n_layer", "2")
    assert form.words() == []


@pytest.mark.parametrize(
    "key, text, told",
    [("model.n_layer", "0", "1 to 1,024"), ("model.n_layer", "x", "a whole number"),
     ("tokenizer.kind", "bpee", "bpe?"),
     ("data.val_fraction", "0.5", "below 0.5"), ("data.chat", "maybe", "true or false"),
     ("model.n_layer", "1,x", "whole")],
)  # fmt: skip
def test_a_mistake_is_told_at_its_field(key: str, text: str, told: str) -> None:
    form = filled()
    form.set(key, text)
    assert told in form.problems[key]
    form.reset(key)
    assert form.problems == {}


def test_a_rule_between_fields_is_told_at_one_of_them() -> None:
    form = filled()
    form.set("model.n_head", "3")
    assert "divisible" in form.problems["model.n_embd"]
    form.set("model.n_embd", "66")
    assert form.problems == {}
    form.set("resume", "a")
    form.set("from_run", "b")
    assert "cannot both" in form.problems[""]


def test_commas_make_a_sweep() -> None:
    form = filled()
    form.set("optimizer.learning_rate", "0.01, 0.003")
    form.chosen["model"] = "micro, tiny"
    assert form.runs() == 4
    assert form.arguments()[0] == "-m"
    assert set(form.arguments()[1:]) == {"optimizer.learning_rate=0.01,0.003", "model=micro,tiny"}
    form.set("optimizer.learning_rate", "0.01")
    form.chosen.clear()
    assert form.runs() == 1
    assert "-m" not in form.arguments()


def test_a_thousands_comma_is_no_sweep_and_lists_keep_theirs() -> None:
    settings = Form().settings
    assert parts(settings["trainer.max_steps"], "10,000") == ["10,000"]
    assert parsed(settings["trainer.max_steps"], "10,000") == 10_000
    assert parts(settings["data.path"], "a,b") == ["a,b"]
    assert word_of("data.path", ["a", "b c"]) == "data.path=[a,'b c']"


def test_a_recorded_run_is_loaded_with_its_choices() -> None:
    form = filled("data=names", "tokenizer=char", "model.n_layer=3", "tracking=off", "resume=x")
    assert form.chosen == {"data": "names", "tokenizer": "char", "tracking": "off"}
    assert form.changes == {"model.n_layer": "3"}
    assert form.option("data") == "names"


def test_only_changed_rows_are_left() -> None:
    form = filled("data=names", "model.n_layer=3")
    assert [(r.kind, r.key) for r in form.rows(only_changed=True)] == [
        ("group", "experiment"), ("group", "model"), ("field", "model.n_layer"), ("group", "data"),
    ]  # fmt: skip


def test_a_folder_of_ones_own_is_offered(place: Path) -> None:
    (place / "conf" / "experiment").mkdir(parents=True)
    (place / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: names\n  - _self_\nmodel:\n  n_layer: 3\n"
    )
    form = filled("experiment=mine")
    assert "mine" in form.options("experiment")
    assert form.option("data") == "names"
    assert form.value("model.n_layer") == "3"


def test_the_cost_of_a_run_is_told(place: Path) -> None:
    told = dict(cost_rows(compose(["data=names", "tokenizer=char", "model=micro"]), Path("outputs")))
    assert int(told["parameters"].replace(",", "")) > 3000
    assert "guess" in told["time"]
    assert dict(cost_rows(TrainConfig(), Path("outputs")))["steps"].endswith("(auto)")
