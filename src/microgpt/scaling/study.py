"""`python -m microgpt.train -m sweep=scaling`: what a larger model will reach, said before it is trained.

Small models of several depths are trained at several budgets of compute; a law is fitted through the best of each
budget; its prediction for a larger model is on the disk before the larger model starts. What has finished is not
trained again when the study is started again in its folder.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from microgpt import files, runtime
from microgpt.checkpoints.folder import checkpoints_in
from microgpt.config.compose import from_hydra, hydra_mistake
from microgpt.config.schema import TrainConfig
from microgpt.data.mixture import prepare_all
from microgpt.errors import MicrogptError, Stopped, UsageError, report
from microgpt.runs.folder import FINISHED, RUN, read_run
from microgpt.scaling.law import FEWEST, Law, fitted, picture
from microgpt.scaling.plans import TIMES, Planned, larger_depth, numbers, planned
from microgpt.tracking.start import PARENT, end_parent, log_to_parent, start_parent

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig

RECORD, PREDICTION, RESULT, PICTURE = "scaling.json", "prediction.json", "scaling_result.json", "scaling.png"
KIND = "scaling"  # of sweep.kind
OWN = ("sweep=", "sweep.", "hydra.", "hydra/")
#: the study sets these itself, or they would make the models alike
REFUSED = ("model.depth", "model.n_layer", "model.n_embd", "model.n_head", "trainer.max_steps")
CONSOLE = Console(stderr=True)


class Study:
    """The runs of one command line.

    Args:
        config: of all runs.
        words: the command line's, without those of the study itself.
        folder: where all of it lies.
        signals: one ends it; what has finished stays.
    """

    def __init__(self, config: TrainConfig, words: list[str], folder: Path, signals: runtime.StopSignals) -> None:
        self.config, self.words, self.folder, self.signals = config, words, folder, signals
        sweep = config.sweep
        self.depths = [int(n) for n in numbers("sweep.depths", sweep.depths, 1)]
        self.budgets = numbers("sweep.budgets", sweep.budgets, 1)
        if len(self.budgets) < FEWEST:
            raise UsageError(
                f"sweep.budgets has {len(self.budgets)} budgets, and a law of three unknowns needs {FEWEST}",
                "give more, a factor of 2 to 4 apart",
            )
        prepared = prepare_all(config.data, config.tokenizer, None, config.tracking.progress, config.model.block_size)
        self.vocab_size = prepared.tokenizer.vocab_size
        self.train_tokens = int(prepared.facts["train"]["positions"])

    def plan(self, depth: int, budget: float) -> Planned:
        """A model of the study."""
        return planned(self.config, depth, budget, self.vocab_size, self.train_tokens)

    def train(self, model: Planned) -> float | None:
        """Train a model, or what is left of it; its validation loss, or None where it failed.

        Raises:
            Stopped: a signal came.
        """
        folder = self.folder / model.name
        facts = read_run(folder) if (folder / RUN).exists() else {}
        if facts.get("status") == FINISHED:
            print(f"{model.name} is done already", file=sys.stderr)
            return facts.get("best_val_loss")
        steps = model.steps
        words = [*self.words, f"model.depth={model.depth}", f"trainer.max_steps={steps}", f"hydra.run.dir={folder}"]
        # every model is scored once, at its end, on the whole validation set
        for key, value in (("trainer.eval_interval", steps), ("trainer.eval_batches", 0)):
            if not any(word.startswith(f"{key}=") for word in words):
                words.append(f"{key}={value}")
        if self.config.optimizer.schedule is None:
            words.append("optimizer.schedule=linear")  # one for all budgets; auto goes by the length of a run
        if checkpoints_in(folder / "checkpoints"):
            words = [f"resume={folder}"]
        elif facts:  # it was interrupted before it had anything to go on from
            for name in ("metrics.jsonl", "samples.jsonl", "eval.csv", "system.csv"):
                (folder / name).unlink(missing_ok=True)
        code = self._run([sys.executable, "-m", "microgpt.train", *words])
        if code:
            print(f"note: {model.name} failed with exit code {code} and is left out", file=sys.stderr)
            return None
        return read_run(folder).get("best_val_loss")

    def _run(self, command: list[str]) -> int:
        """Run a command, pass a signal on to it, and return its exit code."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        told = False
        while (code := process.poll()) is None:
            if self.signals.requested and not told:
                told = True
                process.terminate()
            time.sleep(0.05)
        if self.signals.requested:
            raise Stopped(self.signals.requested, "the scaling study; what it has trained is kept", "start it again")
        return code

    def measured(self) -> list[dict[str, Any]]:
        """Train the small models; one entry for each that has a loss."""
        found: list[dict[str, Any]] = []
        for budget in self.budgets:
            for depth in self.depths:
                model = self.plan(depth, budget)
                loss = self.train(model)
                if loss is not None and math.isfinite(loss):
                    found.append({**_facts(model), "loss": loss})
        return found

    def prediction(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """What the law says of the larger model, written down with the time; once written it is not changed.

        Raises:
            UsageError: too few runs ended well.
        """
        with suppress(OSError, ValueError):
            return dict(files.read_json(self.folder / PREDICTION))
        best = [min((r for r in runs if r["budget"] == b), key=lambda r: r["loss"]) for b in self.budgets
                if any(r["budget"] == b for r in runs)]  # fmt: skip
        try:
            law = fitted([(r["compute"], r["loss"]) for r in best])
        except ValueError as error:
            raise UsageError(f"too few models were trained: {error}", "see their messages above") from None
        budget = self.config.sweep.target_budget or TIMES * self.budgets[-1]
        depth = self.config.sweep.target_depth or larger_depth(best[-1]["depth"], budget / self.budgets[-1])
        model = self.plan(depth, budget)
        told = {
            "written": runtime.now_iso(),
            "law": {"form": "floor + scale (C / unit)^-alpha", **law.to_json()},
            "fitted_to": best,
            "larger": _facts(model),
            "predicted_loss": law.loss(model.compute),
            "sources": ["arXiv:2001.08361", "arXiv:2203.15556"],
        }
        files.write_json(self.folder / PREDICTION, told)  # on the disk, synced, before the larger run starts
        return told

    def run(self) -> list[Path]:
        """All of it; the files that tell the outcome."""
        runs = self.measured()
        told = self.prediction(runs)
        law = Law(**{k: v for k, v in told["law"].items() if k != "form"})
        larger, predicted = told["larger"], float(told["predicted_loss"])
        self.draw(law, runs, larger, predicted, None)
        print(
            f"predicted        {predicted:.4f} nats a token for depth {larger['depth']} at {larger['compute']:.3g} "
            f"operations, written to {self.folder / PREDICTION} at {told['written']}",
            file=sys.stderr,
        )
        loss = self.train(Planned(**larger))
        if loss is None:
            raise UsageError("the larger model failed, so that nothing was compared", "see its messages above")
        result = {
            "predicted_loss": predicted,
            "measured_loss": loss,
            "error": predicted - loss,
            "relative_error": (predicted - loss) / loss,
            "written": runtime.now_iso(),
            "runs": runs,
            "larger": larger,
        }
        files.write_json(self.folder / RESULT, result)
        self.draw(law, runs, larger, predicted, loss)
        if self.config.tracking.progress:
            _show(runs, law, result)
        return [self.folder / name for name in (PREDICTION, RESULT, PICTURE)]

    def draw(
        self, law: Law, runs: list[dict[str, Any]], larger: dict[str, Any], predicted: float, loss: float | None
    ) -> None:
        """Write the picture."""
        files.write_bytes(self.folder / PICTURE, picture(law, runs, larger, predicted, loss))


def _facts(model: Planned) -> dict[str, Any]:
    return {
        "depth": model.depth,
        "budget": model.budget,
        "steps": model.steps,
        "compute": model.compute,
        "parameters": model.parameters,
    }


def _show(runs: list[dict[str, Any]], law: Law, result: dict[str, Any]) -> None:
    table = Table(title="scaling", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("depth", "parameters", "steps", "operations", "validation loss", "law"):
        table.add_column(name, justify="right")
    last = {**result["larger"], "loss": result["measured_loss"]}
    for r in [*runs, last]:
        row = (f"{r['depth']}", f"{r['parameters']:,}", f"{r['steps']:,}", f"{r['compute']:.3g}", f"{r['loss']:.4f}")
        table.add_row(*row, f"{law.loss(r['compute']):.4f}", style="bold" if r is last else None)
    CONSOLE.print(table)


def run_scaling(context: HydraContext, master: DictConfig, arguments: list[str]) -> None:
    """Run a study from Hydra's words.

    Raises:
        UsageError: something is wrong with the words.
        BusyError: another process is at work in the folder.
        Stopped: a signal came.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    words = [word for word in arguments if not word.startswith(OWN)]
    refused = [word for word in words if word.partition("=")[0].lstrip("+~") in REFUSED]
    if refused:
        raise UsageError(
            f"{', '.join(refused)}: a scaling study sets these itself", "give sweep.depths and sweep.budgets"
        )
    try:
        found = context.config_loader.load_sweep_config(master, arguments)
    except (HydraException, OmegaConfBaseException) as error:
        raise hydra_mistake(error) from error
    own = OmegaConf.masked_copy(found, [str(key) for key in found if key != "hydra"])
    config: TrainConfig = from_hydra("train", own, arguments)
    folder = Path(os.path.relpath(str(master.hydra.sweep.dir)))
    lock = files.FolderLock(folder)
    parent, status = "", "FAILED"
    tracking = config.tracking
    again = shlex.join(["python", "-m", "microgpt.train", *sys.argv[1:]])
    if not any(word.startswith("hydra.sweep.dir=") for word in sys.argv):
        again += f" hydra.sweep.dir={shlex.quote(str(folder))}"
    try:
        record: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            record = dict(files.read_json(folder / RECORD))
        told = {"words": words, "sweep": [w for w in arguments if w.startswith("sweep.")]}
        if record and any(record.get(key) != value for key, value in told.items()):
            raise UsageError(
                f"{folder} holds another study: {record.get('command', '')}"[:400],
                "start it again with the same words, or choose another folder with hydra.sweep.dir=",
            )
        if tracking.kind != "off" and PARENT not in os.environ:
            parent = start_parent(f"scaling {folder.name}", "sweep", tracking, str(record.get("parent", "")))
            os.environ[PARENT] = parent
        files.write_json(folder / RECORD, {**told, "command": again, "parent": parent})
        with runtime.StopSignals().installed() as signals:
            made = Study(config, words, folder, signals).run()
        if parent:
            log_to_parent(parent, made, tracking)
        status = FINISHED
        result = files.read_json(folder / RESULT)
        print(
            f"predicted {result['predicted_loss']:.4f}, measured {result['measured_loss']:.4f} nats a token: off by "
            f"{result['error']:+.4f} ({result['relative_error']:+.1%}); {folder / PICTURE}",
            file=sys.stderr,
        )
        larger = folder / Planned(**result["larger"]).name
        print(f"next             microgpt generate --model-dir {larger}", file=sys.stderr)
    except Stopped as stopped:
        status = "KILLED"
        raise SystemExit(report(Stopped(stopped.args[0], stopped.what, f"go on with {again}"))) from None
    except MicrogptError as error:
        raise SystemExit(report(error)) from None
    finally:
        if parent:
            end_parent(parent, status, tracking)
            os.environ.pop(PARENT, None)
        lock.close()
