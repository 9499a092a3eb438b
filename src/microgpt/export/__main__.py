"""`python -m microgpt.export`: write a model for others to load, and prove that it is the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import ExportConfig


def run_export(config: ExportConfig, overrides: list[str], output: Path) -> None:
    """The stage.

    Raises:
        ModelError: no such model, a format cannot hold it, or an export does not compute the same.
        UsageError: the output folder holds something else, or what a format needs is not installed.
    """
    from microgpt.checkpoints.model import open_model
    from microgpt.config.build import build
    from microgpt.config.compose import migrated
    from microgpt.config.schema import SamplingConfig, TrainConfig
    from microgpt.errors import UsageError
    from microgpt.export.card import model_card
    from microgpt.export.formats import FORMATS, wanted_formats
    from microgpt.export.write import CARD, PROOF, export_model
    from microgpt.files import folder_bytes, human_bytes
    from microgpt.runs.curves import loss_picture
    from microgpt.runs.find import Run, model_path
    from microgpt.runs.folder import RUN, read_config, read_run
    from microgpt.tracking.results import log_results

    names = wanted_formats(config.format, config.dtype)
    source = model_path(config.run, config.checkpoint)
    opened = open_model(source)
    home = source.resolve().parent.parent
    run = Run(source.parent.parent, read_run(home)) if (home / RUN).exists() else None
    trained: TrainConfig | None = build(TrainConfig, migrated(read_config(home))) if run else None
    pictures = loss_picture(run.path) if run else {}
    if config.output:
        base = Path(config.output).expanduser()
        targets = {name: base / name if names[1:] else base for name in names}
    else:
        base = (run.path if run else Path("outputs") / f"export-{source.name}") / "export"
        targets = {name: base / f"{name}-{config.dtype}" for name in names}
    for name in names:
        FORMATS[name].check(opened)
        check_target(targets[name], source)
    if config.register and (run is None or not run.mlflow_id or config.tracking.kind == "off"):
        raise UsageError("register=true needs a run that MLflow knows", "train with tracking=mlflow")
    if config.register and "safetensors" not in names:
        raise UsageError("register=true registers a model directory", "add format=safetensors")
    for name in names:
        form, target, label = FORMATS[name], targets[name], f"{name}_{config.dtype}"
        card = model_card(opened, trained, run, form, pictures)
        sampling = trained.sampling if trained else SamplingConfig()
        proof = export_model(opened, target, name, config.dtype, card, sampling, pictures)
        difference = proof.get("max_difference")
        if run:
            log_results(
                config.tracking,
                run.path.name,
                run_id=run.mlflow_id,
                metrics={f"export/{label}_max_difference": difference} if difference is not None else {},
                artifacts=[target / CARD, target / PROOF, *(target / picture for picture in pictures)],
                folder=f"export/{label}",
            )
        if config.tracking.progress:
            found = "is what was written" if difference is None else f"differs by at most {difference:.2g} nats"
            size = human_bytes(folder_bytes(target))
            print(
                f"exported {source} to {target} ({size}, {name} {config.dtype}); "
                f"what {proof['runtime']} reads there {found}\n"
                f"next: {(form.chat if opened.tokenizer.is_chat else form.use).format(target=target)}",
                file=sys.stderr,
            )
    if config.register and run:
        from microgpt.tracking.registry import register

        chosen = open_model(targets["safetensors"])
        said = register(chosen, run.mlflow_id, config.alias, config.promote, config.tracking)
        print(said, file=sys.stderr)


def check_target(target: Path, source: Path) -> None:
    """Refuse a place that holds something that an export must not replace.

    Raises:
        UsageError: naming it.
    """
    from microgpt.checkpoints.folder import MANIFEST, STATE
    from microgpt.errors import UsageError

    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST).exists())):
        raise UsageError(f"output={target} holds something that is not an export", "give another folder")
    if (target / STATE).exists():
        raise UsageError(f"output={target} is a checkpoint of a run", "give another folder")
    if target.resolve() == source.resolve():
        raise UsageError(f"output={target} is the model that is exported", "give another folder")


def main() -> int:
    """Entry point."""
    runtime.prepare_process()
    return stage_main("export", run_export)


if __name__ == "__main__":
    sys.exit(main())
