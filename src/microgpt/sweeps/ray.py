"""Trials as Ray tasks, on this machine or a cluster that sees the same folders."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from microgpt.errors import UsageError
from microgpt.runtime import StopSignals

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

#: what a trial takes over of the sweep's environment
PASSED = ("MICROGPT_", "MLFLOW_", "HYDRA_", "OMP_", "HF_", "PYTHONPATH")

STARTS = 3


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run the jobs, as many at a time as the resources allow.

    Args:
        launcher: with Hydra's context and the settings of `hydra/launcher=ray`.
        job_overrides: the words of each job.
        first: number of the first job.

    Returns:
        How each ended, in the order given.

    Raises:
        UsageError: a setting makes no sense.
    """
    if launcher.cpus_per_trial <= 0 or launcher.gpus_per_trial < 0 or (launcher.num_cpus or 1) < 1:
        raise UsageError(
            "hydra.launcher: cpus_per_trial must be above 0, gpus_per_trial 0 or more, num_cpus 1 or more",
            "correct the value",
        )
    if launcher.num_cpus is not None and launcher.cpus_per_trial > launcher.num_cpus:
        raise UsageError(
            f"hydra.launcher.cpus_per_trial={launcher.cpus_per_trial:g} is more than num_cpus={launcher.num_cpus}",
            "a trial would wait for ever: lower it",
        )
    # Ray tells its makers what it is used for, and warns about things that do not concern a sweep
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from hydra.core.singleton import Singleton

    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
    handlers = {number: signal.getsignal(number) for number in StopSignals.NUMBERS}
    local: dict[str, Any] = {"num_cpus": launcher.num_cpus, "include_dashboard": False}
    given: dict[str, Any] = {"address": launcher.address} if launcher.address else {"address": "local", **local}
    for left in reversed(range(STARTS)):
        try:
            ray.init(logging_level=logging.ERROR, runtime_env={"env_vars": passed}, **given)
            break
        except Exception as error:  # it gives itself 30 s to start, which a busy machine may not have
            ray.shutdown()
            if not left or "timed out" not in str(error):
                raise
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ray has put its own there
    try:
        task = ray.remote(num_cpus=launcher.cpus_per_trial, num_gpus=launcher.gpus_per_trial, max_retries=0)(_trial)
        shared = ray.put((launcher.hydra_context, launcher.config, launcher.task_function, Singleton.get_state()))
        jobs = [
            task.remote(shared, list(words), first + index, os.getcwd()) for index, words in enumerate(job_overrides)
        ]
        waiting = jobs
        while waiting:  # woken now and then, so that a signal is heard
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
        return ray.get(jobs)
    finally:
        ray.shutdown()


def _trial(shared: tuple[Any, Any, Any, Any], words: list[str], number: int, folder: str) -> JobReturn:
    """Run one job in a worker, as Hydra's own launcher does in the sweep's process."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import run_job, setup_globals
    from omegaconf import open_dict

    context, master, task, state = shared
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    config = context.config_loader.load_sweep_config(master, words)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=context,
        config=config,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
