"""The thread of a model: it alone touches the engine, and writes the sequences of all requests together.

Requests come in through a queue. What the engine writes goes to the event loop in one call for all requests, and no
more often than anyone can see: a wake-up for each token would cost more than small models take to compute it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

from microgpt.inference.engine import Engine, Finish, Request, Token
from microgpt.inference.load import Model
from microgpt.model.shapes import parameter_shapes
from microgpt.serving.metrics import Metrics
from microgpt.serving.refusal import Refusal, later
from microgpt.serving.ticket import Choice, Part, Ticket

WRITE_S = 0.01  # between two hand-overs; first tokens and ends do not wait
fault_log = logging.getLogger("microgpt.faults")


class Worker:
    """A model that is being served.

    Args:
        name: as clients call it.
        model: loaded; its engine belongs to the worker's thread from now on.
        queue: sequences that may wait in line.
        metrics: where to count.
    """

    def __init__(self, name: str, model: Model, queue: int, metrics: Metrics) -> None:
        self.name, self.model, self.created = name, model, int(time.time())
        self.load = 0  # sequences whose end the event loop has not heard of
        self._capacity = model.engine.slots + queue
        self._engine: Engine = model.engine
        self._inbox: SimpleQueue[Ticket | None] = SimpleQueue()
        self._outbox: list[tuple[Ticket, Part | Refusal]] = []
        self._running: set[Choice] = set()
        self._drawn = 0
        self._urgent, self._handed = False, 0.0
        self._holders, self._retired = 0, False
        self._loop = asyncio.get_running_loop()
        self._tokens, self._batch = metrics.tokens.labels(name), metrics.batch.labels(name)
        self._first, self._each = metrics.first.labels(name), metrics.each.labels(name)
        metrics.waiting.labels(name).set_function(lambda: max(0, self.load - len(self._engine.active)))
        metrics.active.labels(name).set_function(lambda: len(self._engine.active))
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    # ---- the event loop's side

    @property
    def card(self) -> dict[str, Any]:
        """What `/v1/models` says of the model."""
        tokenizer, config = self.model.tokenizer, self.model.config
        shapes = parameter_shapes(config, tokenizer.vocab_size).values()
        facts = {
            "chat": tokenizer.is_chat,
            "block_size": config.block_size,
            "vocab_size": tokenizer.vocab_size,
            "parameters": sum(math.prod(shape) for shape in shapes),
        }
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "microgpt",
            "microgpt": facts,
        }

    @contextmanager
    def held(self) -> Generator[Worker]:
        """Keeps the thread alive between the choice of this worker and the last `submit`."""
        self._holders += 1
        try:
            yield self
        finally:
            self._holders -= 1
            self._end_if_done()

    def retire(self) -> None:
        """End the thread when all that was submitted, or will be by who holds this worker, is written."""
        self._retired = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._retired and not self._holders:
            self._inbox.put(None)

    def submit(self, requests: Sequence[Request], stream: bool) -> Ticket:
        """Put a request in line.

        Raises:
            Refusal: the line is too long.
        """
        if self.load and self.load + len(requests) > self._capacity:
            raise later(429, "too many requests are waiting for this model; ask again in a moment", "queue_full")
        ticket = Ticket(requests, self.model.tokenizer, stream)
        self.load += len(requests)
        self._inbox.put(ticket)
        return ticket

    def _arrive(self, batch: Sequence[tuple[Ticket, Part | Refusal]]) -> None:
        """Hand the parts of a step on to those who wait for them."""
        for ticket, part in batch:
            self.load -= ticket.arrive(part)

    # ---- the thread's side

    def _run(self) -> None:
        busy = ended = False
        while busy or not ended:
            try:
                while not (busy and self._inbox.empty()):
                    ticket = self._inbox.get()
                    busy = True
                    if ticket is None:
                        ended = True
                    else:
                        self._begin(ticket)
                together = len(self._engine.active)
                busy = self._engine.step()
                if together := max(together, len(self._engine.active)):
                    self._batch.observe(together)
            except Exception as error:
                busy = False
                self._fail(error)
            self._hand_on(not busy)

    def _hand_on(self, idle: bool) -> None:
        """Count the tokens, and send what was written to the event loop if it is time."""
        if self._drawn:
            self._tokens.inc(self._drawn)
            self._drawn = 0
        now = time.monotonic()
        if self._outbox and (idle or self._urgent or now - self._handed > WRITE_S):
            batch, self._outbox = self._outbox, []
            self._urgent, self._handed = False, now
            with suppress(RuntimeError):  # the event loop has closed: the process is about to end
                self._loop.call_soon_threadsafe(self._arrive, batch)

    def _begin(self, ticket: Ticket) -> None:
        for choice in ticket.choices:
            self._running.add(choice)
            choice.job = self._engine.submit(choice.request, lambda event, choice=choice: self._take(choice, event))
        if ticket.cancelled:  # before there was a job to cancel
            ticket.cancel()

    def _take(self, choice: Choice, event: Token | Finish) -> None:
        now = time.monotonic()
        if isinstance(event, Token):
            self._drawn += 1
            if not choice.count:
                self._urgent = True
                choice.first = now
                self._first.observe(now - choice.ticket.begun)
            choice.last = now
        else:
            self._running.discard(choice)
            self._urgent = True
            if choice.count > 1:
                self._each.observe((choice.last - choice.first) / (choice.count - 1))
        part = choice.take(event)
        if part is not None:
            self._outbox.append((choice.ticket, part))

    def _fail(self, error: Exception) -> None:
        """Fail every request; the next ones get a fresh engine on the same model."""
        fault_log.error("model %s failed in a step", self.name, exc_info=error)
        full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch has its own
        if full:
            refusal = later(503, "there is not enough memory; ask for less, or again in a moment", "out_of_memory")
        else:
            refusal = Refusal(500, "the model failed; the server's log says why", code="model_failed")
        self._engine = Engine(self._engine.backend, self._engine.slots)
        for ticket in {choice.ticket for choice in self._running}:
            self._outbox.append((ticket, refusal))
        self._running.clear()
