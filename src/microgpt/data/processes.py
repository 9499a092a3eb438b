"""Encoding in processes of their own: `python -m microgpt.data.processes` answers batches until its input ends.

Texts go over as JSON and tokens come back as the bytes of arrays: nothing is pickled, the user's own script is not
started again, and a worker whose parent was killed sees its input end, and ends.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any, BinaryIO, cast

import numpy as np

from microgpt.data.documents import Document
from microgpt.data.encode import Encoded, Encoder, Rules
from microgpt.data.shards import Span
from microgpt.errors import DataError, MicrogptError, OutOfMemoryError
from microgpt.tokenizer.base import Tokenizer

SIZE = struct.Struct("<q")


class Here:
    """Encodes in threads of this process: the library's part of a batch runs beside Python's part of another."""

    ahead = 2

    def __init__(self, tokenizer: Tokenizer, rules: Rules) -> None:
        self._tokenizer, self._rules = tokenizer, rules
        self._pool = ThreadPoolExecutor(2)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, batch: list[Document]) -> Future[Encoded]:
        """Begin to encode a batch."""
        return self._pool.submit(Encoder(self._tokenizer, self._rules).encoded, batch)


class Processes:
    """Encodes in several processes.

    Args:
        count: how many.
        tokenizer, rules: as `Encoder`.
    """

    def __init__(self, count: int, tokenizer: Tokenizer, rules: Rules) -> None:
        self.ahead = count + 1
        self._pool = ThreadPoolExecutor(count)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        # each is one core's work: the library's own threads would only get in each other's way
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        first = json.dumps({"tokenizer": tokenizer.to_json(), "rules": asdict(rules)}).encode()
        self._all = [
            subprocess.Popen(
                [sys.executable, "-m", "microgpt.data.processes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # a Ctrl-C is for the parent alone
            )
            for _ in range(count)
        ]
        for process in self._all:
            with suppress(OSError):  # one that has died is told of when it is asked
                _send(cast(BinaryIO, process.stdin), first)
            self._idle.put(process)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()  # it owns nothing that could be left half done
        self._pool.shutdown(cancel_futures=True)
        for process in self._all:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    cast(BinaryIO, pipe).close()
            process.wait()

    def submit(self, batch: list[Document]) -> Future[Encoded]:
        """Begin to encode a batch."""
        return self._pool.submit(self._asked, batch)

    def _asked(self, batch: list[Document]) -> Encoded:
        process = self._idle.get()
        try:
            rows = [(d.text, None if d.content == d.text else d.content, d.continues, d.turns) for d in batch]
            _send(cast(BinaryIO, process.stdin), json.dumps(rows, ensure_ascii=False).encode())
            return _encoded(cast(BinaryIO, process.stdout))
        except OSError:
            code = process.wait()
            if code == -9:  # nobody but the system kills it so
                raise OutOfMemoryError(
                    "a tokenizing process was killed, as it happens when memory is used up",
                    "lower data.tokenize_workers and start again: it goes on where it stopped",
                ) from None
            raise MicrogptError(
                f"a tokenizing process ended with code {code}",
                "start again: it goes on where it stopped; data.tokenize_workers=0 uses no process",
            ) from None
        finally:
            self._idle.put(process)


def _send(pipe: BinaryIO, *parts: Any) -> None:
    for part in parts:
        content = part if isinstance(part, bytes) else part.tobytes()
        pipe.write(SIZE.pack(len(content)))
        pipe.write(content)
    pipe.flush()


def _received(pipe: BinaryIO) -> bytes:
    """The next message; OSError where the other side has gone."""
    head = pipe.read(SIZE.size)
    if len(head) < SIZE.size:
        raise BrokenPipeError
    content = pipe.read(SIZE.unpack(head)[0])
    if len(content) < SIZE.unpack(head)[0]:
        raise BrokenPipeError
    return content


def _encoded(pipe: BinaryIO) -> Encoded:
    told = json.loads(_received(pipe))
    if "wrong" in told:
        raise DataError(*told["wrong"])
    spans: dict[str, Span] = {}
    for name, dtype, masked in told["spans"]:
        tokens = np.frombuffer(_received(pipe), dtype)
        starts = np.frombuffer(_received(pipe), np.int64)
        spans[name] = Span(tokens, starts, np.frombuffer(_received(pipe), np.uint8) if masked else None)
    return Encoded(spans, told["numbers"])


def _answer(encoder: Encoder, rows: list[Any], pipe: BinaryIO) -> None:
    batch = [
        Document(text, "", text if content is None else content, continues, tuple((r, t) for r, t in turns))
        for text, content, continues, turns in rows
    ]
    try:
        encoded = encoder.encoded(batch)
    except DataError as error:
        _send(pipe, json.dumps({"wrong": [error.what, error.mend]}).encode())
        return
    spans = [(name, span.tokens.dtype.name, span.mask is not None) for name, span in encoded.spans.items()]
    arrays = [a for s in encoded.spans.values() for a in (s.tokens, s.starts, s.mask) if a is not None]
    _send(pipe, json.dumps({"spans": spans, "numbers": encoded.numbers}).encode(), *arrays)


def main() -> None:
    """Answer batches."""
    from microgpt.tokenizer.load import parse_tokenizer

    source, answers = sys.stdin.buffer, sys.stdout.buffer
    with suppress(OSError):
        told = json.loads(_received(source))
        encoder = Encoder(parse_tokenizer(told["tokenizer"], "the tokenizer"), Rules(**told["rules"]))
        while True:
            _answer(encoder, json.loads(_received(source)), answers)
    os._exit(0)  # a half-written answer to a parent that has gone is nothing to complain of


if __name__ == "__main__":
    main()
