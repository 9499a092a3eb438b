"""Lightning as `pl` and by name, imported without what torchmetrics draws in beside it.

Where torchmetrics finds SciPy, Matplotlib and transformers it imports them, for metrics that nobody asks of it here:
half of the seconds that Lightning takes. So it does not find them while it is imported.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from typing import Any

from lightning_utilities.core import imports

__all__ = [
    "CheckpointIO",
    "DDPStrategy",
    "EarlyStopping",
    "ModelParallelStrategy",
    "Profiler",
    "SLURMEnvironment",
    "Strategy",
    "TorchElasticEnvironment",
    "pl",
]

UNUSED = ("matplotlib", "scipy", "transformers")


@contextmanager
def hidden(*packages: str) -> Generator[None]:
    """Lightning's own look for packages finds none of these; without it they are imported, which costs time only."""
    namespace: dict[str, Any] = imports.__dict__

    def version(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return known["_version"](name)

    def find_spec(name: str) -> Any:
        return None if name in packages else known["find_spec"](name)

    told = {"_version": version, "find_spec": find_spec}
    known = {name: namespace[name] for name in told if name in namespace}
    namespace.update({name: told[name] for name in known})
    try:
        yield
    finally:
        namespace.update(known)
        imports.package_available.cache_clear()  # those who ask later are told the truth
        imports.module_available.cache_clear()


with hidden(*UNUSED):
    import torchmetrics  # pyright: ignore[reportUnusedImport] # noqa: F401

import pytorch_lightning as pl  # noqa: E402
from lightning_fabric.plugins import CheckpointIO  # noqa: E402
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment  # noqa: E402
from pytorch_lightning.callbacks import EarlyStopping  # noqa: E402
from pytorch_lightning.profilers import Profiler  # noqa: E402
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy  # noqa: E402
