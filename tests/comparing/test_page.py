"""compare.html stands alone: no network, no foreign script, usable by keyboard and screen reader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from microgpt.comparing.choose import chosen
from microgpt.comparing.comparison import compared
from microgpt.comparing.page import page
from microgpt.comparing.report import report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\"'&amp;"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: no browser to test with")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


OpenPage = Callable[..., "Page"]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Write the page of all runs and open it from its file; at the end it has asked nobody and nothing complained."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_page(**options: Any) -> Page:
        told = report(compared(chosen(["all"])))
        path = tmp_path / "compare.html"
        path.write_text(page(told, "now"), encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
        shown.on("request", lambda asked: complaints.append(asked.url) if asked.url != path.as_uri() else None)
        shown.goto(path.as_uri())
        shown.wait_for_selector("#curves svg, #curves:not(:empty)")
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def column(shown: Page, number: int) -> list[str]:
    return shown.locator(f"#runs-table tbody tr > :nth-child({number})").all_inner_texts()


def test_it_opens_from_a_file_and_sorts_by_any_column(opened: OpenPage, sweep: Path) -> None:
    shown = opened()
    told = json.loads(shown.locator("#data").inner_text() or shown.locator("#data").text_content() or "")
    assert told == report(compared(chosen(["all"])))
    assert shown.locator("#runs-table tbody tr").count() == 12
    assert column(shown, 4)[0] == f"{told['runs'][0]['best_val_loss']:.4f}"
    head = shown.get_by_role("columnheader", name="validation loss")
    assert head.get_attribute("aria-sort") == "ascending"
    up = column(shown, 4)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(shown, 4) == [*reversed(up[:-1]), up[-1]], "the run without a loss stays at the end"
    shown.get_by_role("columnheader", name="run", exact=True).get_by_role("button").press("Enter")
    assert column(shown, 2) == [str(number) for number in range(12)], "10 stands behind 9"
    assert head.get_attribute("aria-sort") is None


def test_curves_change_with_the_axis_and_the_ticks(opened: OpenPage, sweep: Path) -> None:
    shown = opened()
    drawn = shown.locator("#curves polyline")
    assert drawn.count() == 11
    assert shown.locator("#curves polyline.seen").count() == 8
    every = "lines => lines.map((line) => line.getAttribute('points'))"
    steps = drawn.evaluate_all(every)
    for axis in ("tokens", "flops", "seconds"):
        shown.locator("select[name=axis]").select_option(axis)
        label = shown.locator("#curves svg").get_attribute("aria-label") or ""
        assert {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}[axis] in label
    assert drawn.evaluate_all(every) != steps, "half of the runs were twice as slow"
    shown.locator("select[name=curve]").select_option("both")
    assert drawn.count() == 22
    shown.get_by_role("button", name="Clear the ticks").click()
    assert shown.locator("#curves polyline.seen").count() == 0
    shown.get_by_label("draw 3 in colour").press("Space")
    assert shown.locator("#legend li").all_inner_texts() == ["3 learning_rate=0.001 seed=1"]
    assert "3" in shown.locator("#curves-told").inner_text(), "a run that has the focus is named"
    assert shown.locator("#parallel polyline.pointed").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: OpenPage, sweep: Path, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    found = axe.Axe().run(opened(color_scheme=scheme))
    assert found.violations_count == 0, found.generate_report()


def test_names_and_settings_with_markup_are_shown_and_do_nothing(opened: OpenPage, write: Any) -> None:
    for number in (1, 2):
        write(
            f"day/{number}<img src=x onerror=alert(1)>",
            {10: 3.0 / number},
            words=(f"data.path={HOSTILE}{number}",),
            settings={"data.text_field": HOSTILE + str(number)},
            status=HOSTILE if number == 1 else "FAILED",
            error=HOSTILE,
        )
    shown = opened()
    assert shown.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in column(shown, 2)[0]
    assert "</script><script>alert(1)</script>" in shown.locator("#runs-table").inner_text()
    assert "\x1b" not in (shown.locator("body").text_content() or "")


def test_without_any_curve_it_still_opens(opened: OpenPage, write: Any) -> None:
    write("day/a", {}, status="FAILED")
    assert "No run has a validation loss yet." in opened().locator("body").inner_text()


class Outside(HTMLParser):
    """Collects everything that would make a browser ask for something, or run what the policy does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            f"{tag} {k}" for k, _ in attrs if k in ("src", "href", "style", "action") or k.startswith("on")
        ]


def test_the_file_names_nothing_outside_and_only_its_own_script_may_run(sweep: Path) -> None:
    text = page(report(compared(chosen([str(sweep)]))), "now")
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


def test_hundreds_of_runs_make_a_page_of_a_few_megabytes_and_nothing_heavy_is_imported(write: Any) -> None:
    for number in range(100):
        steps = range(1, 30)
        write(f"s-sweep/{number}", {s: 2 + 1 / s + number / 1000 for s in steps}, words=(f"seed={number}",))
    code = (
        "import sys; sys.argv=['compare','runs=outputs/s-sweep','hydra.run.dir=made']\n"
        "from microgpt.compare import main\n"
        "code = main()\n"
        "print(sorted({'torch','mlflow','pytorch_lightning','transformers'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[] 0", done.stderr
    assert "100 runs" in done.stderr
    assert Path("made/compare.html").stat().st_size < 3_000_000
    assert (Path("made") / "curves.png").read_bytes().startswith(b"\x89PNG")
