"""`python -m microgpt.export`: write a model for others to load, and prove that it is the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import ExportConfig


def run_export(config: ExportConfig, overrides: list[str], output: Path) -> None:
    """The stage.

    Raises:
        ModelError: no such model, or the export is not equal to it.
        UsageError: the output folder holds something else.
    """
    from microgpt.checkpoints.folder import META, STATE
    from microgpt.checkpoints.model import open_model
    from microgpt.config.build import build
    from microgpt.config.compose import migrated
    from microgpt.config.schema import TrainConfig
    from microgpt.errors import UsageError
    from microgpt.export.card import model_card
    from microgpt.export.safetensors import export_safetensors
    from microgpt.files import folder_bytes, human_bytes
    from microgpt.runs.find import Run, model_path
    from microgpt.runs.folder import RUN, read_config, read_run
    from microgpt.tracking.results import log_results

    source = model_path(config.run, config.checkpoint)
    opened = open_model(source)
    home = source.resolve().parent.parent
    run = Run(source.parent.parent, read_run(home)) if (home / RUN).exists() else None
    trained: TrainConfig | None = build(TrainConfig, migrated(read_config(home))) if run else None
    facts: dict[str, Any] = run.facts if run else {}
    if config.output:
        target = Path(config.output).expanduser()
    else:
        base = run.path if run else Path("outputs") / f"export-{source.name}"
        target = base / "export" / f"{config.format}-{config.dtype}"
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / META).exists())):
        raise UsageError(f"output={target} holds something that is not an export", "give another folder")
    if (target / STATE).exists():
        raise UsageError(f"output={target} is a checkpoint of a run", "give another folder")
    if config.register and (run is None or not run.mlflow_id or config.tracking.kind == "off"):
        raise UsageError("register=true needs a run that MLflow knows", "train with tracking=mlflow")
    card = model_card(opened, trained, facts, run.path if run else None)
    proof = export_safetensors(opened, target, config.dtype, card)
    if run:
        log_results(
            config.tracking,
            run.path.name,
            run_id=run.mlflow_id,
            metrics={f"export/{config.format}_{config.dtype}_max_difference": proof["max_difference"]},
            artifacts=[target / "README.md"],
        )
    if config.register and run:
        from microgpt.tracking.registry import register

        address = register(target, run.mlflow_id, config.alias, config.tracking)
        print(f"registered as {address}", file=sys.stderr)
    if config.tracking.progress:
        difference = f"{proof['max_difference']:.2g}"
        print(
            f"exported {source} to {target} ({human_bytes(folder_bytes(target))}, {config.format} {config.dtype}); "
            f"loaded again, log-probabilities differ by at most {difference}\n"
            f"next: microgpt generate --model-dir {target}",
            file=sys.stderr,
        )


def main() -> int:
    """Entry point."""
    runtime.prepare_process()
    return stage_main("export", run_export)


if __name__ == "__main__":
    sys.exit(main())
