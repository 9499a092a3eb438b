"""What `python -m microgpt.<stage>` does before and after Hydra: help, checks, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microgpt import errors, runtime
from microgpt.config.compose import check_arguments, from_hydra, hydra_mistake, register
from microgpt.config.scan import split_arguments
from microgpt.config.schema import STAGES
from microgpt.config.search import shipped_conf
from microgpt.runtime import launched_rank

Stage = Callable[[Any, list[str], Path], None]


def run_folder(stamp: str, name: str, resume: str, source: str, data: str, path: Any, model: str) -> str:
    """The folder of a new run, made here so that two starts in one second get two folders.

    With `resume` it is a placeholder: the stage goes to the resumed run's own folder. So it is in the processes of a
    distributed run that follow the first one, which makes the folder and tells them.
    """
    if resume or launched_rank() > 0:
        return "."
    if not name and source:
        name = f"again-{Path(source).name}"[:60]
    if not name:
        first = str(path if isinstance(path, str) else next(iter(path or [data])))
        source = "".join(c if c.isalnum() else "-" for c in Path(first).stem)[:30].strip("-") or "data"
        name = f"{source}-{model}" if model else source
    base = Path("outputs") / stamp
    base = base.with_name(f"{base.name}-{name}")
    for attempt in range(1, 1000):
        folder = base if attempt == 1 else base.with_name(f"{base.name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise errors.DiskError(
                f"cannot make the run folder {folder}: {error.strerror}", "go to a writable folder"
            ) from error
        return str(folder)
    raise errors.BusyError(f"a thousand folders {base} exist", "choose another with hydra.run.dir=")


def _version() -> None:
    from importlib.metadata import version

    print(f"microgpt {version('microgpt')}")


def stage_main(stage: str, run: Stage) -> int:
    """Run a stage as a Hydra app on `sys.argv` and return the exit code.

    Args:
        stage: name of the stage, also of its config file.
        run: called with the typed config, the overrides as given, and Hydra's output folder. In a sweep it is
            called once a trial; a trial that fails is reported and the others go on.
    """
    return errors.guarded(lambda: _stage(stage, run))


def _stage(stage: str, run: Stage) -> None:
    words = sys.argv[1:]
    if "--debug" in words:
        os.environ["MICROGPT_DEBUG"] = "1"
        words = [w for w in words if w != "--debug"]
    if "--help" in words or "-h" in words:
        from microgpt.config.help import render

        print(render(stage, STAGES[stage]))
        return
    if "--version" in words:
        _version()
        return
    overrides, flags = split_arguments(words)
    folders = [flags[i + 1] for i, f in enumerate(flags[:-1]) if f in ("--config-dir", "-cd")]
    check_arguments(overrides, stage, Path(folders[0]) if folders else None)
    multirun = bool({"-m", "--multirun"} & set(flags))
    failures: list[int] = []

    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    register()
    if not OmegaConf.has_resolver("run_folder"):
        OmegaConf.register_new_resolver("run_folder", run_folder, use_cache=True)

    home = os.getpid()

    def task(composed: DictConfig) -> int:
        state = HydraConfig.get()
        elsewhere = os.getpid() != home  # a launcher's worker: it returns its exit code, and lives on
        if elsewhere:
            runtime.prepare_process()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # between trials: the sweep hears it, and tells the workers
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked while the process began
        try:
            words = list(state.overrides.task)
            run(from_hydra(stage, composed, words), words, Path(state.runtime.output_dir))
        except SystemExit as stop:  # of a stage in processes of its own, which have said what is wrong
            code = stop.code if isinstance(stop.code, int) else errors.UNEXPECTED
            if elsewhere:
                return code
            if not multirun or code in (errors.SIGINT, errors.SIGTERM):
                raise
            failures.append(code)
            return code
        except BaseException as error:
            code = errors.report(error)
            if elsewhere:
                return code
            if not multirun or isinstance(error, (errors.Stopped, KeyboardInterrupt)):
                raise SystemExit(code) from None
            failures.append(code)  # the rest of the sweep goes on
            return code
        return errors.OK

    # Hydra prints its complaints and exits with 1; with this variable it raises them, and we print one line.
    wanted = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = words
    try:
        hydra.main(config_path=str(shipped_conf()), config_name=stage, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise hydra_mistake(error) from error
    finally:
        if wanted is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    if failures:
        print(f"{len(failures)} trials of the sweep failed; the others are done", file=sys.stderr)
        raise SystemExit(max(failures))
