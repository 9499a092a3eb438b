"""The one way in: overrides to typed config, through Hydra."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from microgpt.config.build import build, flat, plain
from microgpt.config.depth import with_shape
from microgpt.config.scan import check_overrides, check_yaml_folder, touched_keys
from microgpt.config.schema import SCHEMA_VERSION, STAGES, TrainConfig
from microgpt.config.search import config_folders, shipped_conf, user_conf
from microgpt.errors import UsageError

if typing.TYPE_CHECKING:
    from hydra.core.config_search_path import ConfigSearchPath
    from omegaconf import DictConfig

T = TypeVar("T")


def check_arguments(overrides: list[str], stage: str, config_folder: Path | None = None) -> None:
    """Everything that can be refused before Hydra is imported.

    Raises:
        UsageError: all mistakes at once.
    """
    own = [folder for folder in (user_conf(), config_folder) if folder is not None]
    for folder in own:
        check_yaml_folder(folder)
    check_overrides(overrides, STAGES[stage], [*own, shipped_conf()])


def register() -> None:
    """Tell Hydra the schema's defaults and to search ./conf first. Can be called again."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class OwnConfigFirst(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            own = user_conf()
            if own is not None:
                search_path.prepend("own", f"file://{own}")

    plugins = Plugins.instance()
    known = {getattr(p, "__qualname__", "") for p in plugins.discover(SearchPathPlugin)}
    if OwnConfigFirst.__qualname__ not in known:
        plugins.register(OwnConfigFirst)
    store = ConfigStore.instance()
    for stage, cls in STAGES.items():
        # Plain values, not the dataclass: Hydra then refuses unknown keys, and build() finds all wrong values
        # at once where OmegaConf would raise the first.
        store.store(name=f"{stage}_defaults", node=plain(cls()))


def from_hydra(stage: str, composed: DictConfig, overrides: list[str]) -> Any:
    """The typed config of a stage from what Hydra composed.

    Args:
        stage: of `STAGES`.
        composed: as Hydra made it.
        overrides: what was typed, which `model.depth` does not replace.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"config: {str(error).splitlines()[0]}", "correct the value") from error
    typed = [word.partition("=")[0].lstrip("+") for word in overrides]  # keys alone: a preset is no typed key
    return build(STAGES[stage], with_shape(typing.cast("Mapping[str, Any]", values), typed))


def hydra_mistake(error: BaseException) -> UsageError:
    """Hydra's own complaint about overrides or YAML, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UsageError("config: " + " ".join(lines)[:300], "correct the override; --help lists all keys")


def compose(overrides: list[str] | None = None, stage: str = "train") -> Any:
    """The typed config of a stage from overrides, as the command line would make it.

    Returns:
        An instance of the stage's class in `STAGES`.

    Raises:
        UsageError: on any mistake in overrides or YAML.
    """
    words = list(overrides or [])
    check_arguments(words, stage)
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(shipped_conf()), version_base="1.3"):
            return from_hydra(stage, hydra_compose(stage, overrides=words), words)
    except (HydraException, OmegaConfBaseException) as error:
        raise hydra_mistake(error) from error


def overlaid(saved: Mapping[str, Any], overrides: list[str], composed: TrainConfig) -> TrainConfig:
    """A saved config with the keys that the user named on the command line laid over it."""
    base = build(TrainConfig, migrated(saved))
    keys, experiment = touched_keys(overrides, TrainConfig)
    values = flat(composed)
    if "model.depth" in keys and values["model.depth"] != base.model.depth:
        had = "no depth" if base.model.depth is None else f"depth {base.model.depth}"
        raise UsageError(
            f"model.depth={values['model.depth']}: the run was made with {had}, which its other settings belong to",
            "leave model.depth out, or start a new run with it",
        )
    if experiment:
        default = flat(compose([]))
        keys |= {key for key, value in values.items() if value != default[key]}
    for key in keys:
        group, _, leaf = key.rpartition(".")
        setattr(getattr(base, group) if group else base, leaf, values[key])
    return build(TrainConfig, plain(base))


def migrated(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved config brought to the present schema.

    Raises:
        UsageError: it was written by a newer release.
    """
    version = saved.get("schema_version", 1)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UsageError(f"the run's config has schema version {version}", "update microgpt to read it")
    return {**saved, "schema_version": SCHEMA_VERSION}


__all__ = ["compose", "config_folders", "from_hydra", "overlaid", "register"]
