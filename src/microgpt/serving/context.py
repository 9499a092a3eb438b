"""What all answers need: the models, the counters, the time limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from microgpt.inference.engine import Request
from microgpt.serving.metrics import Metrics
from microgpt.serving.models import Models
from microgpt.serving.ticket import Ticket
from microgpt.serving.worker import Worker


@dataclass(frozen=True)
class Context:
    """Shared by the routes of a server.

    Attributes:
        models: that are served.
        metrics: count.
        limit_s: seconds that an answer may take.
    """

    models: Models
    metrics: Metrics
    limit_s: float

    def submit(self, worker: Worker, requests: Sequence[Request], stream: bool = False) -> Ticket:
        """Put a request in line.

        Raises:
            Refusal: the line is too long.
        """
        ticket = worker.submit(requests, stream)
        self.metrics.prompt_tokens.labels(worker.name).inc(sum(len(request.prompt) for request in requests))
        return ticket

    def ended(self, worker: Worker, ticket: Ticket, tokens: int) -> None:
        """Count the speed of an answer that has that many tokens."""
        if tokens:
            self.metrics.rate.labels(worker.name).observe(tokens / max(1e-9, time.monotonic() - ticket.begun))
