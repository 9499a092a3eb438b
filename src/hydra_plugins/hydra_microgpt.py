"""What Hydra finds of the project: its sweeper, and a launcher for Ray.

Hydra builds plugins of the namespace package `hydra_plugins` alone, so these two classes stand here; what they do
stands in `microgpt.sweeps`. Hydra reads this file at every start: nothing heavy is imported. It does so before the
module is known to Python, which is why annotations are no texts here: dataclasses could not look them up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class MicrogptSweeper(Sweeper):
    """Runs the trials of `-m`; which ones is up to `sweep.kind`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra tells what there is to sweep over, and with which launcher."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep that the words of the command line describe."""
        if self.hydra_context is None or self.config is None:
            raise RuntimeError("sweep() came before setup()")
        if {"sweep=scaling", "sweep.kind=scaling"} & set(arguments):
            from microgpt.scaling.study import run_scaling

            run_scaling(self.hydra_context, self.config, arguments)
            return
        from microgpt.sweeps.drive import run_sweep

        run_sweep(self.hydra_context, self.config, self.launcher, arguments)


class RayLauncher(Launcher):
    """Runs each trial as a Ray task.

    Args:
        address: of a Ray cluster; none starts Ray on this machine for the time of the sweep.
        num_cpus: cores that a Ray of our own may use; none is all.
        cpus_per_trial, gpus_per_trial: what a trial takes of them.
    """

    def __init__(
        self, address: str | None, num_cpus: int | None, cpus_per_trial: float, gpus_per_trial: float
    ) -> None:
        self.address, self.num_cpus = address, num_cpus
        self.cpus_per_trial, self.gpus_per_trial = cpus_per_trial, gpus_per_trial

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra tells what a job is."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return how they ended, in the order given."""
        from microgpt.sweeps.ray import launch

        return launch(self, job_overrides, initial_job_idx)


@dataclass
class SweeperNode:
    """Hydra's config of the sweeper. Its settings are those of the group `sweep`."""

    _target_: str = "hydra_plugins.hydra_microgpt.MicrogptSweeper"


@dataclass
class RayNode:
    """Hydra's config of the Ray launcher."""

    _target_: str = "hydra_plugins.hydra_microgpt.RayLauncher"
    address: str | None = None
    num_cpus: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0


_store = ConfigStore.instance()
_store.store(group="hydra/sweeper", name="microgpt", node=SweeperNode, provider="microgpt")
_store.store(group="hydra/launcher", name="ray", node=RayNode, provider="microgpt")
