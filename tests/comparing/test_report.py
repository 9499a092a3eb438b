"""The numbers of a comparison are those of the run folders, and what is made from them is right."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from microgpt.comparing.choose import chosen
from microgpt.comparing.comparison import Comparison, compared
from microgpt.comparing.importance import importance, ranks
from microgpt.comparing.report import report, table
from microgpt.runs.folder import read_metrics, read_run


def comparison(*references: str) -> Comparison:
    return compared(chosen(list(references)))


def test_rows_are_what_run_json_holds_and_best_first(sweep: Path) -> None:
    told = report(comparison(str(sweep)))
    scores = [run["score"] for run in told["runs"] if run["score"] is not None]
    assert scores == sorted(scores)
    assert told["runs"][-1]["score"] is None, "the run without a validation stands last"
    for run in told["runs"]:
        facts = read_run(Path(run["id"]))
        if facts["status"] == "FINISHED":
            assert run["best_val_loss"] == facts["best_val_loss"]
            assert run["best_val_bpb"] == facts["best_val_bpb"]
            assert (run["steps"], run["tokens"]) == (facts["steps"], facts["tokens"])
            assert run["seconds"] == facts["train_seconds"]
            assert run["flops"] == facts["tokens"] * facts["flops_per_token"]
        validations = read_metrics(Path(run["id"])).get("val/loss", {})
        assert dict(zip(run["validation"]["step"], run["validation"]["value"])) == validations


def test_a_run_that_did_not_end_has_what_its_metrics_hold(sweep: Path) -> None:
    runs = {run["name"]: run for run in report(comparison(str(sweep)))["runs"]}
    cut, failed = runs["10"], runs["11"]
    assert cut["status"] == "KILLED", "it says RUNNING, but no process holds its folder"
    assert cut["best_val_loss"] == read_metrics(sweep / "10")["val/loss"][80]
    assert (cut["steps"], cut["best_step"], cut["tokens"]) == (80, 80, 8000)
    assert cut["seconds"] == pytest.approx(8.0), "8,000 tokens at 1,000 a second"
    assert (failed["status"], failed["error"]) == ("FAILED", "it left the numbers")
    assert (failed["best_val_loss"], failed["steps"]) == (None, 0)


def test_seconds_leave_out_a_pause_and_add_up(write: Any) -> None:
    write("day/a", {10: 3.0, 20: 2.9, 40: 2.8}, speed=500.0)
    told = report(comparison("all"))["runs"][0]
    assert told["validation"]["seconds"] == [2.0, 4.0, 8.0]
    assert told["validation"]["tokens"] == [1000.0, 2000.0, 4000.0]
    assert told["seconds"] == 8.0


def test_what_differs_is_listed_what_was_asked_for_first(write: Any) -> None:
    for number, width in enumerate((16, 32)):
        write(
            f"day/{number}",
            {10: 3.0},
            words=(f"model.n_embd={width}", "data=names", f"tracking.experiment={number}"),
            settings={"model.n_embd": width, "optimizer.learning_rate": 0.64 / width, "name": str(number)},
        )
    told = report(comparison("all"))
    assert told["swept"] == ["model.n_embd"], "where a run is tracked has nothing to do with its loss"
    assert told["keys"] == ["model.n_embd", "optimizer.learning_rate"]


def test_the_choice_of_a_group_can_be_what_was_varied(write: Any) -> None:
    for number, model in enumerate(("micro", "tiny")):
        write(f"day/{number}", {10: 3.0 - number}, words=(f"model={model}",), settings={"model.n_embd": 16 << number})
    told = report(comparison("all"))
    assert told["swept"] == ["model"]
    assert told["importance"]["weights"][0]["key"] == "model"
    assert told["importance"]["weights"][0]["best"] == "tiny"


def test_other_tokenizers_are_compared_by_bits_a_byte(write: Any) -> None:
    write("day/chars", {10: 2.0}, settings={"tokenizer.kind": "char"}, bytes_a_nat=1.5)
    write("day/words", {10: 4.0}, settings={"tokenizer.kind": "bpe"}, bytes_a_nat=0.5, vocab_size=512)
    told = report(comparison("all"))
    assert (told["measure"], told["unit"]) == ("val/bpb", "bits a byte")
    assert [run["name"] for run in told["runs"]] == ["words", "chars"], (
        "its loss in nats is higher, its bits are fewer"
    )
    assert told["runs"][0]["validation"]["value"] == [2.0]
    assert told["runs"][0]["training"]["value"] == [pytest.approx(3.9 * 0.5)]
    assert any("bits a byte" in note for note in told["notes"])


def test_other_data_is_told(write: Any) -> None:
    write("day/a", {10: 2.0}, settings={"tokenizer.kind": "char"})
    write("day/b", {10: 4.0}, settings={"tokenizer.kind": "char"}, data={"fingerprint": "b"})
    assert any("different data" in note for note in report(comparison("all"))["notes"])


def test_budgets_hold_the_best_that_each_amount_could_buy(write: Any) -> None:
    write("day/small", {10: 3.0, 20: 2.8, 40: 2.7}, flops_per_token=1000)
    write("day/large", {10: 2.9, 20: 2.5, 40: 2.1}, flops_per_token=4000)
    told = report(comparison("all"))
    found = {row["amount"]: row for row in told["budgets"]["flops"]}
    names = [run["name"] for run in told["runs"]]
    assert names == ["large", "small"]
    assert list(found) == [1e6, 2e6, 4e6, 8e6, 16e6], "half a million buys no validation"
    assert found[2e6]["best"] == [{"run": 1, "score": 2.8, "step": 20}], "the large model has no validation yet"
    assert [p["run"] for p in found[4e6]["best"]] == [1, 0]
    assert [p["run"] for p in found[8e6]["best"]] == [0, 1]
    assert (found[4e6]["spent"], found[16e6]["spent"]) == (2, 1)


def test_the_setting_that_decides_is_the_most_important(sweep: Path) -> None:
    found = report(comparison(str(sweep)))["importance"]
    rate, seed = found["weights"]
    assert (rate["key"], seed["key"]) == ("optimizer.learning_rate", "seed")
    assert rate["share"] > 0.8
    assert rate["share"] + seed["share"] == pytest.approx(1)
    assert rate["correlation"] < -0.8, "larger rates had lower losses"
    assert rate["best"] == 0.01
    assert found["fit"] > 0.5
    assert found["runs"] == 11


def test_few_runs_get_no_forest_and_constant_settings_no_row() -> None:
    found = importance({"a": [1, 2, 3], "b": [5, 5, 5], "c": ["x", "y", "x"]}, [3.0, 2.0, 1.0])
    assert found.fit is None
    assert [(w.key, w.share, w.correlation) for w in found.weights] == [("a", None, -1.0), ("c", None, None)]


def test_ranks_share_the_mean_of_ties() -> None:
    assert ranks([5.0, 1.0, 5.0, math.inf]).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_curves_of_many_steps_are_thinned_but_keep_their_ends_and_the_best(write: Any) -> None:
    losses = {step: 3.0 - step / 1000 for step in range(1, 1001)}
    losses[333] = 0.5
    write("day/a", losses)
    curve = report(comparison("all"))["runs"][0]["validation"]
    assert len(curve["step"]) <= 160
    assert (curve["step"][0], curve["step"][-1]) == (1, 1000)
    assert 0.5 in curve["value"]


def test_the_table_has_every_number_in_full(sweep: Path) -> None:
    told = report(comparison(str(sweep)))
    rows = list(csv.DictReader(io.StringIO(table(told))))
    assert len(rows) == 12
    for row, run in zip(rows, told["runs"]):
        assert row["best_val_loss"] == ("" if run["best_val_loss"] is None else repr(run["best_val_loss"]))
        assert row["optimizer.learning_rate"] == str(run["settings"]["optimizer.learning_rate"])


def test_whatever_the_files_hold_becomes_a_report(write: Any) -> None:
    """Damaged and hostile folders leave gaps; a spreadsheet gets no formula."""
    odd = write("day/odd", {10: 3.0}, words=("=cmd()=1",), parameters="many", max_steps=10**400, steps=[1], error=7)
    write("day/=1+1", {10: 2.0}, words=("-x=2",), overrides={"a": 1}, data=[1], best_val_loss=None)
    (odd / "config.yaml").write_text("seed: 2026-01-01\nmodel: {n_embd: {1: .nan}, n_layer: .inf}\n")
    (write("day/empty", {}) / "config.yaml").unlink()
    with open(odd / "metrics.jsonl", "a") as file:
        file.write('{"step": -5, "metrics": {"val/loss": 0}}\n{"step": 1e300, "metrics": {"train/loss": 1}}\n{"st')
    told = report(comparison("all"))
    json.dumps(told, allow_nan=False)
    assert len(told["runs"]) == 3
    assert {cell for row in csv.reader(io.StringIO(table(told))) for cell in row if cell.startswith("=")} == set()
