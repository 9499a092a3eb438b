"""Validate counts everything, shows the first faults, and refuses bad data with exit code 3."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(warm_anywhere, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report on 203 lines: 200 of their own, one twice, one that spells a control token, one empty."""
    home = tmp_path_factory.mktemp("validate")
    lines = [f"the {i}th line tells of {'many ' * (i % 7)}things, {i * i} in all" for i in range(200)]
    lines += [lines[5], "a line with <bos> in it", "", lines[7]]
    (home / "data.txt").write_text("\n".join(lines) + "\n")
    words = ["data.path=data.txt", "data.document=line", "tokenizer=char", "tracking=off", "hydra.run.dir=out"]
    done = warm_anywhere("validate", *words, cwd=home)
    found = json.loads((home / "out" / "report.json").read_text())
    return found | {"said": done.stderr, "html": (home / "out" / "report.html").read_text()}


def test_the_report_counts_documents_characters_bytes_and_tokens(report: dict[str, Any]) -> None:
    assert report["documents"] == 203
    assert report["bytes"] == report["characters"] > 203 * 20
    assert report["tokens"] > report["characters"], "each document's BOS counts"
    assert set(report["tokens_per_document"]) >= {"p50", "p90", "p99", "max"}
    assert report["block_size"] >= report["tokens_per_document"]["p50"]


def test_the_report_finds_duplicates_and_control_token_spellings(report: dict[str, Any]) -> None:
    assert report["exact_duplicates"] == 2
    assert report["control_spellings"] == 1
    assert report["near_checked"] > 0
    assert report["split_leakage"] == 0, "the split is by content: a duplicate cannot straddle it"
    assert 0 < report["validation_documents"] < 60


def test_the_page_needs_nothing_else_and_has_histograms(report: dict[str, Any]) -> None:
    assert report["html"].count("<svg") == 2
    for outside in ('src="http', "<script", '<link rel="stylesheet"'):
        assert outside not in report["html"]


def test_the_table_names_the_block_size_and_the_next_command(report: dict[str, Any]) -> None:
    assert "block_size to choose" in report["said"]
    assert "python -m microgpt.train" in report["said"]


def test_bad_rows_exit_3_with_their_count_and_the_first_five(warm, tmp_path: Path) -> None:
    rows = [f'{{"text": "a good row number {i}"}}' for i in range(100)]
    for at in (3, 10, 20, 30, 40, 50):
        rows[at - 1] = "{broken"
    rows[59] = '{"text": 7}'
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    words = ["data.path=rows.jsonl", "data.schema=text", "tokenizer=char", "hydra.run.dir=out"]
    done = warm("validate", *words, code=3)
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error:")]
    assert "7 bad rows" in line
    for number in (3, 10, 20, 30, 40):
        assert re.search(rf"rows\.jsonl\D+{number}\b", line), line
    assert "2 more" in line
    assert "data.on_bad_rows=skip" in line
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum(report["bad_rows"].values()) == 7
    assert len(report["bad_shown"]) == 5
    assert report["documents"] == 93
    assert (tmp_path / "out" / "report.html").exists(), "the report is written all the same"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "FAILED"
    skipped = warm("validate", *words[:3], "data.on_bad_rows=skip", "hydra.run.dir=skipped")
    assert "error:" not in skipped.stderr


def test_an_encoding_fault_is_named_with_file_and_line(warm, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_bytes(b"good line\n" * 50 + b"bad \xff\xfe line\n" + b"good again\n" * 50)
    done = warm("validate", "data.path=data.txt", "tokenizer=char", "hydra.run.dir=out", code=3)
    assert "data.txt" in done.stderr
    assert "51" in done.stderr


def test_names_of_files_with_markup_are_inert_in_the_page(warm, tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    (folder / "data.txt").write_text("".join(f"<img src=x onerror=alert({i})>\n" for i in range(60)))
    warm("validate", "data.path=['<script>alert(1)<']", "tokenizer=char", "hydra.run.dir=out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page


def test_data_that_is_not_there_is_one_line(warm) -> None:
    done = warm("validate", "data.path=nowhere.txt", "hydra.run.dir=out", code=3)
    (line,) = done.stderr.strip().splitlines()
    assert "nowhere.txt" in line
