"""Imports go downwards only: whoever opens the house finds it as the design draws it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "microgpt"

# Top to bottom. Rooms on one line do not import each other.
FLOORS = [
    {"cli"},
    {"hub", "lab", "serving"},
    {"web"},
    {"pipeline"},
    {"validate", "train", "evaluate", "compare", "export.__main__"},
    {"scaling"},
    {"training", "export", "comparing"},
    {"sweeps"},
    {"inference", "tracking"},
    {"runs", "checkpoints"},
    {"data", "model"},
    {"tokenizer"},
    {"config"},
    {"files", "runtime"},
    {"errors"},
    {"reference"},
]
# A run is found by its checkpoints, so runs/ may look into checkpoints/; the oracle's weights convert there too.
ALLOWED = {("runs", "checkpoints")}


def room_of(module: str) -> str:
    """The room that a module below microgpt belongs to."""
    parts = module.split(".")
    if parts[:2] == ["export", "__main__"]:
        return "export.__main__"
    return parts[0]


def floor_of(room: str) -> int:
    for i, rooms in enumerate(FLOORS):
        if room in rooms:
            return i
    raise AssertionError(f"{room} is not in the picture: add it to FLOORS and to docs/architecture.md")


def imported(tree: ast.AST, package: str) -> set[str]:
    """Modules of this package that a module imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                found.add(".".join([*base, node.module or ""]).strip("."))
            elif node.module == "microgpt":
                found.update(f"microgpt.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("microgpt."):
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("microgpt."))
    return {m.removeprefix("microgpt.") for m in found if m != "microgpt"}


MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_downwards(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    mine = room_of(module)
    package = "microgpt." + module.rpartition(".")[0] if "." in module else "microgpt"
    for other in imported(ast.parse(path.read_text()), package):
        theirs = room_of(other)
        if theirs == mine or (mine, theirs) in ALLOWED:
            continue
        assert floor_of(theirs) > floor_of(mine), f"{module} (floor {mine}) imports {other} (floor {theirs})"


def test_reference_imports_nothing_here() -> None:
    for path in (ROOT / "reference").glob("*.py"):
        package = "microgpt.reference"
        for other in imported(ast.parse(path.read_text()), package):
            assert room_of(other) == "reference", f"{path.name} imports {other}"
