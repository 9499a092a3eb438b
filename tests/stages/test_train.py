"""What `python -m microgpt.train` leaves, refuses and guarantees."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from microgpt.checkpoints.folder import find
from microgpt.data.baselines import baselines
from microgpt.data.mixture import prepare_all
from microgpt.runs.folder import read_metrics, read_run

pytestmark = pytest.mark.slow

EVAL_CSV = (
    "timestamp,step,train_loss,val_loss,best_val,generalization_gap,improved,patience_used,patience_max,"
    "learning_rate,perplexity,bits_per_byte"
)
SYSTEM_CSV = "timestamp,pid,cpu_percent,proc_rss_kb,sys_mem_used_mb,sys_mem_free_mb,sys_mem_total_mb,step,step_total"
NAMES = {
    *("train/loss", "train/lr", "train/grad_norm", "train/update_ratio", "val/loss", "val/ppl", "val/bpb", "val/gap"),
    *("perf/tokens_per_s", "perf/steps_per_s", "perf/step_ms", "perf/data_wait_pct", "perf/mfu", "perf/mem_peak_mb"),
    *("progress/tokens", "progress/eta_s"),
}
#: weights grow a hundredfold a step, without clipping: finite at first, then Inf
DIVERGING = [
    *("optimizer=adamw", "optimizer.learning_rate=10", "optimizer.weight_decay=10", "optimizer.grad_clip=0"),
    *("optimizer.schedule=constant", "optimizer.warmup_steps=0", "device.precision=f32"),
]


def losses(folder: Path) -> list[float]:
    return list(read_metrics(folder)["train/loss"].values())


def weights(folder: Path) -> bytes:
    return (find(folder / "checkpoints", "latest") / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def run(warm_anywhere, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run where the user started it, with system metrics as often as they come."""
    home = tmp_path_factory.mktemp("run")
    warm_anywhere("train", *small, "tracking=off", "tracking.system_interval=0.001", cwd=home)
    return home / "outputs" / "latest"


def test_latest_points_to_the_run_folder_of_the_day(run: Path) -> None:
    assert run.is_symlink()
    assert not os.path.isabs(os.readlink(run)), "an outputs folder can be moved"
    assert run.resolve().parents[1] == run.parent.resolve()


