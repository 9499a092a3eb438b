"""Lightning comes without what torchmetrics would import beside it, and is whole all the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "microgpt"
ASK = """
import sys, microgpt.training.fit, microgpt.training.together
found = {"matplotlib", "scipy", "transformers"} & set(sys.modules)
from lightning_utilities.core.imports import RequirementCache, package_available
from importlib.util import find_spec
print(sorted(found), find_spec("scipy") is not None, package_available("scipy"))
print(bool(RequirementCache("matplotlib>=1")))
"""


def test_what_trains_imports_no_scipy_matplotlib_or_transformers_and_hides_them_from_nobody_later() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True", "True", "True"]


def test_lightning_is_imported_in_one_place_only() -> None:
    taken = re.compile(r"^\s*(from|import) (pytorch_lightning|lightning_fabric|lightning|torchmetrics)\b", re.M)
    found = {p.relative_to(SOURCE).as_posix() for p in SOURCE.rglob("*.py") if taken.search(p.read_text())}
    assert found == {"training/lightning.py"}
