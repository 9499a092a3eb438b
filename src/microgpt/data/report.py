"""What a data set is like: counts, duplicates, lengths, faults. The facts of the validate stage."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.config.schema import DataConfig
from microgpt.data.documents import BadRows, read_documents
from microgpt.data.order import mixed
from microgpt.data.scan import scan
from microgpt.data.sources import Source
from microgpt.data.tally import Contents, Lengths
from microgpt.tokenizer.base import BOS, CHAT_TOKENS

NEAR_LIMIT = 50_000
NEAR_KEPT = 1_000_000  # different documents among which the near duplicates are looked for; most may be too short
SHINGLE, PERMUTATIONS, BANDS = 5, 64, 16


@dataclass
class DataReport:
    """Everything that the validate stage says of a data set."""

    sources: list[dict[str, Any]]
    documents: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    characters: int = 0
    bytes: int = 0
    empty: int = 0
    bad_rows: dict[str, int] = field(default_factory=dict)
    bad_shown: list[str] = field(default_factory=list)
    dropped: int = 0
    trimmed: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    near_checked: int = 0
    control_spellings: int = 0
    split_leakage: int = 0
    validation_documents: int = 0
    characters_per_document: dict[str, float] = field(default_factory=dict)
    tokens_per_document: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    vocab_size: int = 0
    block_size: int = 0

    @property
    def bad(self) -> int:
        """Rows that cannot be used."""
        return sum(self.bad_rows.values())

    def to_json(self) -> dict[str, Any]:
        """For report.json."""
        return asdict(self)


class NearDuplicates:
    """Finds documents that share most of their word 5-grams (MinHash with banding; Broder 1997).

    Args:
        threshold: share of 5-grams in common from which two documents count.
    """

    def __init__(self, threshold: float) -> None:
        rng = np.random.default_rng(20240713)
        self._keys = rng.integers(0, 1 << 63, PERMUTATIONS, dtype=np.uint64)
        self._buckets: dict[tuple[int, bytes], int] = {}
        self._signatures: list[npt.NDArray[np.uint64]] = []
        self.threshold, self.found, self.checked = threshold, 0, 0

    def add(self, text: str) -> None:
        """Look at one more document; shorter ones than two shingles say nothing."""
        words = text.lower().split()
        if len(words) < SHINGLE + 1 or self.checked >= NEAR_LIMIT:
            return
        self.checked += 1
        shingles = {zlib.crc32(" ".join(words[i : i + SHINGLE]).encode()) for i in range(len(words) - SHINGLE + 1)}
        hashes = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
        signature = mixed(hashes[:, None] ^ self._keys).min(axis=0)  # a linear hash would leave them correlated
        rows = PERMUTATIONS // BANDS
        candidates: set[int] = set()
        for band in range(BANDS):
            key = (band, signature[band * rows : (band + 1) * rows].tobytes())
            first = self._buckets.setdefault(key, len(self._signatures))
            if first < len(self._signatures):
                candidates.add(first)
        near = any(float((self._signatures[c] == signature).mean()) >= self.threshold for c in candidates)
        self.found += near
        self._signatures.append(signature)


def percentiles(values: npt.NDArray[np.int64] | Lengths) -> dict[str, float]:
    """p50, p90, p99, max and mean."""
    lengths = values if isinstance(values, Lengths) else Lengths(values.tolist())
    if not len(lengths):
        return {}
    p50, p90, p99 = (lengths.percentile(p) for p in (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "max": lengths.percentile(100), "mean": lengths.sum() / len(lengths)}


def advised_block_size(tokens: npt.NDArray[np.int64] | Lengths) -> int:
    """The smallest power of two that holds 99 of 100 documents, from 16 to 1,024."""
    lengths = tokens if isinstance(tokens, Lengths) else Lengths(tokens.tolist())
    wanted = lengths.percentile(99) if len(lengths) else 16.0
    size = 16
    while size < wanted and size < 1024:
        size *= 2
    return size


def inspect(sources: list[Source], data: DataConfig, near_threshold: float) -> tuple[DataReport, Lengths]:
    """Read every document once more and count; returns the report without tokens, and characters a document.

    Memory does not grow with the documents: hashes of their contents go to a temporary file, and near duplicates
    are looked for among the first.

    Raises:
        DataError: nothing can be read at all.
    """
    report = DataReport([{"path": s.path, "format": s.format, "bytes": s.bytes, "sha256": s.sha256} for s in sources])
    split = scan(sources, _skipping(data))
    bad = BadRows()
    kinds: Counter[str] = Counter()
    lengths, contents, near = Lengths(), Contents(), NearDuplicates(near_threshold)
    looked_at: set[bytes] = set()
    open_length = -1  # of the document that may still go on
    spellings = (BOS, *CHAT_TOKENS)
    for document in read_documents(sources, data, bad):
        size = len(document.text)
        report.characters += size
        report.bytes += len(document.text.encode("utf-8"))
        report.control_spellings += any(s in document.text for s in spellings)
        if document.continues:
            open_length += size
            continue
        if open_length >= 0:
            lengths.add(open_length)
        open_length = size
        kinds[document.kind] += 1
        held_out = split.is_val(document)
        report.validation_documents += held_out
        contents.add(document.content, held_out)
        if len(looked_at) < NEAR_KEPT and near.checked < NEAR_LIMIT:
            digest = hashlib.blake2b(document.content.encode("utf-8"), digest_size=12).digest()
            if digest not in looked_at:
                looked_at.add(digest)
                near.add(document.text)
    if open_length >= 0:
        lengths.add(open_length)
    report.exact_duplicates, report.split_leakage = contents.duplicates()
    report.documents, report.kinds = len(lengths), dict(kinds)
    report.empty = sum(n for reason, n in bad.counts.items() if "blank" in reason)
    report.bad_rows, report.bad_shown = bad.counts, bad.shown
    report.dropped, report.trimmed = bad.dropped, bad.trimmed
    report.near_duplicates, report.near_checked = near.found, near.checked
    report.characters_per_document = percentiles(lengths)
    return report, lengths


def _skipping(data: DataConfig) -> DataConfig:
    from dataclasses import replace

    return replace(data, on_bad_rows="skip")
