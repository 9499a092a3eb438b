"""The fixtures of tests/stages, for runs that are tracked."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_path = Path(__file__).parents[1] / "stages" / "conftest.py"
_spec = importlib.util.spec_from_file_location("stages_for_tracking", _path)
assert _spec is not None
assert _spec.loader is not None
_stages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stages)
small, warm_anywhere, warm = _stages.small, _stages.warm_anywhere, _stages.warm