def test_the_saved_config_is_resolved(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 40
    assert config["tokenizer"]["kind"] == "char"
    unresolved = [
        f"{group}.{key}"
        for group in ("data", "optimizer", "trainer", "device")
        for key, value in config[group].items()
        if (value is None or (isinstance(value, str) and "${" in value))
        and (group, key) not in (("data", "tokenize_workers"), ("device", "devices"))  # the same bits for any number
    ]
    # what stays null in `model` is a function of the shape that is written beside it
    assert not unresolved, "an auto value that is not written down cannot be repeated"


def test_run_json_says_what_ran_on_what_and_how_it_ended(run: Path) -> None:
    facts = read_run(run)
    assert facts["status"] == "FINISHED"
    assert facts["stage"] == "train"
    assert facts["command"].startswith("python -m microgpt.train data=names tokenizer=char")
    assert {"microgpt", "torch", "pytorch-lightning", "hydra-core", "mlflow"} <= set(facts["versions"])
    assert "git" in facts
    assert len(facts["data"]["fingerprint"]) == 64
    assert len(facts["data"]["sources"][0]["sha256"]) == 64
    assert facts["steps"] == facts["max_steps"] == 40
    assert facts["started"] <= facts["ended"]
    assert facts["parameters"] > 0


def test_git_state_is_recorded_inside_a_repository(warm, small: list[str], tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    warm("train", *small, "trainer.max_steps=2", "hydra.run.dir=run")
    assert read_run(tmp_path / "run")["git"]["commit"] == head
    assert read_run(tmp_path / "run")["git"]["dirty"] is False


def test_metrics_have_all_their_slash_grouped_names_and_every_step(run: Path) -> None:
    metrics = read_metrics(run)
    assert set(metrics) >= NAMES
    assert all(len(name.split("/")) == 2 for name in metrics)
    assert list(metrics["train/loss"]) == list(range(1, 41))
    assert list(metrics["val/loss"]) == [10, 20, 30, 40]


def test_eval_and_system_csv_have_the_columns_of_prior_art(run: Path) -> None:
    assert (run / "eval.csv").read_text().splitlines()[0] == EVAL_CSV
    assert (run / "system.csv").read_text().splitlines()[0] == SYSTEM_CSV
    with open(run / "eval.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows] == [10, 20, 30, 40]
    for row in rows:
        assert float(row["perplexity"]) == pytest.approx(math.exp(float(row["val_loss"])), rel=1e-4)
    with open(run / "system.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert int(row["proc_rss_kb"]) > 0
            assert row["step_total"] == "40"


def test_samples_are_kept_as_json_lines(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert lines[-1]["final"] is True
    assert all(len(line["samples"]) == 2 for line in lines)


def test_every_checkpoint_has_a_manifest_that_covers_its_files(run: Path) -> None:
    folders = [p for p in (run / "checkpoints").iterdir() if not p.is_symlink() and p.is_dir()]
    assert len(folders) >= 2
    for folder in folders:
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        named = json.dumps(manifest)
        assert all(p.name in named for p in folder.iterdir() if p.name != "MANIFEST.json")
    assert find(run / "checkpoints", "latest").name == "step-000040"


def test_no_pickle_and_no_leftover_is_in_a_run_folder(run: Path) -> None:
    for path in run.resolve().rglob("*"):
        assert path.suffix not in (".ckpt", ".pt", ".pth", ".pkl", ".tmp"), path


def test_a_device_that_is_not_there_is_one_line(warm, small: list[str]) -> None:
    import torch

    missing = [d for d, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
               if not there]  # fmt: skip
    done = warm("train", *[w for w in small if w != "device=cpu"], f"device={missing[0]}", code=2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert f"device={missing[0]}" in line


def test_best_is_the_lowest_validation_loss(warm, small: list[str], tmp_path: Path) -> None:
    noisy = ["optimizer=adamw", "optimizer.learning_rate=0.5", "optimizer.schedule=constant"]
    warm("train", *small, *noisy, "trainer.eval_interval=2", "hydra.run.dir=run")
    values = read_metrics(tmp_path / "run")["val/loss"]
    step = min(values, key=lambda s: values[s])
    assert step < 40, "the run must get worse somewhere for this test to mean anything"
    facts = read_run(tmp_path / "run")
    assert (facts["best_step"], facts["best_val_loss"]) == (step, values[step])
    assert find(tmp_path / "run" / "checkpoints", "best").name == f"step-{step:06d}"


def test_a_nan_validation_loss_is_never_best(warm, small: list[str], tmp_path: Path) -> None:
    words = [*DIVERGING, "trainer.max_bad_steps=1000", "trainer.max_steps=20", "trainer.eval_interval=1"]
    warm("train", *small, *words, "model.norm=layernorm", "hydra.run.dir=run")
    run = tmp_path / "run"
    values = read_metrics(run)["val/loss"]
    assert any(math.isnan(v) for v in values.values()), "no validation was NaN"
    finite = {s: v for s, v in values.items() if math.isfinite(v)}
    assert read_run(run)["best_step"] == min(finite, key=lambda s: finite[s])
    assert math.isfinite(read_run(run)["best_val_loss"])
    assert "NaN" not in (run / "run.json").read_text()


def test_diverging_skips_updates_naming_documents_then_exits_6(warm, small: list[str], tmp_path: Path) -> None:
    words = [*small, *DIVERGING, "trainer.checkpoint_interval=1", "trainer.keep_checkpoints=100"]
    done = warm("train", *words, "hydra.run.dir=run", code=6)
    run = tmp_path / "run"
    said = done.stdout + done.stderr
    notes = [line for line in said.splitlines() if "update skipped at step" in line]
    assert len(notes) == 4, "three are let pass, the fourth ends the run"
    assert all("documents " in n and any(c.isdigit() for c in n.split("documents ")[1]) for n in notes)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "learning_rate" in line
    assert read_run(run)["status"] == "FAILED"
    from microgpt.checkpoints.model import load_weights, open_model

    kept = load_weights(open_model(find(run / "checkpoints", "latest")))
    assert all(bool(p.isfinite().all()) for p in kept.parameters()), "the last good checkpoint stays"


def test_early_stopping_ends_the_run_by_patience_and_min_delta(warm, small: list[str], tmp_path: Path) -> None:
    words = [*small, "trainer.max_steps=400", "trainer.patience=2"]
    warm("train", *words, "trainer.min_delta=50", "hydra.run.dir=strict")
    facts = read_run(tmp_path / "strict")
    assert facts["stopped_early"] is True
    assert facts["steps"] == 30, "one validation sets the mark, two in a row do not pass it by min_delta"
    assert facts["status"] == "FINISHED"
    used = [line.split(",")[7:9] for line in (tmp_path / "strict" / "eval.csv").read_text().splitlines()[1:]]
    assert used == [["0", "2"], ["1", "2"], ["2", "2"]]
    words = [*small, "trainer.patience=2", "trainer.min_delta=0"]
    warm("train", *words, "hydra.run.dir=lenient")
    assert read_run(tmp_path / "lenient")["steps"] == 40
    assert read_run(tmp_path / "lenient")["stopped_early"] is False


def test_two_starts_in_one_second_get_two_folders(small: list[str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "microgpt.train", *small, "trainer.max_steps=2", "tracking=off", "name=same"]
    started = [
        subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [p.wait(120) for p in started] == [0, 0]
    folders = [p.parent for p in (tmp_path / "outputs").glob("*/*/run.json") if not p.parent.parent.is_symlink()]
    assert len(folders) == 2
    for folder in folders:
        assert read_run(folder)["status"] == "FINISHED"
        assert list(read_metrics(folder)["train/loss"]) == [1, 2]


def test_a_second_interrupt_ends_the_run_within_a_second(small: list[str], tmp_path: Path) -> None:
    # a step of some seconds, so that the first signal cannot have ended it yet
    big = [
        "model.n_layer=8",
        "model.n_embd=256",
        "model.block_size=256",
        "data.batch_size=64",
        "trainer.accumulate=8",
    ]
    words = [*small, *big, "trainer.eval_interval=1000000", "trainer.max_steps=1000000", "trainer.eval_batches=1"]
    run = tmp_path / "run"
    with open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "microgpt.train", *words, "tracking=off", f"hydra.run.dir={run}"],
            cwd=tmp_path,
            stdout=err,
            stderr=err,
        )
    deadline = time.monotonic() + 240
    while not (run / "run.json").exists() or not read_run(run).get("ready"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "the first signal waits for the step"
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(180) == 130
    assert time.monotonic() - sent < 1.5
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_a_tiny_model_beats_the_bigram_of_the_tales_by_a_tenth_of_a_bit(warm, tmp_path: Path) -> None:
    words = ["data=tales", "tokenizer=char", "model.n_layer=1", "model.n_embd=64", "model.block_size=64"]
    words += ["data.batch_size=16", "trainer.max_steps=150", "trainer.eval_interval=150", "sampling.num_samples=1"]
    warm("train", *words, "sampling.max_new_tokens=8", "device.threads=1", "hydra.run.dir=run")
    from microgpt.config.compose import compose

    config = compose(words)
    prepared = prepare_all(config.data, config.tokenizer, None, False, 64)
    simple = baselines([(p.train, p.val) for p in prepared.parts], prepared.tokenizer.vocab_size)
    facts = read_run(tmp_path / "run")
    bits = facts["best_val_bpb"] / facts["best_val_loss"]  # bits a byte of one nat a token
    assert facts["best_val_bpb"] < simple.bigram * bits - 0.1


def test_averaged_weights_are_what_is_validated_and_do_not_touch_training(
    warm, small: list[str], tmp_path: Path
) -> None:
    warm("train", *small, "optimizer.ema_decay=0.0", "hydra.run.dir=off")
    warm("train", *small, "optimizer.ema_decay=0.9", "hydra.run.dir=on")
    assert losses(tmp_path / "off") == losses(tmp_path / "on"), "the average must not change the training"
    off, on = (read_metrics(tmp_path / n)["val/loss"] for n in ("off", "on"))
    assert all(off[s] != on[s] for s in off)
    assert on[10] > off[10], "early on the average lags behind"
    from microgpt.checkpoints.tensors import read_header

    names = [
        set(read_header(find(tmp_path / n / "checkpoints", "best") / "weights.safetensors")[0]) for n in ("off", "on")
    ]
    assert names[0] == names[1]
    assert weights(tmp_path / "off") != weights(tmp_path / "on"), "a user takes the averaged weights home"


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_same_command_twice_gives_equal_bits(warm, small: list[str], tmp_path: Path, optimizer: str) -> None:
    words = [*small, f"optimizer={optimizer}", "model.dropout=0.1"]
    for name in ("a", "b"):
        warm("train", *words, f"hydra.run.dir={name}")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert read_metrics(tmp_path / "a")["val/loss"] == read_metrics(tmp_path / "b")["val/loss"]
    assert losses(tmp_path / "a")[-1] < losses(tmp_path / "a")[0]


def test_accumulation_equals_the_larger_batch(warm, small: list[str], tmp_path: Path) -> None:
    words = [w for w in small if not w.startswith("data.batch_size")] + ["trainer.max_steps=10"]
    warm("train", *words, "data.batch_size=4", "trainer.accumulate=2", "hydra.run.dir=two")
    warm("train", *words, "data.batch_size=8", "hydra.run.dir=one")
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert two[:5] == pytest.approx(one[:5], abs=1e-5)
    tokens = [read_metrics(tmp_path / n)["progress/tokens"] for n in ("one", "two")]
    assert tokens[0] == tokens[1]


def test_steps_per_call_is_invisible(warm, small: list[str], tmp_path: Path) -> None:
    for calls in (1, 7):
        warm("train", *small, f"trainer.steps_per_call={calls}", f"hydra.run.dir=calls-{calls}")
    assert weights(tmp_path / "calls-1") == weights(tmp_path / "calls-7")
    assert losses(tmp_path / "calls-1") == losses(tmp_path / "calls-7")


def test_unpacked_rows_train(warm, small: list[str], tmp_path: Path) -> None:
    warm("train", *small, "data.packing=false", "hydra.run.dir=run")
    values = losses(tmp_path / "run")
    assert len(values) == 40
    assert values[-1] < values[0]


def test_resuming_a_folder_that_is_not_there_starts_nothing(warm, small: list[str], tmp_path: Path) -> None:
    done = warm("train", *small, "resume=outputs/gone", code=4)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "outputs/gone" in line
    assert not (tmp_path / "outputs").exists()
