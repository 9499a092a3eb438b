"""What `/metrics` tells, in Prometheus' text format, from a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PER_TOKEN = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
RATES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"microgpt_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"microgpt_{name}", text, ("model",), registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], label: str = "model") -> Histogram:
            return Histogram(f"microgpt_{name}", text, (label,), buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "Requests answered.", "path", "status")
        self.request_seconds = histogram(
            "request_duration_seconds", "Time from a request to the end of its answer.", SECONDS, "path"
        )
        self.conversations = counter("conversations", "Conversations that were replied to.", "model")
        self.tokens = counter("tokens_generated", "Tokens that the model wrote.", "model")
        self.prompt_tokens = counter("prompt_tokens", "Tokens that the model read.", "model")
        self.rate = histogram(
            "tokens_per_second", "Tokens a second of a whole answer, from the request to its end.", RATES
        )
        self.first = histogram("time_to_first_token_seconds", "Time from a request to its first token.", SECONDS)
        self.each = histogram("time_per_token_seconds", "Mean time between the tokens of a sequence.", PER_TOKEN)
        self.batch = histogram("batch_size", "Sequences that were decoded together in a step.", SIZES)
        self.waiting = gauge("queue_depth", "Sequences that wait in line.")
        self.active = gauge("active_sequences", "Sequences that are being written.")

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has ended, by its route: clients could make up any number of paths."""
        path = getattr(scope.get("route"), "path", "other")
        self.requests.labels(path, status).inc()
        self.request_seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
