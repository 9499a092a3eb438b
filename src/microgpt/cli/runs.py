"""Verbs about runs: list, show, clean; and the MLflow UI."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from microgpt import errors
from microgpt.cli.app import app, print_rows

runs_app = typer.Typer(help="List, show and clean runs.", no_args_is_help=False, invoke_without_command=True)
app.add_typer(runs_app, name="runs")


@runs_app.callback()
def runs(context: typer.Context) -> None:
    """List all runs below ./outputs."""
    if context.invoked_subcommand is None:
        list_runs()


@runs_app.command("list")
def list_runs() -> None:
    """List all runs below ./outputs, oldest first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from microgpt.files import folder_bytes, human_bytes
    from microgpt.runs.find import all_runs

    found = all_runs()
    if not found:
        print("there is no run in ./outputs yet\nnext: python -m microgpt.train")
        return
    table = Table()
    for name in ("run", "status", "steps", "validation", "bits a byte", "size"):
        table.add_column(name, overflow="fold", justify="left" if name in ("run", "status") else "right")
    for run in found:
        loss, bits = (f"{v:.4f}" if v != float("inf") else "" for v in (run.val_loss, run.val_bpb))
        steps = f"{run.facts.get('steps', 0):,} / {run.facts.get('max_steps', 0):,}"
        table.add_row(escape(str(run.path)), run.status, steps, loss, bits, human_bytes(folder_bytes(run.path)))
    Console().print(table)
    print(f"next: microgpt runs show {found[-1].path}")
    if len(found) > 1:
        print("      python -m microgpt.compare runs=all")


@runs_app.command("show")
def show_run(run: Annotated[str, typer.Argument(help="A run folder, MLflow id, latest or best.")] = "latest") -> None:
    """Show one run: how it ended, its data, scores, checkpoints and settings."""
    from microgpt.checkpoints.folder import checkpoints_in
    from microgpt.config.build import flat
    from microgpt.config.compose import compose
    from microgpt.runs.find import find_run
    from microgpt.runs.folder import read_config

    found = find_run(run)
    f = found.facts
    rows = {
        "run": str(found.path),
        "status": found.status + (f" ({f['error']})" if f.get("error") and found.status != "FINISHED" else ""),
        "started": str(f.get("started", "")),
        "command": str(f.get("command", "")),
        "commit": str(f.get("git", {}).get("commit", ""))
        + (" with changes" if f.get("git", {}).get("dirty") else ""),
        "steps": f"{f.get('steps', 0):,} of {f.get('max_steps', 0):,}",
        "parameters": f"{f.get('parameters', 0):,}",
        "validation": f"loss {found.val_loss:.4f}, {found.val_bpb:.4f} bits a byte at step {f.get('best_step', 0)}",
        "data": ", ".join(s["path"] for s in f.get("data", {}).get("sources", [])),
        "checkpoints": ", ".join(p.name for _, p in checkpoints_in(found.path / "checkpoints")) or "none",
        "mlflow run": found.mlflow_id or "none",
    }
    print_rows(rows)
    default = flat(compose([]))
    saved: dict[str, Any] = {}
    for key, value in read_config(found.path).items():
        saved.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value})
    print("\nsettings that differ from the defaults:")
    for key, value in saved.items():
        if key in default and default[key] != value:
            print(f"  {key}={errors.printable(str(value))}")
    print(f"\nnext: python -m microgpt.evaluate run={found.path}")


@runs_app.command("clean")
def clean_runs(
    runs: Annotated[list[str] | None, typer.Argument(help="Run folders; none: every run that failed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete run folders, saying first how many bytes that frees. A run that is going on is never touched."""
    import shutil

    from microgpt.files import folder_bytes, human_bytes, is_locked
    from microgpt.runs.find import all_runs, find_run

    failed = [run for run in all_runs() if run.status == "FAILED"]
    chosen = [find_run(r) for r in runs] if runs else failed
    chosen = [run for run in chosen if not is_locked(run.path)]
    total = 0
    for run in chosen:
        size = folder_bytes(run.path)
        total += size
        print(f"{human_bytes(size):>10}  {run.status:<9} {errors.printable(str(run.path))}")
    if not chosen:
        print("nothing to delete\nnext: microgpt runs")
        return
    print(f"{human_bytes(total):>10}  in {len(chosen)} runs")
    if dry_run:
        print("next: microgpt runs clean --yes (deletes these)")
        return
    if not yes and not (sys.stdin.isatty() and typer.confirm("delete them?")):
        print("nothing was deleted; say --yes to delete")
        return
    for run in chosen:
        shutil.rmtree(run.path, ignore_errors=True)
    print(f"freed {human_bytes(total)}\nnext: microgpt runs")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    uri: Annotated[str, typer.Option(help="Tracking store; empty: MLFLOW_TRACKING_URI, then ./mlruns.")] = "",
) -> None:
    """Open the MLflow UI on what was trained, on this machine only."""
    from microgpt.tracking.ui import serve_ui

    raise typer.Exit(serve_ui(uri, port))
