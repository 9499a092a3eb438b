"""Binary frames for browsers, and the framing of the pipe between server and worker."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

PREFIX = struct.Struct("<II")
Floats = npt.NDArray[np.float32]


def packed(tensors: Mapping[str, Floats]) -> tuple[list[dict[str, Any]], bytes]:
    """The header's list of tensors, and their numbers one after the other."""
    listed: list[dict[str, Any]] = []
    parts: list[bytes] = []
    offset = 0
    for name, values in tensors.items():
        listed.append({"name": name, "shape": list(values.shape), "offset": offset})
        parts.append(np.ascontiguousarray(values, dtype="<f4").tobytes())
        offset += values.size
    return listed, b"".join(parts)


def frame(header: Mapping[str, Any], payload: bytes) -> bytes:
    """What goes over a WebSocket: see `messages.FrameHeader`."""
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + payload


def unframed(content: bytes) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The header and tensors of a frame."""
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    numbers = np.frombuffer(content, dtype="<f4", offset=4 + length)
    return header, unpacked(header["tensors"], numbers)


def unpacked(listed: list[dict[str, Any]], numbers: Floats) -> dict[str, Floats]:
    """Tensors by name."""
    found: dict[str, Floats] = {}
    for entry in listed:
        count = int(np.prod(entry["shape"], dtype=np.int64))
        found[entry["name"]] = numbers[entry["offset"] : entry["offset"] + count].reshape(entry["shape"])
    return found


def in_json(listed: list[dict[str, Any]], payload: bytes) -> dict[str, Any]:
    """Tensors as `messages.Tensor`."""
    numbers = np.frombuffer(payload, dtype="<f4")
    return {
        name: {"shape": list(values.shape), "f32": base64.b64encode(values.tobytes()).decode()}
        for name, values in unpacked(listed, numbers).items()
    }


def from_json(tensors: Mapping[str, Any]) -> dict[str, Floats]:
    """Tensors of `messages.Tensor`.

    Raises:
        ValueError: one is not what its shape says.
    """
    return {
        name: np.frombuffer(base64.b64decode(t["f32"], validate=True), dtype="<f4").reshape(t["shape"])
        for name, t in tensors.items()
    }


class Pipe:
    """The worker's end: whole messages over a socket, each a JSON object with bytes behind it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self.closed = False

    def send(self, message: Mapping[str, Any], blob: bytes = b"") -> None:
        """Write a message; the server always reads."""
        text = json.dumps(message).encode()
        self._socket.settimeout(None)
        try:
            self._socket.sendall(PREFIX.pack(len(text), len(blob)) + text + blob)
        except OSError:
            self.closed = True

    def receive(self, timeout: float | None) -> dict[str, Any] | None:
        """The next message, or None where none has come in time or the server is gone.

        Args:
            timeout: seconds; 0 only looks, None waits.
        """
        while (found := self._whole()) is None:
            self._socket.settimeout(timeout)
            try:
                piece = self._socket.recv(1 << 16)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                piece = b""
            if not piece:
                self.closed = True
                return None
            self._buffer += piece
        return found

    def _whole(self) -> dict[str, Any] | None:
        if len(self._buffer) < PREFIX.size:
            return None
        length, more = PREFIX.unpack_from(self._buffer)
        end = PREFIX.size + length + more
        if len(self._buffer) < end:
            return None
        message = json.loads(bytes(self._buffer[PREFIX.size : PREFIX.size + length]))
        del self._buffer[:end]
        return message
