"""A sweep from its first trial to its table. Started again on the same folder it goes on where it stood."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import errors, files, runtime
from microgpt.config.compose import from_hydra, hydra_mistake
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.runs.find import Run
from microgpt.runs.folder import FAILED, FINISHED, KILLED, PRUNED, RUN, RUNNING, read_run
from microgpt.sweeps.after import compare
from microgpt.sweeps.grid import Grid
from microgpt.sweeps.proposal import Chooser, Outcome, Proposal
from microgpt.sweeps.search import Search, space_of
from microgpt.sweeps.table import TrialBar, row_of, rows_of, show
from microgpt.sweeps.trial import NOTE, STOP, Trial, read_trial, settings_key, standing
from microgpt.tracking.start import PARENT, end_parent, start_parent

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig

RECORD = "sweep.json"
DONE = (FINISHED, PRUNED)
#: who chooses the trials, by the name in the config
KINDS: dict[str, type[Grid] | type[Search]] = {"grid": Grid, "optuna": Search}
#: the submitit launcher's files: what it exchanges with its workers, and what those have printed
TRANSPORT = ".submitit"
STOPS = {errors.SIGINT: "SIGINT", errors.SIGTERM: "SIGTERM"}
LOOK_SECONDS = 0.5


@dataclass
class Job:
    """A trial with its place.

    Attributes:
        proposal: its settings.
        folder: its run folder.
        trial: the note in it.
        code: exit code of its process, 0 where it has not run.
        before: when an earlier attempt at it ended.
    """

    proposal: Proposal
    folder: Path
    trial: Trial
    code: int = 0
    before: str = ""

    @property
    def ended(self) -> str:
        """When the last attempt at it ended, or nothing."""
        return str(read_run(self.folder).get("ended", "")) if (self.folder / RUN).exists() else ""

    @property
    def status(self) -> str:
        """How it ended; KILLED is what can go on."""
        known = standing(self.folder)
        if known in DONE:
            return known
        return FAILED if self.code and self.code not in STOPS else KILLED

    @property
    def val_loss(self) -> float:
        """Its best validation loss in nats a token, infinity where there is none."""
        return Run(self.folder, read_run(self.folder) if (self.folder / RUN).exists() else {}).val_loss


class Sweep:
    """The trials of one command line.

    Args:
        context, master, launcher: Hydra's.
        arguments: the words of the command line, without those for Hydra itself.

    Raises:
        UsageError: something is wrong with the settings of any trial; nothing has been made then.
    """

    def __init__(self, context: HydraContext, master: DictConfig, launcher: Any, arguments: list[str]) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self.context, self.master, self.launcher = context, master, launcher
        self.words = OverridesParser.create(config_loader=context.config_loader).parse_overrides(arguments)
        self.folder = Path(os.path.relpath(str(master.hydra.sweep.dir)))
        #: whether trials run in this very process
        self.inside = type(launcher).__name__ == "BasicLauncher"
        self.joblib = type(launcher).__name__ == "JoblibLauncher"
        # a process that begins would die of Ctrl-C, and so would the one that submitit puts above each trial, which
        # then interrupts it twice; a trial hears it once it can save
        starts = self.joblib or type(launcher).__name__ == "LocalLauncher"
        self.deaf = {signal.SIGINT} if starts else set[signal.Signals]()
        workers = master.hydra.launcher.get("n_jobs")
        self.workers = runtime.usable_cores() if workers == -1 else int(workers or 1)
        self.signals = runtime.StopSignals()
        self.record: dict[str, Any] = {}
        self.jobs: list[Job] = []
        self._composed: dict[tuple[str, ...], tuple[TrainConfig, DictConfig]] = {}
        plain = [w.input_line or "" for w in self.words if not w.is_sweep_override()]
        self.base = self.composed(plain)[0]  # what all trials have in common
        if self.base.sweep.kind not in KINDS:
            kind = self.base.sweep.kind
            raise UsageError(f"sweep.kind={kind}: comes from a file", f"say sweep={kind} on the command line")
        self.searching = KINDS[self.base.sweep.kind] is Search
        self.grid = None if self.searching else Grid(self.words)
        self.space = space_of(self.words) if self.searching else {}
        for proposal in self.grid.proposals if self.grid else []:
            self.composed(proposal.overrides)

    def composed(self, overrides: list[str]) -> tuple[TrainConfig, DictConfig]:
        """The typed config of a trial, and Hydra's."""
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        if tuple(overrides) not in self._composed:
            try:
                found = self.context.config_loader.load_sweep_config(self.master, overrides)
            except (HydraException, OmegaConfBaseException) as error:
                raise hydra_mistake(error) from error
            own = OmegaConf.masked_copy(found, [str(key) for key in found if key != "hydra"])
            self._composed[tuple(overrides)] = from_hydra("train", own, overrides), found
        return self._composed[tuple(overrides)]

    def place(self, overrides: list[str], number: int) -> Path:
        """The run folder of a trial, as hydra.sweep.subdir says."""
        from omegaconf import OmegaConf, open_dict

        found = self.composed(overrides)[1]
        with open_dict(found):
            found.hydra.job.num, found.hydra.job.id = number, str(number)
        return self.folder / str(OmegaConf.select(found, "hydra.sweep.subdir"))

    def read_record(self) -> None:
        """Read what is there of an earlier start.

        Raises:
            UsageError: it was a search through something else.
        """
        with suppress(OSError, ValueError):
            self.record = dict(files.read_json(self.folder / RECORD))
        typed = sorted(w.input_line or "" for w in self.words if w.is_sweep_override())
        told = {"kind": self.base.sweep.kind}
        if self.searching:
            told |= {"space": typed, "base": settings_key(self.base)}
        if self.record and any(self.record.get(key) != value for key, value in told.items()):
            raise UsageError(
                f"{self.folder} holds another sweep: {self.record.get('command', '')}"[:400],
                "start it again with the same words, or choose another folder with hydra.sweep.dir=",
            )
        words = shlex.join(["python", "-m", "microgpt.train", *sys.argv[1:]])
        if not any(word.startswith("hydra.sweep.dir=") for word in sys.argv):
            words += f" hydra.sweep.dir={shlex.quote(str(self.folder))}"
        self.record = {"started": runtime.now_iso(), "parent": "", **self.record, **told, "command": words}

    def open_parent(self) -> None:
        """Have an MLflow run above the trials: that of an earlier start, or a new one."""
        if self.base.tracking.kind != "off" and PARENT not in os.environ:
            name = "sweep " + runtime.now_iso()[:19].replace("T", " ")
            parent = start_parent(name, "sweep", self.base.tracking, str(self.record["parent"]))
            self.record["parent"] = parent
            if parent:
                os.environ[PARENT] = parent
        else:
            self.record["parent"] = ""  # a pipeline's, or none: not ours to end
        files.write_json(self.folder / RECORD, self.record)

    def places(self, proposals: list[Proposal]) -> list[Job]:
        """Trials with their folders: in a grid the one that has these settings already, else the next free number."""
        notes = {note.parent: read_trial(note.parent) for note in sorted(self.folder.glob(f"*/{NOTE}"))}
        known = {trial.key: (folder, trial.number) for folder, trial in notes.items() if trial is not None}
        taken = {number for _, number in known.values()}
        found: dict[str, Job] = {}
        for proposal in proposals:
            key = settings_key(self.composed(proposal.overrides)[0])
            number = proposal.number
            folder = None
            if number < 0:
                folder, number = known.get(key, (None, next(n for n in range(len(taken) + 1) if n not in taken)))
                taken.add(number)
            trial = Trial(
                number,
                key,
                proposal.swept,
                parent=os.environ.get(PARENT, ""),
                study=self.searching,
                quiet=not self.inside,
                threads=max(1, runtime.usable_cores() // self.workers) if self.workers > 1 else 0,
            )
            folder = folder or self.place(proposal.overrides, number)
            trial = replace(trial, sweep=os.path.relpath(self.folder, folder))
            # the same settings twice in a grid are one trial; a search may well choose them twice
            found.setdefault(f"{proposal.number} {key}", Job(proposal, folder, trial))
        return list(found.values())

    def launch(self, jobs: list[Job]) -> None:
        """Run trials and note how their processes ended."""
        for job in jobs:
            job.trial.write(job.folder)
        words = [
            [*job.proposal.overrides, f"hydra.sweep.subdir='{os.path.relpath(job.folder, self.folder)}'"]
            for job in jobs
        ]
        if self.joblib:
            start_tidying()
        try:
            with runtime.deaf_children(self.deaf):
                ended = self.launcher.launch(words, initial_job_idx=jobs[0].trial.number)
            for job, returned in zip(jobs, ended):
                job.code = int(returned.return_value or 0)
        except SystemExit as stop:  # of a trial in this process that a signal has ended
            if stop.code not in STOPS:
                raise
            self.signals.requested = STOPS[int(stop.code)]
        except Exception as error:  # a worker has died, or the launcher could not start one
            code = errors.report(error)
            for job in jobs:
                job.code = code if standing(job.folder) not in DONE else 0

    def run(self) -> int:
        """Run what is left to run, and return the exit code of the sweep."""
        chooser: Chooser
        if self.grid is not None:
            chooser = self.grid
        else:
            parallel = self.base.sweep.parallel or self.workers
            chooser = Search(self.words, self.space, self.base.sweep, self.folder, parallel)
        shown = not self.inside and self.base.tracking.progress
        with self.signals.installed(), TrialBar(chooser.total, shown) as bar, self._watching(bar):
            while not self.signals.requested and (proposals := chooser.next()):
                jobs = self.places(proposals)
                left = [job for job in jobs if job.status not in DONE]
                for job in left:
                    job.before = job.ended
                self.jobs += jobs
                if len(left) < len(jobs):
                    done = f"{len(jobs) - len(left)} of {len(jobs)}" if len(jobs) > 1 else jobs[0].trial.number
                    print(f"trials done already: {done}", file=sys.stderr)
                if left:
                    self.launch(left)
                for job in jobs:
                    chooser.tell(job.proposal, Outcome(job.status, job.val_loss))
        if self.joblib:
            release_workers()
        return self.conclude(chooser.total)

    @contextmanager
    def _watching(self, bar: TrialBar) -> Generator[None]:
        """Pass a signal on to the trials, and the ends of trials to the bar, while the main thread waits."""
        over = threading.Event()

        def look() -> None:
            if self.signals.requested and not (self.folder / STOP).exists():
                files.write_text(self.folder / STOP, self.signals.requested)
            for job in list(self.jobs):
                row = row_of(job.folder)
                if row is not None and row.status not in (RUNNING, "not begun") and job.ended != job.before:
                    bar.ended(row)

        def watch() -> None:
            while not over.wait(LOOK_SECONDS):
                with suppress(errors.MicrogptError, OSError):
                    look()

        watcher = threading.Thread(target=watch, name="trials", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            with suppress(errors.MicrogptError, OSError):
                look()

    def conclude(self, total: int) -> int:
        """Show the table and what comes next; the exit code of the sweep."""
        lost = {job.trial.number for job in self.jobs if job.status == FAILED}  # also before it had a run.json
        rows = [replace(row, status=FAILED) if row.number in lost else row for row in rows_of(self.folder)]
        if self.base.tracking.progress:
            show(rows)
        failed = [job.code for job in self.jobs if job.status == FAILED]
        stopped = self.signals.requested or next((STOPS[j.code] for j in self.jobs if j.code in STOPS), "")
        if failed:
            trials = "trial" if len(failed) == 1 else "trials"
            print(f"{len(failed)} {trials} of the sweep failed; the others are done", file=sys.stderr)
        if stopped:
            done = sum(job.status in DONE for job in self.jobs)
            what = f"the sweep, by {stopped}, with {done} of {total} trials done"
            return errors.report(errors.Stopped(stopped, what, f"go on with {self.record['command']}"))
        if not failed:
            shutil.rmtree(self.folder / TRANSPORT, ignore_errors=True)
        if any(row.status in DONE for row in rows):
            compare(self.folder, self.base.tracking, str(self.record["parent"]))
        print(f"sweep folder     {self.folder}", file=sys.stderr)
        print(f"next             python -m microgpt.compare runs={self.folder}", file=sys.stderr)
        return max(failed, default=0)


def start_tidying() -> None:
    """Start the process that tidies up after joblib's: its start would let the thread hear Ctrl-C again."""
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()


def release_workers() -> None:
    """End joblib's processes, which would otherwise wait minutes for more work and hold their memory meanwhile."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def run_sweep(context: HydraContext, master: DictConfig, launcher: Any, arguments: list[str]) -> None:
    """Run a sweep from Hydra's words.

    Raises:
        UsageError: something is wrong with the words.
        BusyError: another process runs a sweep in this folder.
        SystemExit: with the exit code, where it is not 0.
    """
    sweep = Sweep(context, master, launcher, arguments)
    lock = files.FolderLock(sweep.folder)
    former = os.environ.get(PARENT)
    status = "FAILED"
    try:
        sweep.read_record()
        with suppress(FileNotFoundError):
            (sweep.folder / STOP).unlink()
        sweep.open_parent()
        code = sweep.run()
        status = {0: FINISHED, **dict.fromkeys(STOPS, KILLED)}.get(code, FAILED)
        if code:
            raise SystemExit(code)
    finally:
        if sweep.record.get("parent"):
            end_parent(str(sweep.record["parent"]), status, sweep.base.tracking)
            os.environ.pop(PARENT, None)
        if former is not None:
            os.environ[PARENT] = former
        lock.close()
