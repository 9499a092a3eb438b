"""A loss that jumps is seen, and memory that runs out is answered; both go on as before after a resume (T9, T11)."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path

import pytest
from warm import Warm

from microgpt.checkpoints.folder import find
from microgpt.runs.folder import read_metrics, read_run
from microgpt.training.memory import smaller
from microgpt.training.spikes import Spikes
from runs import RUN, assert_equal, at_call, log, logged_steps, tensors

# ---- spikes


def test_a_spike_is_what_lies_above_mean_and_six_sigma_of_the_128_before() -> None:
    draw = random.Random(3)
    spikes, before = Spikes(), []
    found = 0
    for number in range(2000):
        loss = draw.gauss(3.0, 0.1) * (100 if number in (130, 700, 1500) else 1 + 0.4 * (number % 97 == 0))
        expected = False
        if len(before) >= 128:
            window = before[-128:]
            limit = statistics.fmean(window) + 6 * statistics.pstdev(window)
            assert spikes.limit() == pytest.approx(limit, rel=1e-9)
            expected = loss > limit
        else:
            assert spikes.limit() == math.inf
        assert spikes.is_spike(loss) == expected
        before.append(loss)
        found += expected
    assert spikes.count == found > 3


def test_where_the_loss_hardly_moves_rounding_is_no_spike() -> None:
    spikes = Spikes()
    assert not any(spikes.is_spike(2.0 + 1e-7 * (n % 2)) for n in range(400))
    assert spikes.is_spike(2.02)


def test_a_loss_that_stays_high_is_soon_no_spike() -> None:
    """So skipping cannot hold a run for ever."""
    spikes = Spikes()
    draw = random.Random(1)
    for _ in range(200):
        spikes.is_spike(draw.gauss(1.0, 0.05))
    assert sum(spikes.is_spike(100.0) for _ in range(200)) < 10


def test_the_state_of_the_detector_comes_back_bit_by_bit() -> None:
    draw = random.Random(2)
    whole, parted = Spikes(), Spikes()
    for _ in range(500):
        loss = draw.lognormvariate(0, 1)
        again = Spikes()
        again.restore(json.loads(json.dumps(parted.to_json())))
        parted = again
        assert whole.limit() == parted.limit()
        assert whole.is_spike(loss) == parted.is_spike(loss)


SPIKY = [
    *("data.path=spiky.txt", "data.document=file", "data.batch_size=1", "trainer.accumulate=1"),
    *("trainer.max_steps=300", "trainer.eval_interval=100", "trainer.checkpoint_interval=25"),
]
NOT_SPIKY = ("data=", "data.batch_size", "trainer.accumulate", "trainer.max_steps", "trainer.eval_interval")
SMALL = [w for w in RUN if not w.startswith((*NOT_SPIKY, "trainer.checkpoint_interval"))]


@pytest.fixture(scope="module")
def spiky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that is soon learned, with noise in one place: the row that has it is a spike whenever it comes."""
    draw = random.Random(0)
    text = list("ab" * 4000)
    text[4000:4096] = [draw.choice("cdefghijklmnopqrstuvwxyz") for _ in range(96)]
    path = tmp_path_factory.mktemp("spiky") / "spiky.txt"
    path.write_text("".join(text))
    return path


def spike_lines(run: Path) -> list[str]:
    return [line.split(" info ", 1)[1] for line in log(run).splitlines() if " spike at step " in line]


def test_spikes_are_logged_with_their_documents_and_left_out_where_that_is_asked(
    warm: Warm, spiky: Path, tmp_path: Path
) -> None:
    words = [*SMALL, *SPIKY[1:], f"data.path={spiky}"]
    said = warm.run("train", *words, cwd=tmp_path)
    run = tmp_path / "run"
    lines = spike_lines(run)
    assert lines
    for line in lines:
        step = int(line.split("spike at step ")[1].split(":")[0])
        assert step > 128
        assert f"loss {read_metrics(run)['train/loss'][step]:g} is above " in line
        assert "; documents 0" in line
        assert "left out" not in line
        assert f"note: {line}" in said
    skipping = [*words[:-1], words[-1], "trainer.skip_spikes=true", "hydra.run.dir=skipping"]
    warm.run("train", *skipping, cwd=tmp_path)
    left_out = spike_lines(tmp_path / "skipping")
    assert all(line.endswith("its update is left out") for line in left_out)
    first = int(lines[0].split("spike at step ")[1].split(":")[0])
    a, b = (read_metrics(tmp_path / name)["train/loss"] for name in ("run", "skipping"))
    assert all(a[s] == b[s] for s in range(1, first + 1))
    assert a[first + 1] != b[first + 1]
    assert max(b) == 300, "a step without an update is a step"


