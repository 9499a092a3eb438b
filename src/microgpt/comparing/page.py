"""compare.html: one file that stands alone, opens without a network, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from microgpt.comparing.report import cell
from microgpt.errors import printable

STATIC = Path(__file__).parent / "static"
#: how many runs are drawn in a colour of their own at first
MARKED = 8


def inert(value: Any) -> str:
    """A text of a run as HTML that shows it and does nothing else."""
    return html.escape(printable(str(value)))


def data_block(told: dict[str, Any]) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(told, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def digest(text: str) -> str:
    """How a content security policy names an inline text."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def number(value: float | None, digits: int = 4) -> str:
    """A loss, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def amount(value: float | None) -> str:
    """A count as people write it: 950, 1.23 M, 4.56 T."""
    if value is None:
        return "–"
    for size, sign in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {sign}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as people write them."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _th(text: str, *, sort: str = "", right: bool = False) -> str:
    side = ' class="right"' if right else ""
    order = f' aria-sort="{sort}"' if sort and sort != "none" else ""
    return f'<th scope="col"{side}{order}><button type="button">{inert(text)}</button></th>'


def _td(shown: str, value: Any, *, right: bool = False) -> str:
    """A cell with what it is sorted by; a missing value has none."""
    side = ' class="right"' if right else ""
    key = "" if value is None else f' data-v="{inert(value)}"'
    return f"<td{side}{key}>{shown}</td>"


def _status(run: dict[str, Any]) -> str:
    said = f'<span class="status {inert(run["status"].lower())}">{inert(run["status"].lower())}</span>'
    return said + (f' <span class="why">{inert(run["error"])}</span>' if run["error"] else "")


def runs_table(told: dict[str, Any]) -> str:
    """Every run, best first; the page's script sorts it by any column."""
    keys, by_bytes = told["keys"], told["measure"] == "val/bpb"
    loss_sort, bits_sort = ("none", "ascending") if by_bytes else ("ascending", "none")
    head = [
        '<th scope="col">drawn</th>', _th("run"), _th("status"),
        _th("validation loss", sort=loss_sort, right=True), _th("bits a byte", sort=bits_sort, right=True),
        _th("best at step", right=True), _th("steps", right=True),
        *(_th(key) for key in keys),
        _th("parameters", right=True), _th("tokens", right=True), _th("FLOPs", right=True), _th("time", right=True),
    ]  # fmt: skip
    body: list[str] = []
    for i, run in enumerate(told["runs"]):
        name = inert(run["name"])
        mark = " checked" if i < MARKED and run["score"] is not None else ""
        of = f" of {run['max_steps']:,}" if run["max_steps"] and run["max_steps"] != run["steps"] else ""
        settings = [(cell(run["settings"][key]), run["settings"][key]) for key in keys]
        cells = [
            f'<td><label><input type="checkbox" data-run="{i}"{mark}><span class="swatch" data-run="{i}"></span>'
            f'<span class="unseen">draw {name} in colour</span></label></td>',
            f'<th scope="row" data-v="{inert(run["name"])}" title="{inert(run["id"])}">{name}</th>',
            _td(_status(run), run["status"]),
            _td(number(run["best_val_loss"]), run["best_val_loss"], right=True),
            _td(number(run["best_val_bpb"]), run["best_val_bpb"], right=True),
            _td("–" if run["best_step"] is None else f"{run['best_step']:,}", run["best_step"], right=True),
            _td(f"{run['steps']:,}{of}", run["steps"], right=True),
            *(_td(inert(shown), shown if value is not None else None) for shown, value in settings),
            _td(amount(run["parameters"]), run["parameters"], right=True),
            _td(amount(run["tokens"]), run["tokens"], right=True),
            _td(amount(run["flops"]), run["flops"], right=True),
            _td(duration(run["seconds"]), run["seconds"], right=True),
        ]
        body.append(f'<tr data-run="{i}">{"".join(cells)}</tr>')
    return _table("runs-table", "Runs", head, body)


