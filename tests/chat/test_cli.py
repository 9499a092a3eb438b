"""Prior art's command lines run as written there, and a run on conversations leaves what it should."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from microgpt import files
from microgpt.checkpoints.model import load_weights, open_model
from microgpt.config.build import settings
from microgpt.config.schema import DataConfig, TrainConfig
from microgpt.data.documents import BadRows, read_documents
from microgpt.data.sources import find_sources
from microgpt.inference.chat import prompt_sheet
from microgpt.runs.find import model_path
from microgpt.runs.folder import read_config, read_run
from microgpt.tokenizer.base import CHAT_TOKENS

Microgpt = Callable[..., Any]
#: prior art's flags at sizes of a second; what stands behind is ours
TINY = [
    *("--n-embd", "16", "--n-head", "2", "--n-layer", "1", "--block-size", "48", "--batch-size", "2"),
    *("--vocab-size", "300"),
]
QUIET = ["tracking=off", "device.threads=1", "trainer.eval_batches=1", "sampling.max_new_tokens=8"]

#: the 31 fields of prior art A's train tab, in its order
FIELDS_OF_A = {
    "DATASET_PATH": "data.path",
    "TOKENIZER": "tokenizer.kind",
    "BPE_ENCODING": "tokenizer.encoding",
    "TOKEN_VOCAB_SIZE": "tokenizer.vocab_size",
    "N_LAYER": "model.n_layer",
    "N_EMBD": "model.n_embd",
    "N_HEAD": "model.n_head",
    "BLOCK_SIZE": "model.block_size",
    "NUM_STEPS": "trainer.max_steps",
    "LEARNING_RATE": "optimizer.learning_rate",
    "BETA1": "optimizer.beta1",
    "BETA2": "optimizer.beta2",
    "EPS_ADAM": "optimizer.eps",
    "VAL_SPLIT": "data.val_fraction",
    "EVAL_INTERVAL": "trainer.eval_interval",
    "EVAL_STEPS": "trainer.eval_batches",
    "EARLY_STOP_PATIENCE": "trainer.patience",
    "EARLY_STOP_MIN_DELTA": "trainer.min_delta",
    "TEMPERATURE": "sampling.temperature",
    "SAMPLE_COUNT": "sampling.num_samples",
    "SAMPLE_MAX_NEW_TOKENS": "sampling.max_new_tokens",
    "TOP_K": "sampling.top_k",
    "TOP_P": "sampling.top_p",
    "REPETITION_PENALTY": "sampling.repetition_penalty",
    "MIN_NEW_TOKENS": "sampling.min_new_tokens",
    "REPEAT_LAST_N": "sampling.repeat_last_n",
    "TRAIN_DEVICE": "device.name",
    "METRIC_INTERVAL": "trainer.log_interval",
    "LOG_LEVEL": "tracking.log_level",
    "VERBOSE": "tracking.progress",
    "MODEL_OUT_PATH": "hydra.run.dir",
}
#: the flags of prior art B's train
FLAGS_OF_B = {
    "--input": "data.path",
    "--output": "hydra.run.dir",
    "--steps": "trainer.max_steps",
    "--lr": "optimizer.learning_rate",
    "--warmup-steps": "optimizer.warmup_steps",
    "--seed": "seed",
    "--chat": "data.chat",
    "--skip-long": "data.skip_long",
    "--n-embd": "model.n_embd",
    "--n-head": "model.n_head",
    "--n-layer": "model.n_layer",
    "--block-size": "model.block_size",
    "--batch-size": "data.batch_size",
    "--vocab-size": "tokenizer.vocab_size",
    "--device": "device.name",
    "--dtype": "device.precision",
    "--resume": "resume",
    "--checkpoint-every": "trainer.checkpoint_interval",
}
DEFAULTS_OF_B = {
    "output": "output", "steps": 5000, "lr": 0.01, "warmup_steps": 200, "seed": 42, "chat": False, "skip_long": False,
    "n_embd": 64, "n_head": 4, "n_layer": 2, "block_size": 256, "batch_size": 8, "vocab_size": 4096,
    "device": "cpu", "dtype": "f32", "resume": "", "checkpoint_every": 0,
}  # fmt: skip


def talks(count: int, long: int = 0) -> list[Any]:
    made = [
        [{"role": "user", "content": f"How is number {i}?"}, {"role": "assistant", "content": f"Number {i} is well."}]
        for i in range(count)
    ]
    made += [
        [{"role": "user", "content": f"Tell me {i}"}, {"role": "assistant", "content": f"once {i} " * 60}]
        for i in range(long)
    ]
    return made


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps on conversations, made by prior art's command line."""
    folder = tmp_path_factory.mktemp("chat-run")
    rows = [json.dumps(row) for row in talks(60, long=5)]
    (folder / "talks.jsonl").write_text("\n".join(rows) + "\n")
    train(
        folder,
        "--input",
        "talks.jsonl",
        "--output",
        "run",
        "--steps",
        "10",
        "--chat",
        "--skip-long",
        *TINY,
        "trainer.eval_interval=2",
    )
    return folder / "run"


