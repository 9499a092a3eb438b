"""What a tokenizing has finished, so that the next start goes on from there after a kill.

The token files of an unfinished set are appended to in a hidden folder beside its place. After every shard of text
they are synced, and then the journal is replaced in one step: it says how much of each file is whole. Whatever stands
behind that is cut off by the next start. A digest of the text read so far proves that it is the same text.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.data.documents import BadRows
from microgpt.data.encode import BATCH_CHARACTERS
from microgpt.data.scan import Split
from microgpt.tokenizer.base import Tokenizer
from microgpt.tokenizer.load import load_tokenizer

NAME = "journal.json"
TOKENIZER = "tokenizer.json"
FORGOTTEN_AFTER = 30 * 86400


@dataclass
class Journal:
    """How far a set is.

    Attributes:
        batches: of text that are written.
        digest: of that text.
        sets: (documents, positions) of each set that are whole.
        numbers: counts so far, as `Encoded.numbers`.
        batch_characters: size of a batch, which must not change on the way.
    """

    batches: int = 0
    digest: str = ""
    sets: dict[str, tuple[int, int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    batch_characters: int = BATCH_CHARACTERS

    def write(self, folder: Path, split: Split) -> None:
        """Put it down; what it tells of must be on the disk."""
        files.write_json(folder / NAME, {"split": asdict(split), "journal": asdict(self)})


def begun(folder: Path) -> tuple[Split, Tokenizer, Journal] | None:
    """What an earlier start has left to go on from, or None."""
    try:
        told: Any = files.read_json(folder / NAME)
        split = Split(**told["split"])
        split.bad = BadRows(**told["split"]["bad"])
        journal = Journal(**told["journal"])
        journal.sets = {name: (int(d), int(p)) for name, (d, p) in journal.sets.items()}
        if journal.batch_characters != BATCH_CHARACTERS:
            return None
        return split, load_tokenizer(folder / TOKENIZER), journal
    except Exception:  # none, one of another release, or damaged: what it tells of is made again
        return None


def part_of(folder: Path) -> Path:
    """Where an unfinished set stands."""
    return folder.with_name(f".{folder.name}.part")


def clear_parts(cache: Path) -> None:
    """Remove unfinished sets that nobody can go on with, or has for a month; one that is being made has its lock."""
    for path in cache.glob(".*.part"):
        with suppress(OSError), files.waiting_lock(cache / f"{path.name.split('.')[1]}.lock", wait=False) as ours:
            old = path.stat().st_mtime < time.time() - FORGOTTEN_AFTER
            if ours and (old or not (path / NAME).exists()):
                shutil.rmtree(path, ignore_errors=True)
