"""What the package promises as a whole: plain Python, a decided surface, no surprises on import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from microgpt import reference

FILES = sorted(Path(reference.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", reference.__all__)
def test_every_exported_name_exists_and_is_documented(name: str) -> None:
    member = getattr(reference, name)
    if callable(member) and not hasattr(member, "__args__"):  # type aliases carry no docstring
        assert member.__doc__


def test_modules_export_nothing_that_the_package_forgets() -> None:
    private = {"corpus": {"NAMES_SHA256", "NAMES_URL"}}
    for module in ("adam", "corpus", "gpt", "tokenizer", "train", "value", "weights"):
        exported = set(getattr(reference, module).__all__)
        assert exported - private.get(module, set()) <= set(reference.__all__)


def test_nothing_is_imported_but_python_itself_and_rich_where_needed() -> None:
    for path in FILES:
        if path.name.startswith("bench"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or (top == "rich" and path.name == "__main__.py")


def test_importing_prints_nothing_loads_nothing_heavy_and_leaves_randomness_alone() -> None:
    check = (
        "import random, sys; random.seed(0); state = random.getstate(); before = set(sys.modules)\n"
        "import microgpt.reference, microgpt.reference.__main__\n"
        "assert random.getstate() == state\n"
        "heavy = {'numpy', 'torch', 'rich', 'urllib.request'} & (set(sys.modules) - before)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