def train(folder: Path, *words: str) -> None:
    """`microgpt train` in a folder, in this process."""
    from microgpt.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["microgpt", "train", *words, *QUIET])
        with pytest.raises(SystemExit) as ended:
            main()
        torch.use_deterministic_algorithms(False)
    assert ended.value.code == 0


def steps_of(run: Path) -> int:
    return int(read_run(run)["steps"])


# ---- the table of settings


def test_every_field_and_flag_of_prior_art_is_a_setting() -> None:
    known = {*settings(TrainConfig), "hydra.run.dir"}
    assert len(FIELDS_OF_A) == 31
    assert not set(FIELDS_OF_A.values()) - known
    assert not set(FLAGS_OF_B.values()) - known


def test_train_has_the_flags_and_defaults_of_prior_art() -> None:
    import inspect

    import typer

    from microgpt import cli

    command: Any = typer.main.get_command(cli.app)
    flags = {flag for p in command.commands["train"].params for flag in p.opts}
    assert not set(FLAGS_OF_B) - flags
    has = {k: p.default for k, p in inspect.signature(cli.stages.train).parameters.items()}
    assert {k: has[k] for k in DEFAULTS_OF_B} == DEFAULTS_OF_B


# ---- train


def test_every_flag_of_train_reaches_the_run(microgpt: Microgpt, tmp_path: Path) -> None:
    (tmp_path / "tales.txt").write_text("".join(f"the cat number {i} sat on the mat\n" for i in range(80)))
    words = ["--input", "tales.txt", "--output", "out", "--steps", "6", "--lr", "0.02", "--warmup-steps", "2"]
    words += ["--seed", "7", "--skip-long", "--device", "cpu", "--dtype", "bf16", "--checkpoint-every", "2"]
    done = microgpt("train", *words, *TINY, *QUIET)
    config = read_config(tmp_path / "out")
    got = {"seed": config["seed"]}
    for group in ("data", "model", "optimizer", "trainer", "device", "tokenizer"):
        got |= {f"{group}.{key}": value for key, value in config[group].items()}
    wanted = {
        "data.path": ["tales.txt"], "trainer.max_steps": 6, "optimizer.learning_rate": 0.02, "seed": 7,
        "optimizer.warmup_steps": 2, "data.skip_long": True, "device.name": "cpu", "device.precision": "bf16",
        "trainer.checkpoint_interval": 2, "model.n_embd": 16, "model.n_head": 2, "model.n_layer": 1,
        "model.block_size": 48, "data.batch_size": 2, "tokenizer.vocab_size": 300,
    }  # fmt: skip
    assert {k: got[k] for k in wanted} == wanted
    assert steps_of(tmp_path / "out") == 6
    assert "step-000006" in [p.name for p in (tmp_path / "out" / "checkpoints").iterdir()]
    line = done.stderr.splitlines()[0]
    assert line.startswith("$ python -m microgpt.train ")
    typed = shlex.split(line)[4:]
    assert {w.partition("=")[0] for w in typed} >= set(wanted) - {"device.name"} | {"hydra.run.dir"}


