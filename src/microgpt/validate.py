"""`python -m microgpt.validate`: check every record of a data set and report on it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import ValidateConfig
    from microgpt.data.report import DataReport
    from microgpt.data.tally import Lengths


def run_validate(config: ValidateConfig, overrides: list[str], output: Path) -> None:
    """The stage.

    Raises:
        DataError: there are bad rows and `data.on_bad_rows=fail`; the report is written all the same.
    """
    from microgpt import files
    from microgpt.data.prepare import prepare
    from microgpt.data.report import advised_block_size, inspect, percentiles
    from microgpt.data.sources import find_sources
    from microgpt.data.tally import Lengths
    from microgpt.errors import DataError
    from microgpt.runs.folder import RunFolder

    folder = RunFolder(output)
    folder.update(stage="validate", status="RUNNING", started=runtime.now_iso(), overrides=overrides)
    try:
        report, characters = inspect(find_sources(config.data), config.data, config.near_duplicates)
        shards, tokenizer = prepare(replace(config.data, on_bad_rows="skip"), config.tokenizer)
        tokens = Lengths()
        for split in (shards.train, shards.val):
            tokens.add_between(split.starts)
    except BaseException:
        folder.update(status="FAILED", ended=runtime.now_iso())
        raise
    report.tokens_per_document = percentiles(tokens)
    report.tokens = tokens.sum()
    report.vocab_size = tokenizer.vocab_size
    report.block_size = advised_block_size(tokens)
    files.write_json(output / "report.json", report.to_json())
    files.write_text(output / "report.html", html(report, characters, tokens))
    failed = bool(report.bad) and config.data.on_bad_rows == "fail"
    folder.update(status="FAILED" if failed else "FINISHED", ended=runtime.now_iso())
    if config.tracking.progress:
        show(report, output, overrides)
    from microgpt.tracking.results import log_results

    numbers = {
        "data/documents": report.documents,
        "data/bad_rows": report.bad,
        "data/exact_duplicates": report.exact_duplicates,
        "data/near_duplicates": report.near_duplicates,
        "data/tokens": report.tokens,
        "data/bytes": report.bytes,
    }
    log_results(
        config.tracking,
        output.name,
        metrics=numbers,
        params={"data.path": [s["path"] for s in report.sources], "vocab_size": report.vocab_size},
        artifacts=[output / "report.json", output / "report.html"],
        tags={"microgpt.kind": "validate"},
    )
    if failed:
        shown = "; ".join(report.bad_shown)
        more = f"; and {report.bad - len(report.bad_shown):,} more" if report.bad > len(report.bad_shown) else ""
        raise DataError(
            f"{report.bad:,} bad row{'s' if report.bad > 1 else ''}: {shown}{more}",
            "mend the file, or leave them out with data.on_bad_rows=skip",
        )


def rows_of(report: DataReport) -> list[tuple[str, str]]:
    """The report as rows of (what, value) for the table and the page."""

    def lengths(values: dict[str, float]) -> str:
        return ", ".join(f"{k} {v:,.0f}" for k, v in values.items())

    split = f"{report.validation_documents:,} documents; {report.split_leakage:,} also in training"
    if report.documents == 1:
        split = "the last part of the one document"
    left = (
        f"{report.dropped:,} conversation{'' if report.dropped == 1 else 's'} without a reply",
        f"{report.trimmed:,} turn{'' if report.trimmed == 1 else 's'} after the last reply",
    )
    share = report.near_duplicates / max(1, report.near_checked)
    return [
        ("files", ", ".join(s["path"] for s in report.sources)),
        ("documents", f"{report.documents:,} (" + ", ".join(f"{v:,} {k}" for k, v in report.kinds.items()) + ")"),
        ("size", f"{report.characters:,} characters, {report.bytes:,} bytes, {report.tokens:,} tokens"),
        ("vocabulary", f"{report.vocab_size:,} tokens"),
        ("characters a document", lengths(report.characters_per_document)),
        ("tokens a document", lengths(report.tokens_per_document)),
        ("block_size to choose", f"{report.block_size} (holds 99 of 100 documents, up to 1,024)"),
        ("validation split", split),
        ("exact duplicates", f"{report.exact_duplicates:,}"),
        ("near duplicates", f"{report.near_duplicates:,} of {report.near_checked:,} looked at ({share:.1%})"),
        ("control-token spellings", f"{report.control_spellings:,} documents (they stay plain text)"),
        *([("left out", f"{left[0]}, {left[1]}")] if report.dropped or report.trimmed else []),
        ("bad rows", f"{report.bad:,}" + "".join(f"; {v:,} {k}" for k, v in report.bad_rows.items())),
    ]


def show(report: DataReport, output: Path, overrides: list[str]) -> None:
    """Print the report as a table and name the next command."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from microgpt.errors import printable

    console = Console(stderr=True)
    table = Table(title="data report", show_header=False, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name, value in rows_of(report):
        table.add_row(f"[dim]{name}", escape(printable(value)))
    console.print(table)
    for line in report.bad_shown:
        console.print("  " + escape(printable(line)), style="red")
    console.print(f"\nreport: {output / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    words = shlex.join(w for w in overrides if not w.startswith(("near_duplicates", "hydra.")))
    console.print(f"next:   python -m microgpt.train {words}", highlight=False, markup=False, soft_wrap=True)


def html(report: DataReport, characters: Lengths, tokens: Lengths) -> str:
    """The report as one page that needs nothing else."""
    from html import escape

    body = "".join(f"<tr><th>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in rows_of(report))
    bad = "".join(f"<li>{escape(line)}</li>" for line in report.bad_shown)
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:"
        "light dark}th{text-align:left;padding-right:2rem;vertical-align:top}td{overflow-wrap:anywhere}"
        "figure{margin:2rem 0}svg{max-width:100%;height:auto;background:#fff}"
    )
    charts = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{histogram(values, title)}</figure>"
        for title, values in (("characters a document", characters), ("tokens a document", tokens))
    )
    faults = f"<h2>Bad rows</h2><ul>{bad}</ul>" if bad else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Data report</title><style>{style}</style>'
        f"<h1>Data report</h1><table>{body}</table>{faults}{charts}</html>\n"
    )


def histogram(lengths: Lengths, label: str) -> str:
    """A histogram as inline SVG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    values, counts = lengths.arrays()
    axes.hist(values, bins=min(60, max(1, len(values))), weights=counts, color="#3a6ea5")
    axes.set_xlabel(label)
    axes.set_ylabel("documents")
    out: Any = io.StringIO()
    figure.savefig(out, format="svg")
    text = str(out.getvalue())
    return text[text.index("<svg") :]


def main() -> int:
    """Entry point."""
    runtime.prepare_process()
    return stage_main("validate", run_validate)


if __name__ == "__main__":
    sys.exit(main())
