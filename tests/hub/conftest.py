"""What the hub's tests share: runs whose every number is fixed, models that say what is known, an app."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="textual is not installed")

import torch

from microgpt.checkpoints.folder import point, write_folder
from microgpt.checkpoints.model import model_files
from microgpt.config.build import plain
from microgpt.config.schema import ModelConfig, TrainConfig
from microgpt.hub.app import HubApp
from microgpt.model.gpt import GPT
from microgpt.runs.folder import CONFIG, LOG, METRICS, RUN, SAMPLES
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, END_TURN, Tokenizer
from microgpt.tokenizer.bpe import train_bpe

DAY = "outputs/2026-01-02"


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses of time are for two cores, whatever machine the pictures are compared on."""
    monkeypatch.setattr("microgpt.config.auto.cpu_threads", lambda: 2)


def saying(tokenizer: Tokenizer, first: int, ids: list[int]) -> GPT:
    """A GPT whose likeliest token after each one is set by hand: it writes `ids` after the id `first`."""
    torch.set_num_threads(1)
    width = -(-tokenizer.vocab_size // 8) * 8
    shape = ModelConfig(n_layer=1, n_head=4, n_embd=width, block_size=256, mlp="relu", mlp_hidden=8)
    model = GPT(shape, tokenizer.vocab_size)
    model.init_weights(1)
    with torch.no_grad():
        model.wte.zero_()
        model.wte[:, : tokenizer.vocab_size] = torch.eye(tokenizer.vocab_size)
        assert model.lm_head is not None
        model.lm_head.zero_()
        for before, after in itertools.pairwise([first, *ids]):
            model.lm_head[after, before] = 50.0
    return model.eval()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FOLDER/chat says `Helo, yué!` to everything, FOLDER/other `Bye.`, FOLDER/text writes `abcd` after an a."""
    folder = tmp_path_factory.mktemp("models")
    talks, text = train_bpe([], 261, (BOS, *CHAT_TOKENS)), train_bpe([], 257, (BOS,))
    end = talks.control[END_TURN]
    for name, words in (("chat", "Helo, yué!"), ("other", "Bye.")):
        model = saying(talks, talks.control["<assistant>"], [*talks.encode(words), end])
        meta = {"val": {"val/loss": 1.5, "val/bpb": 2.1}, "step": 40}
        write_folder(folder / name, model_files(model, talks, meta), 40)
    model = saying(text, text.bos, [*text.encode("abcd"), text.bos])
    write_folder(folder / "text", model_files(model, text, {}), 40)
    return folder


def write_run(
    path: Path,
    steps: int = 40,
    status: str = "FINISHED",
    floor: float = 1.0,
    started: str = "2026-01-02T10:00:00+0000",
    config: TrainConfig | None = None,
    metrics: Callable[[int], dict[str, float]] | None = None,
    **facts: Any,
) -> Path:
    """A run folder as training leaves it, its numbers made by formulas."""
    path.mkdir(parents=True)
    config = config or TrainConfig()

    def line(step: int) -> dict[str, float]:
        loss = floor + 2 * math.exp(-step / (steps / 4)) + 0.1 * math.sin(step)
        found = {"train/loss": loss, "train/lr": 0.01 * (1 - step / steps), "train/grad_norm": 1 / step}
        found |= {"perf/tokens_per_s": 1000.0 + step, "perf/steps_per_s": 10.0, "perf/step_ms": 100.0}
        found |= {"progress/tokens": 64.0 * step, "progress/eta_s": (steps - step) * 0.1}
        if step % 10 == 0:
            val = floor + 0.2 + 2 * math.exp(-step / (steps / 4))
            found |= {"val/loss": val, "val/gap": val - loss, "val/ppl": math.exp(val), "val/bpb": val / 2}
        return found

    rows = [
        {"step": s, "time": "2026-01-02T10:00:00+0000", "metrics": (metrics or line)(s)} for s in range(1, steps + 1)
    ]
    (path / METRICS).write_text("".join(json.dumps(row).replace("NaN", '"nan"') + "\n" for row in rows))
    told = {
        "stage": "train", "status": status, "pid": 1234, "started": started, "host": "elsewhere",
        "overrides": ["data=names", "model=micro"], "parameters": 4192, "vocab_size": 27, "steps": steps,
        "max_steps": steps, "tokens": 64 * steps, "train_seconds": 4.0, "device": "cpu",
        "best_val_loss": floor + 0.25, "best_val_bpb": floor / 2, "best_step": steps, **facts,
    }  # fmt: skip
    (path / RUN).write_text(json.dumps(told))
    (path / CONFIG).write_text(json.dumps(plain(config)))  # JSON is YAML
    (path / SAMPLES).write_text(
        json.dumps({"step": steps // 2, "samples": ["emma", "olivia"]})
        + "\n"
        + json.dumps({"step": steps, "samples": ["ava \x1b[31m", "noah"]})
        + "\n"
    )
    (path / "system.csv").write_text(
        "timestamp,pid,cpu_percent,proc_rss_kb,sys_mem_used_mb,sys_mem_free_mb,sys_mem_total_mb,step,step_total\n"
        + "".join(f"2026,1234,{50 + s % 7},512000,4000,4192,8192,{s},{steps}\n" for s in range(1, steps + 1, 4))
    )
    words = ["made ready", *(f"step {s}: val/loss {1 + 1 / s:.4f}" for s in range(1, 60)), "ended: an error"]
    (path / LOG).write_text("".join(f"2026-01-02T10:00:{i % 60:02}+0000 info {w}\n" for i, w in enumerate(words)))
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path) -> Path:
    """An empty folder that is the current one, far from the user's settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "NO_COLOR", "MICROGPT_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / ".cache"))
    return tmp_path


@pytest.fixture
def runs(place: Path, models: Path) -> Path:
    """Three runs: two that finished, of different shapes and with models, and one that failed; `beta` is newest."""
    small = TrainConfig()
    small.model = replace(small.model, n_layer=1, n_embd=16)
    write_run(place / DAY / "10-00-00-alpha", floor=1.0)
    write_run(place / DAY / "11-00-00-beta", floor=1.4, started="2026-01-02T11:00:00+0000", config=small)
    write_run(
        place / DAY / "09-00-00-broken", steps=4, status="FAILED", started="2026-01-02T09:00:00+0000",
        error="out of memory", best_val_loss=None, best_val_bpb=None,
    )  # fmt: skip
    for name, model in (("10-00-00-alpha", "chat"), ("11-00-00-beta", "other")):
        folder = place / DAY / name / "checkpoints"
        folder.mkdir()
        (folder / "step-000040").symlink_to(models / model)
        point(folder, "latest", folder / "step-000040")
        point(folder, "best", folder / "step-000040")
    return place


@pytest.fixture
def hub(place: Path) -> Iterator[Callable[..., HubApp]]:
    """Make an app; its processes end with the test."""
    made: list[HubApp] = []

    def make(**settings: Any) -> HubApp:
        made.append(HubApp(**{"ascii_only": False, "theme": "dark", **settings}))
        return made[-1]

    yield make
    for app in made:
        for child in app.launcher.children:
            child.process.kill()
            child.process.wait(10)
