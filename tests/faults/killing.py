"""The kill harness: a training that is killed again and again, loses what was not synced, and goes on each time."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from power import cut
from warm import Warm

from microgpt.checkpoints.folder import checkpoints_in, is_whole
from runs import RUN, assert_equal, torn

INSIDE = """
import os, sys
from pathlib import Path
exec(open({power!r}).read())
shadow = Shadow(Path.cwd(), Path({store!r}))
os.fsync = shadow.fsync
import microgpt.training.saving as saving
saves = operations = 0
saving_now = False
def operation():
    global operations
    if saving_now and saves >= {save}:
        operations += 1
        if operations == {operation}:
            os.kill(os.getpid(), 9)
def heard(event, args):
    if event.startswith(("os.", "open", "shutil.", "ctypes.call")):
        operation()
synced = shadow.fsync
def fsync(handle):
    operation()
    synced(handle)
os.fsync = fsync
real = saving.Saving._save
def save(self, trainer, module):
    global saves, saving_now
    saves, saving_now = saves + 1, True
    real(self, trainer, module)
    saving_now = False
    with open({announced!r}, "a") as file:
        file.write(str(module.steps_done) + "\\n")
saving.Saving._save = save
sys.addaudithook(heard)
"""
NEVER = 10**9


@dataclass
class Tally:
    """What has happened so far, for the test to look at."""

    kills: int = 0
    in_a_save: int = 0
    power_cuts: int = 0
    damaged: int = 0
    runs: int = 0


class Harness:
    """Kills a run until there were enough kills, and holds every promise against what is left each time.

    Args:
        warm: starts the trainings.
        home: an empty folder.
        unbroken: the run that nothing happened to.
        seed: of everything that is drawn.
        ends: what a kill can be: only that, or a power cut of one kind or the other.
        spoiling: how often the newest checkpoint is damaged afterwards.
    """

    def __init__(
        self,
        warm: Warm,
        home: Path,
        unbroken: Path,
        seed: int,
        ends: tuple[str, ...] = ("kill", "strictly", "names"),
        spoiling: float = 0.4,
    ) -> None:
        self.ends, self.spoiling = ends, spoiling
        self.warm, self.unbroken, self.draw = warm, unbroken, random.Random(seed)
        self.home, self.notes, self.store = home / "home", home / "announced", home / "shadow"
        self.run = self.home / "run"
        self.home.mkdir()
        self.tally = Tally()
        self.announced = 0
        self.spoilt: set[str] = set()

    def torment(self, kills: int) -> Tally:
        """Kill so many times, half of them inside a save, and let the last run end."""
        while self.tally.kills < kills:
            self.announced = 0
            self.spoilt = set()
            shutil.rmtree(self.run, ignore_errors=True)
            while not self._life(self.tally.kills < kills):
                pass
            assert_equal(self.unbroken, self.run)
            self.tally.runs += 1
        return self.tally

    def _life(self, deadly: bool) -> bool:
        """Start or resume the run and kill it; true where it came to its end."""
        draw = self.draw
        in_a_save = deadly and self.tally.kills % 2 == 0
        shutil.rmtree(self.store, ignore_errors=True)
        self.notes.write_text("")
        code = INSIDE.format(
            power=str(Path(__file__).with_name("power.py")),
            store=str(self.store),
            announced=str(self.notes),
            save=draw.randint(1, 4) if in_a_save else NEVER,
            operation=draw.randint(1, 90),
        )
        there = checkpoints_in(self.run / "checkpoints")
        going_on = any(path.name not in self.spoilt for _, path in there)
        whole = max((step for step, path in there if path.name not in self.spoilt), default=0)
        passed_over = {path.name for step, path in there if step > whole}
        if not going_on:
            assert not self.announced, "a checkpoint that was there is gone"
            shutil.rmtree(self.run, ignore_errors=True)
        child = self.warm.start("train", *(["resume=run"] if going_on else RUN), cwd=self.home, before=code)
        if deadly and not in_a_save:
            time.sleep(draw.uniform(0.0, 1.2))
            child.signal(9)
        ended = child.wait()
        assert ended in (0, -9), f"it could not go on: exit {ended}\n{child.said}"
        assert "Traceback" not in child.said
        if passed_over and (ended == 0 or self.notes.read_text()):  # it lived long enough to say so
            assert all(f"{name}/" in child.said for name in passed_over), f"{passed_over} in\n{child.said}"
        if ended == 0:
            return True
        self.tally.kills += 1
        self.tally.in_a_save += in_a_save
        self._afterwards()
        return False

    def _afterwards(self) -> None:
        """The power fails, or does not; everything that was saved must be there."""
        kind = self.draw.choice(self.ends)
        if kind != "kill" and self.store.exists():
            cut(self.home, self.store, kind == "strictly")
            self.tally.power_cuts += 1
        self.announced = max([self.announced, *map(int, self.notes.read_text().split())])
        folder = self.run / "checkpoints"
        self.spoilt = {name for name in self.spoilt if (folder / name).exists() and not is_whole(folder / name)}
        wrong = [line for line in torn(folder) if line.split("/")[0] not in self.spoilt]
        assert not wrong, f"a torn checkpoint can be seen: {wrong}"
        whole = [step for step, path in checkpoints_in(folder) if is_whole(path)]
        assert max(whole, default=0) >= self.announced, f"step {self.announced} was saved, and there is {whole}"
        if len(whole) > 1 and self.draw.random() < self.spoiling:
            self._spoil(folder / f"step-{whole[-1]:06d}")
            self.announced = whole[-2]

    def _spoil(self, checkpoint: Path) -> None:
        """Flip a bit in the last numbers of a tensor file."""
        path = checkpoint / self.draw.choice(["weights.safetensors", "optimizer.safetensors"])
        content = bytearray(path.read_bytes())
        content[-4 * self.draw.randint(1, 100) - 2] ^= 1 << self.draw.randrange(7)
        path.write_bytes(content)
        self.spoilt.add(checkpoint.name)
        self.tally.damaged += 1