def test_a_run_killed_before_a_spike_sees_it_after_the_resume(warm: Warm, spiky: Path, tmp_path: Path) -> None:
    words = [*SMALL, *SPIKY[1:], f"data.path={spiky}", "trainer.skip_spikes=true"]
    warm.run("train", *words, "hydra.run.dir=whole", cwd=tmp_path)
    (first, *_) = [int(line.split("spike at step ")[1].split(":")[0]) for line in spike_lines(tmp_path / "whole")]
    kill = (
        "import os\nfrom microgpt.training.module import GPTModule as M\nreal = M._update\n"
        f"def update(self, step, *more):\n    if step + 1 == {first - 1}: os.kill(os.getpid(), 9)\n"
        "    return real(self, step, *more)\nM._update = update"
    )
    assert warm.start("train", *words, cwd=tmp_path, before=kill).wait() == -9
    warm.run("train", "resume=run", cwd=tmp_path)
    assert spike_lines(tmp_path / "run") == spike_lines(tmp_path / "whole")
    assert_equal(tmp_path / "whole", tmp_path / "run")


# ---- out of memory

BIG = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=32", "model.n_head=2", "model.block_size=128"),
    *("data.batch_size=1024", "trainer.max_steps=3", "trainer.eval_interval=3", "trainer.eval_batches=1"),
    *("tracking=off", "device=cpu", "device.threads=1", "sampling.num_samples=1", "sampling.max_new_tokens=4"),
    *("trainer.steps_per_call=1", "trainer.checkpoint_interval=1", "hydra.run.dir=run"),
]
#: no more memory than now and a bit; with 340 MB 128 rows fit, which end at about 235, and 256 do not, from about 450
LIMIT = """
import resource
with open("/proc/self/status") as file:
    now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + {megabytes} * 2**20, resource.RLIM_INFINITY))
"""


def test_a_smaller_micro_batch_keeps_the_rows_of_a_step() -> None:
    assert smaller(8, 3) == (4, 6)
    assert smaller(15, 1) == (5, 3)
    assert smaller(7, 2) == (1, 14)
    assert smaller(1, 2) is None
    for rows in range(2, 200):
        fitting = smaller(rows, 3)
        assert fitting is not None
        assert fitting[0] * fitting[1] == rows * 3
        assert fitting[0] < rows


def test_out_of_memory_is_one_line_that_names_the_keys_to_lower(warm: Warm, tmp_path: Path) -> None:
    said = warm.run("train", *BIG, cwd=tmp_path, code=8, before=LIMIT.format(megabytes=340))
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    for key in ("data.batch_size=1024", "trainer.accumulate", "model.block_size", "trainer.auto_micro_batch=true"):
        assert key in line
    assert read_run(tmp_path / "run")["status"] == "FAILED"


def test_a_model_larger_than_memory_is_out_of_memory_too(warm: Warm, tmp_path: Path) -> None:
    words = [*BIG, "data.batch_size=1", "model.n_embd=8192", "model.n_layer=8"]
    said = warm.run("train", *words, cwd=tmp_path, code=8, before=LIMIT.format(megabytes=340))
    assert "model.n_embd" in said.splitlines()[-1]


def micro_batch(run: Path) -> tuple[int, int]:
    """Rows of a run's micro-batches, and how many make a step, as its newest checkpoint has them."""
    state = json.loads((find(run / "checkpoints", "latest") / "training_state.json").read_text())
    return state["progress"]["micro_batch"]["rows"], state["progress"]["micro_batch"]["accumulate"]


def test_auto_micro_batch_goes_on_in_smaller_ones_with_the_same_rows(warm: Warm, tmp_path: Path) -> None:
    auto = [*BIG, "trainer.auto_micro_batch=true"]
    said = warm.run("train", *auto, cwd=tmp_path, before=LIMIT.format(megabytes=340))
    run = tmp_path / "run"
    rows, times = micro_batch(run)
    assert rows * times == 1024
    assert rows < 1024
    assert "note: out of memory at step 1" in said
    assert f"{rows} rows, accumulated {times} times" in log(run)
    chosen = [f"data.batch_size={rows}", f"trainer.accumulate={times}", "trainer.eval_batches=4"]
    warm.run("train", *BIG, *chosen, "hydra.run.dir=chosen", cwd=tmp_path)
    assert tensors(tmp_path / "chosen") == tensors(run)
    assert read_metrics(tmp_path / "chosen")["train/loss"] == read_metrics(run)["train/loss"]

    # with memory enough a resumed run goes on in the micro-batches that it was saved with
    kill = at_call("microgpt.training.saving", "prune", 2)
    words = [*auto, "hydra.run.dir=again"]
    assert warm.start("train", *words, cwd=tmp_path, before=LIMIT.format(megabytes=340) + kill).wait() == -9
    rows, times = micro_batch(tmp_path / "again")
    warm.run("train", "resume=again", cwd=tmp_path)
    assert micro_batch(tmp_path / "again") == (rows, times)
    same = [f"data.batch_size={rows}", f"trainer.accumulate={times}", "trainer.eval_batches=4"]
    warm.run("train", *BIG, *same, "hydra.run.dir=same", cwd=tmp_path)
    assert tensors(tmp_path / "again") == tensors(tmp_path / "same")
    assert logged_steps(tmp_path / "again")[-1] == 3
