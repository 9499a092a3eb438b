"""Tensor files read with distrust, without torch.

The safetensors library refuses truncated and overlapping files but takes duplicate keys, other shapes and NaN. So
the header is read here first and held against what the config says, before anything large is allocated.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.errors import ModelError

MAX_HEADER = 16 << 20
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "BF16", "F16")
MEND = "take the file from its source again, or another checkpoint"
Header = dict[str, tuple[str, tuple[int, ...], int, int]]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def read_header(path: Path) -> tuple[Header, int]:
    """The tensors of a safetensors file: name to (dtype, shape, begin, end), and where their bytes start.

    Raises:
        ModelError: it is no safetensors file, or says something impossible.
    """

    def wrong(reason: str) -> ModelError:
        return ModelError(f"{path} is not a usable safetensors file: {reason[:300]}", MEND)

    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise wrong("it is shorter than its header")
            (length,) = struct.unpack("<Q", start)
            if length > min(MAX_HEADER, size - 8):
                raise wrong("its header is longer than the file" if length > size - 8 else "its header is too long")
            raw = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", MEND) from None
    except (ValueError, RecursionError) as error:
        raise wrong(f"header {str(error)[:80]}") from None
    if not isinstance(raw, dict):
        raise wrong("its header is not an object")
    entries: dict[str, Any] = raw
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise wrong(f"{len(entries):,} tensors")
    header: Header = {}
    try:
        for name, entry in entries.items():
            begin, end = (int(v) for v in entry["data_offsets"])
            if len(entry["shape"]) > MAX_DIMENSIONS:
                raise wrong(f"a tensor of {len(entry['shape']):,} dimensions")
            shape = tuple(int(v) for v in entry["shape"])
            dtype = str(entry["dtype"])
            if dtype not in WIDTHS:
                raise wrong(f"{name} has dtype {dtype}")
            count = 1
            for dim in shape:
                count *= dim
            if min(shape, default=0) < 0 or not 0 <= begin <= end <= size - 8 - length:
                raise wrong(f"{name} lies outside the file")
            if count * WIDTHS[dtype] != end - begin:
                raise wrong(f"{name} has another size than its shape")
            header[name] = (dtype, shape, begin, end)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise wrong("an entry of its header is malformed") from None
    at = 0
    for name, (_, _, begin, end) in sorted(header.items(), key=lambda item: item[1][2:]):
        if begin != at:
            raise wrong(f"{name} overlaps or leaves a gap")
        at = end
    if at != size - 8 - length:
        raise wrong("bytes that belong to no tensor, or bytes missing")
    return header, 8 + length


def check_shapes(path: Path, header: Header, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Hold a file's tensors against what a model needs.

    Raises:
        ModelError: a tensor is missing, foreign, of another shape, or not of floats.
    """
    missing, foreign = sorted(set(expected) - set(header)), sorted(set(header) - set(expected))
    if missing or foreign:
        what = f"misses {', '.join(missing[:3])}" if missing else f"has unknown {', '.join(foreign[:3])}"
        raise ModelError(f"{path} does not fit its config: it {what[:300]}", MEND)
    for name, shape in expected.items():
        dtype, found, _, _ = header[name]
        if found != shape:
            raise ModelError(f"{path} does not fit its config: {name} is {found}, not {shape}", MEND)
        if dtype not in FLOATS:
            raise ModelError(f"{path} does not fit its config: {name} holds {dtype}", MEND)


def read_arrays(path: Path, header: Header, start: int) -> dict[str, npt.NDArray[Any]]:
    """All tensors as arrays; floats as float32 (float64 stays).

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size > start else np.empty(0, np.uint8)
    for name, (dtype, shape, begin, end) in header.items():
        raw = np.array(data[start + begin : start + end])
        if dtype == "BF16":
            array = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif dtype == "F16":
            array = raw.view(np.float16).astype(np.float32)
        else:
            kinds = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32}
            array = raw.view(kinds.get(dtype, np.uint8))
        if dtype in FLOATS and not np.isfinite(array).all():
            raise ModelError(f"{path}: {name} holds NaN or infinity", "take an earlier checkpoint")
        arrays[name] = array.reshape(shape)
    return arrays
