"""The figures that the original program is known by, to every published digit.

They hold for one file, github.com/karpathy/makemore names.txt. Set MICROGPT_DATA_DIR to a folder with it.
"""

from __future__ import annotations

import hashlib
import math
import os
from itertools import islice
from pathlib import Path

import pytest

from microgpt.reference import PRESETS, Training, corpus, read_documents

FOLDER = os.environ.get("MICROGPT_DATA_DIR")
pytestmark = pytest.mark.skipif(
    not FOLDER or not Path(FOLDER, "names.txt").is_file(),
    reason="MICROGPT_DATA_DIR names no folder with names.txt, which the published figures are for",
)


@pytest.fixture(scope="module")
def documents() -> list[str]:
    path = Path(str(FOLDER), "names.txt")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == corpus.NAMES_SHA256
    return read_documents(path)


def test_the_data_is_what_the_figures_are_for(documents: list[str]) -> None:
    assert len(documents) == 32_033
    assert len(set(documents)) == 29_494


def test_losses_of_the_first_five_steps(documents: list[str]) -> None:
    training = Training(documents, PRESETS["current"], seed=42)
    assert len(training.model.parameters()) == 4192
    losses = [f"{step.loss:.4f}" for step in islice(training.steps(), 5)]
    assert losses == ["3.3660", "3.4243", "3.1778", "3.0664", "3.2209"]


@pytest.mark.slow
def test_losses_of_the_whole_run(documents: list[str]) -> None:
    training = Training(documents, PRESETS["current"], seed=42)
    losses = [step.loss for step in training.steps()]
    assert [f"{loss:.4f}" for loss in losses[998:]] == ["2.4730", "2.6497"]
    means = [sum(losses[a - 1 : b]) / 50 for a, b in ((1, 50), (151, 200), (951, 1000))]
    assert [f"{mean:.3f}" for mean in means] == ["2.851", "2.532", "2.323"]


def test_the_first_revision_has_4064_weights_and_knows_nothing_at_first(documents: list[str]) -> None:
    training = Training(documents, PRESETS["first"], seed=42)
    assert len(training.model.parameters()) == 4064
    # No loss of this revision is published. With layers that add nothing and a small read-out, every
    # token is about equally likely.
    assert training.step().loss == pytest.approx(math.log(27), abs=0.1)