def _table(name: str, title: str, head: Iterable[str], body: Iterable[str]) -> str:
    return (
        f'<div class="scroll" role="region" aria-label="{title}, table" tabindex="0"><table id="{name}">'
        f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _plain(*names: str, right: Iterable[str] = ()) -> list[str]:
    return [f'<th scope="col"{" class=right" if n in right else ""}>{n}</th>' for n in names]


def importance_table(told: dict[str, Any]) -> str:
    """Settings by importance, with how that was found."""
    found = told["importance"]
    if not found["weights"]:
        return "<p>No setting differs between runs that have a validation loss, so there is nothing to explain.</p>"
    with_forest = found["fit"] is not None
    head = _plain(
        "setting", *(["importance"] if with_forest else []), "rank correlation", "values", "best run has",
        right=("rank correlation", "values"),
    )  # fmt: skip
    body: list[str] = []
    for w in found["weights"]:
        share = ""
        if with_forest:
            width = 120 * (w["share"] or 0.0)
            share = (
                f'<td><svg class="bar" width="120" height="10" aria-hidden="true"><rect width="120" height="10"/>'
                f'<rect class="full" width="{width:.1f}" height="10"/></svg> {100 * (w["share"] or 0.0):.0f} %</td>'
            )
        rank = "–" if w["correlation"] is None else f"{w['correlation']:+.2f}".replace("-", "−")
        body.append(
            f'<tr><th scope="row">{inert(w["key"])}</th>{share}<td class="right">{rank}</td>'
            f'<td class="right">{w["values"]}</td><td>{inert(cell(w["best"]))}</td></tr>'
        )
    said = (
        f"A random forest of {found['runs']} runs predicts a run's place from its settings; a setting is as "
        "important as the prediction gets worse when its values are shuffled among the runs (permutation "
        f"importance, Breiman 2001). On runs that a tree has not seen the forest explains "
        f"R² = {found['fit']:.2f} of the order"
        f"{'' if found['fit'] >= 0.3 else ': too little to trust the shares'}. "
        if with_forest
        else f"With {found['runs']} runs a forest would tell noise (it needs 8 that differ), so only the correlation "
        "is shown. "
    )
    said += (
        "The rank correlation is Spearman's, with the best loss: below 0, larger values went with lower losses. "
        "It is no proof of a cause."
    )
    return _table("importance-table", "Parameter importance", head, body) + f'<p class="quiet">{said}</p>'


def budget_table(told: dict[str, Any], axis: str) -> str:
    """The best runs within each amount of compute or time."""
    rows = told["budgets"][axis]
    what = "compute" if axis == "flops" else "time"
    if not rows:
        return f"<p>No run tells its {what}.</p>"
    head = _plain(
        f"{what} up to", f"best, {told['unit']}", "run", "at step", "parameters", "then", "runs that used it all",
        right=(f"{what} up to", f"best, {told['unit']}", "at step", "parameters", "runs that used it all"),
    )  # fmt: skip
    body: list[str] = []
    for row in rows:
        first, rest = row["best"][0], row["best"][1:]
        run = told["runs"][first["run"]]
        size = duration(row["amount"])
        if axis == "flops":  # 29.3 GFLOPs, 950 FLOPs
            size = amount(row["amount"]) + ("FLOPs" if row["amount"] >= 1000 else " FLOPs")
        then = ", ".join(f"{inert(told['runs'][p['run']]['name'])} {number(p['score'])}" for p in rest)
        body.append(
            f'<tr><th scope="row" class="right">{size}</th><td class="right">{number(first["score"])}</td>'
            f'<td>{inert(run["name"])}</td><td class="right">{first["step"]:,}</td>'
            f'<td class="right">{amount(run["parameters"])}</td><td>{then or "–"}</td>'
            f'<td class="right">{row["spent"]}</td></tr>'
        )
    return _table(f"{axis}-table", f"Best at equal {what}", head, body)


def lede(told: dict[str, Any]) -> str:
    """The result in one sentence."""
    first = told["runs"][0]
    if first["score"] is None:
        return "No run has a validation loss yet."
    bits = "" if first["best_val_bpb"] is None else f", {number(first['best_val_bpb'])} bits a byte"
    chosen = ", ".join(f"{inert(k)}={inert(cell(first['settings'][k]))}" for k in told["swept"][:6])
    return (
        f"Best is run <strong>{inert(first['name'])}</strong>{f' ({chosen})' if chosen else ''}: "
        f"{number(first['best_val_loss'])} nats a token{bits} at step {first['best_step']:,}."
    )


def page(told: dict[str, Any], made: str) -> str:
    """The whole page.

    Args:
        told: of `report`.
        made: when, for the foot.
    """
    style = (STATIC / "compare.css").read_text(encoding="utf-8")
    script = (STATIC / "compare.js").read_text(encoding="utf-8")
    count = len(told["runs"])
    parts = {
        "POLICY": f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; base-uri 'none'; "
        "form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": data_block(told),
        "TITLE": f"{count} run{'s' if count != 1 else ''} compared",
        "LEDE": lede(told),
        "NOTES": "".join(f"<li>{inert(note)}</li>" for note in told["notes"]),
        "UNIT": told["unit"],
        "RUNS": runs_table(told),
        "IMPORTANCE": importance_table(told),
        "FLOPS": budget_table(told, "flops"),
        "SECONDS": budget_table(told, "seconds"),
        "MADE": inert(made),
    }
    text = (STATIC / "compare.html").read_text(encoding="utf-8")
    pieces = text.split("@@")  # NAME between each pair; nothing that is put in is looked at again
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))
