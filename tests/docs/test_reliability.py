"""The table of promises is whole, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = {
    "T": (1, 2, 3, 4, 5, 7, 9, 10, 11, 13, 14, 15, 16, 17),
    "C": (1, 2, 3, 4, 6, 7, 9, 10, 12, 14),
    "M": (1, 2, 3, 6, 8, 9, 10),
    "D": (1, 2, 4, 5, 7, 9, 10, 11, 12, 14),
    "H": (1, 2, 3, 4, 5),
    "F": (1, 3, 4, 5),
}


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 70
    for path, name in named:
        assert name in functions_of(ROOT / path), f"{path} has no {name}"


def test_every_row_of_the_table_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "what happens" not in line]
    assert all("`tests/" in row.split("|")[4] for row in rows)


def test_every_promise_is_there_once() -> None:
    for letter, numbers in PROMISES.items():
        found = [int(n) for n in re.findall(rf"^\| {letter}(\d+) \|", PAGE, re.MULTILINE)]
        assert found == list(numbers), letter
