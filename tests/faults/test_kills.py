"""Killed at random moments, half of them inside a save, a run loses nothing (T1, C1, C6), and the harness is proved:
with fsync, rename or checksum taken out of the code, it fails.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from killing import Harness
from warm import Warm, warm_process

PACKAGE = Path(__file__).parents[2] / "src" / "microgpt"


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_moments_a_run_ends_with_equal_bits(
    warm: Warm, unbroken: Path, tmp_path: Path, seed: int, torture: bool
) -> None:
    kills = 200 if torture else 20
    tally = Harness(warm, tmp_path, unbroken, seed).torment(kills)
    assert tally.kills == kills
    assert tally.in_a_save >= kills * 0.4
    assert tally.power_cuts >= kills * 0.4
    assert tally.damaged > 0
    assert tally.runs > 0


@dataclass
class TakenOut:
    """A protection that is taken out of the code, and what the harness then finds."""

    file: str
    changes: dict[str, str]
    found: str
    kills: int
    ends: tuple[str, ...] = ("kill",)
    spoiling: float = 0.0


#: what the short version leaves out, since it costs the import of torch each time
LONG_ONLY = ("fsync of small files", "fsync of metrics")
SYNC = "os.fsync(file.fileno())"
WEAKENED = {
    "fsync of checkpoint files": TakenOut(
        "files.py", {f"                {SYNC}": "                pass"}, "torn checkpoint", 4, ("names",)
    ),
    "fsync of small files": TakenOut(
        "files.py", {f"            {SYNC}\n        os": "            pass\n        os"}, "run.json", 4, ("names",)
    ),
    "fsync of folders": TakenOut("files.py", {"os.fsync(handle)": "pass"}, "was saved", 6, ("strictly",)),
    "fsync of metrics": TakenOut("training/saving.py", {"self.folder.sync()": "pass"}, "train/loss", 2, ("names",)),
    "rename": TakenOut(
        "files.py",
        {
            "        os.chmod(temporary, 0o755)": "        temporary = target\n        target.mkdir(exist_ok=True)",
            "    put_in_place(temporary, target)": "    pass",
            "        shutil.rmtree(temporary, ignore_errors=True)\n\n\ndef finish": "        pass\n\n\ndef finish",
        },
        "torn checkpoint|token cache .* is damaged",
        10,
    ),
    "checksum": TakenOut(
        "checkpoints/folder.py", {'files.sha256_file(path) != entry["sha256"]': "False"}, "step-", 6, spoiling=1.0
    ),
}


@pytest.mark.parametrize("what", WEAKENED)
def test_without_a_protection_the_harness_finds_the_loss(
    what: str, unbroken: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, torture: bool
) -> None:
    if what in LONG_ONLY and not torture:
        pytest.skip("in make torture")
    taken = WEAKENED[what]
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "microgpt", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("conf", "corpora"):
        shutil.copytree(PACKAGE.parents[1] / folder, source / "microgpt" / folder)
    path = source / "microgpt" / taken.file
    text = path.read_text()
    for old, new in taken.changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {taken.file}"
        text = text.replace(old, new)
    path.write_text(text)
    with warm_process(tmp_path_factory.mktemp("streams"), source) as weakened:
        harness = Harness(weakened, tmp_path, unbroken, 1, taken.ends, taken.spoiling)
        with pytest.raises(AssertionError, match=taken.found):
            harness.torment(taken.kills)