def test_the_printed_command_is_the_same_run(microgpt: Microgpt, tmp_path: Path, monkeypatch: Any) -> None:
    from microgpt.train import main

    (tmp_path / "my tales (1), = 'x'.txt").write_text("".join(f"the cat {i} sat on the mat\n" for i in range(40)))
    words = ["--input", "my tales (1), = 'x'.txt", "--output", "my run", "--steps", "3", *TINY, *QUIET]
    done = microgpt("train", *words)
    again = [w for w in shlex.split(done.stderr.splitlines()[0])[4:] if not w.startswith("hydra.run.dir=")]
    monkeypatch.setattr(sys, "argv", ["microgpt.train", *again, "hydra.run.dir=again"])
    assert main() == 0
    one, other = (load_weights(open_model(model_path(str(tmp_path / name)))) for name in ("my run", "again"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_warm_up_may_be_longer_than_the_run(microgpt: Microgpt, tmp_path: Path) -> None:
    microgpt("train", "--steps", "2", "--output", "out", "data=names", *TINY, *QUIET)
    assert steps_of(tmp_path / "out") == 2
    assert "names.txt" in str(read_run(tmp_path / "out")["data"]["sources"])


@pytest.mark.parametrize(("words", "source"), [([], "tales.txt"), (["--chat"], "conversations.jsonl")])
def test_a_train_without_input_takes_the_embedded_data(
    microgpt: Microgpt, tmp_path: Path, words: list[str], source: str
) -> None:
    microgpt("train", *words, "--steps", "2", *TINY, *QUIET)
    assert Path(read_run(tmp_path / "output")["data"]["sources"][0]["path"]).name == source


def test_metal_means_mps_and_is_one_clear_line_where_there_is_none(microgpt: Microgpt) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    done = microgpt("train", "--device", "metal", "--steps", "2", *TINY, *QUIET, code=2)
    command, *rest = done.stderr.strip().splitlines()
    assert "device=mps" in command
    assert len(rest) == 1
    assert rest[0].startswith("error: device=mps: there is no Apple GPU here - ")


def test_chat_reads_jsonl_whatever_the_file_is_called(microgpt: Microgpt, tmp_path: Path, write_rows: Any) -> None:
    write_rows(*talks(30), name="talks.txt")
    microgpt("train", "--input", "talks.txt", "--chat", "--output", "out", "--steps", "2", *TINY, *QUIET)
    assert open_model(model_path(str(tmp_path / "out"))).tokenizer.is_chat


def test_chat_on_a_file_without_conversations_is_refused(microgpt: Microgpt, tmp_path: Path) -> None:
    (tmp_path / "tales.jsonl").write_text("".join(json.dumps({"text": f"tale {i}"}) + "\n" for i in range(30)))
    words = ["--input", "tales.jsonl", "--chat", "--output", "out", "--steps", "2", *TINY, *QUIET]
    done = microgpt("train", *words, code=3)
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


# ---- a run on conversations


def test_a_chat_run_counts_what_it_left_out(chat_run: Path) -> None:
    facts = read_run(chat_run)["data"]
    assert facts["conversations"]["skipped_long"] == 5
    assert facts["train"]["documents"] + facts["val"]["documents"] == 60
    assert open_model(model_path(str(chat_run))).tokenizer.is_chat


def test_a_chat_run_replies_to_the_prompt_sheet_over_training(chat_run: Path) -> None:
    lines = [json.loads(line) for line in (chat_run / "samples.jsonl").read_text().splitlines()]
    assert len(lines) > 1
    for line in lines:
        assert line["prompts"] == prompt_sheet()
        assert len(line["samples"]) == len(line["prompts"])
    assert lines[-1]["final"]


def test_resume_takes_additional_steps_and_checks_data_and_mode(
    chat_run: Path, microgpt: Microgpt, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(chat_run.parent, tmp_path, dirs_exist_ok=True)
    microgpt("train", "--resume", "run", "--steps", "4", "--input", "talks.jsonl", "--chat", *QUIET)
    assert steps_of(tmp_path / "run") == 14
    assert read_run(tmp_path / "run")["data"]["conversations"]["skipped_long"] == 5  # --skip-long is not forgotten
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps(row) for row in talks(40)) + "\n")
    microgpt("train", "--resume", "run", "--steps", "4", "--input", "other.jsonl", *QUIET, code=3)
    assert steps_of(tmp_path / "run") == 14


def test_resume_of_a_text_model_as_chat_is_refused(microgpt: Microgpt, tmp_path: Path) -> None:
    microgpt("train", "--steps", "2", "--output", "text", "data=names", *TINY, *QUIET)
    done = microgpt("train", "--resume", "text", "--steps", "2", "--chat", *QUIET, code=4)
    assert "not trained for chat" in done.stderr


@pytest.mark.parametrize("name", ["run", "run/checkpoints/step-000010"])
def test_model_dir_takes_a_run_or_a_checkpoint(
    chat_run: Path, microgpt: Microgpt, monkeypatch: Any, name: str
) -> None:
    monkeypatch.chdir(chat_run.parent)
    done = microgpt("generate", "--model-dir", name, "--num-samples", "3", "--temperature", "0.9")
    assert done.stdout.count("\n") >= 3
    assert "1 layers x 16 wide x 2 heads" in microgpt("info", "--model-dir", name).stdout
    said = microgpt("chat", "--model-dir", name, "--temperature", "0.5", stdin="Hi\n/clear\nHi\n/quit\nlost\n")
    assert said.stdout.count("(forgotten)") == 1


def test_export_halves_the_weights_and_talks_on(chat_run: Path, microgpt: Microgpt, tmp_path: Path) -> None:
    microgpt("export", "--model-dir", str(chat_run), "--output", "full", "tracking=off")
    done = microgpt("export", "--model-dir", str(chat_run), "--output", "half", "--half", "tracking=off")
    assert done.stderr.startswith("$ python -m microgpt.export ")
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    assert open_model(tmp_path / "half").meta["dtype"] == "f16"
    assert microgpt("info", "--model-dir", "half").stdout
    microgpt("chat-once", "half", "Hi", "--max-new-tokens", "5")
    microgpt("chat", "--model-dir", "half", stdin="Hi\n")
    microgpt("generate", "--model-dir", "half", "--num-samples", "1")


# ---- validate-dataset


def test_validate_dataset_says_path_records_and_kinds(microgpt: Microgpt, write_rows: Any) -> None:
    rows = [{"id": f"k{i}", "record_type": "knowledge", "text": f"fact {i}"} for i in range(5)]
    rows += [{"id": f"q{i}", "record_type": "qa", "question": f"why {i}?", "answer": "so"} for i in range(3)]
    done = microgpt("validate-dataset", str(write_rows(*rows, name="my records (1).jsonl")), "tracking=off")
    shown = " ".join((done.stdout + done.stderr).split())
    assert "my records (1).jsonl" in shown.replace("\\", "")
    assert "8 (5 knowledge, 3 qa)" in shown


def test_validate_dataset_says_what_the_clean_up_left_out(microgpt: Microgpt, write_rows: Any) -> None:
    rows = [[*row, {"role": "user", "content": "and?"}] for row in talks(12)]
    path = write_rows(*rows, [{"role": "user", "content": "Anybody?"}])
    done = microgpt("validate-dataset", str(path), "tracking=off")
    shown = " ".join((done.stdout + done.stderr).split())
    assert "1 conversations without a reply" in shown or "1 conversation without a reply" in shown
    assert "12 turns after the last reply" in shown


# ---- fine-tuning


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text-run")
    (folder / "tales.txt").write_text("".join(f"How is number {i}? Number {i} is well.\n" for i in range(60)))
    train(folder, "--input", "tales.txt", "--output", "run", "--steps", "6", *TINY)
    return folder / "run"


#: so small a rate that weights stay as they were in float32
STILL = ["optimizer=adamw", "optimizer.learning_rate=1e-30", "trainer.max_steps=1", "trainer.eval_interval=1"]


def test_fine_tuning_takes_shape_and_tokenizer_and_grows_the_embedding(
    text_run: Path, tmp_path: Path, write_rows: Any, monkeypatch: Any
) -> None:
    from microgpt.train import main

    monkeypatch.chdir(tmp_path)
    data = write_rows(*talks(40))
    overrides = [f"init_from={text_run}", f"data.path={data}", "hydra.run.dir=tuned", *STILL, *QUIET]
    monkeypatch.setattr(sys, "argv", ["microgpt.train", *overrides])
    assert main() == 0
    before, after = open_model(model_path(str(text_run))), open_model(model_path(str(tmp_path / "tuned")))
    assert after.config == before.config
    assert not before.tokenizer.is_chat
    assert after.tokenizer.is_chat
    assert after.vocab_size == before.vocab_size + len(CHAT_TOKENS)
    text = "How is number 7? <user>"
    assert after.tokenizer.encode(text) == before.tokenizer.encode(text)
    old, new = (dict(load_weights(m).named_parameters()) for m in (before, after))
    assert set(old) == set(new)
    for name, weight in old.items():
        assert torch.equal(new[name][: len(weight)], weight), name
    for name in ("wte", "lm_head"):
        grown = new[name][before.vocab_size :]
        assert torch.allclose(grown, old[name].mean(0).expand_as(grown), atol=1e-6)
    assert read_run(tmp_path / "tuned")["data"]["conversations"]["dropped"] == 0


@pytest.mark.parametrize(
    "words", [["model.n_embd=32"], ["model.n_layer=3"], ["model.block_size=64"], ["model=small"]], ids=str
)
def test_fine_tuning_to_another_shape_is_exit_4(
    text_run: Path, tmp_path: Path, write_rows: Any, monkeypatch: Any, capsys: Any, words: list[str]
) -> None:
    from microgpt.train import main

    monkeypatch.chdir(tmp_path)
    data = write_rows(*talks(40))
    overrides = [f"init_from={text_run}", f"data.path={data}", "hydra.run.dir=tuned", *STILL, *words, *QUIET]
    monkeypatch.setattr(sys, "argv", ["microgpt.train", *overrides])
    assert main() == 4
    assert "has another shape" in capsys.readouterr().err


def test_fine_tuning_from_nothing_is_exit_4(microgpt: Microgpt) -> None:
    done = microgpt("train", "--steps", "2", *TINY, "init_from=nowhere", *QUIET, code=4)
    assert "nowhere" in done.stderr.splitlines()[-1]


# ---- the embedded conversations


def test_the_embedded_conversations_are_many_valid_short_and_different() -> None:
    path = files.shipped("corpora") / "conversations.jsonl"
    config, bad = DataConfig(path=[str(path)]), BadRows()
    documents = list(read_documents(find_sources(config), config, bad))
    assert len(documents) >= 300
    assert (bad.total, bad.dropped, bad.trimmed) == (0, 0, 0)
    assert len({d.turns for d in documents}) == len(documents)
    for document in documents:
        assert len(document.text) < 2000
        roles = [role for role, _ in document.turns if role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert any(len(d.turns) >= 4 for d in documents)
    assert any(d.turns[0][0] == "system" for d in documents)
