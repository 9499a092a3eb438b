"""A checkpoint of an earlier release goes on with equal losses (C14). Each release leaves one here, never changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from warm import Warm

from microgpt.runs.folder import read_metrics

RELEASES = sorted(Path(__file__).parent.glob("release-*"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda p: p.name)
def test_a_run_of_an_earlier_release_goes_on_with_equal_losses(warm: Warm, release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path, dirs_exist_ok=True)
    said = warm.run("train", "resume=run", cwd=tmp_path)
    assert "resumed at step 20 of 40" in " ".join(said.split())
    found = read_metrics(tmp_path / "run")
    for key, values in json.loads((release / "expected.json").read_text()).items():
        assert len(values) > 0
        for step, value in values.items():
            # other processors and versions of torch differ in the last bits
            assert found[key][int(step)] == pytest.approx(value, rel=1e-3), f"{key} at step {step}"


def test_there_is_a_release_to_compare_with() -> None:
    assert RELEASES
