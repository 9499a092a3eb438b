"""The decoding engine: sequences join and leave a running batch token by token (continuous batching).

A backend computes logits; the engine decides who is computed, draws the tokens and ends the sequences. It belongs to
one thread. No torch here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.inference.sampling import Drawing, Floats, log_probabilities, next_tokens

SLOTS = 32
PROMPT_BUDGET = 512  # prompt tokens read between two tokens of those who are already writing


class Backend(Protocol):
    """A model that keeps the keys and values of several sequences, one a row; rows in use are 0 .. n-1."""

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    def prefill(self, row: int, ids: Sequence[int]) -> Floats:
        """Begin a sequence in a row: read a prompt of at least one id; logits [vocab_size] after its last one."""
        ...

    def decode(self, tokens: Sequence[int]) -> Floats:
        """Read one more token in each of the rows 0 .. len(tokens)-1; logits [rows, vocab_size], the caller's own."""
        ...

    def move(self, source: int, target: int) -> None:
        """Copy a sequence into another row, whose own is forgotten."""
        ...


@dataclass(frozen=True)
class Request:
    """A sequence to be written.

    Attributes:
        prompt: ids to go on from, at least one, fewer than block_size.
        sampling: how to draw; `stop` is not looked at here but where ids become text.
        ends: ids that end the job.
        seed: of this job.
        bias: added to the logits of ids.
        top: how many of the likeliest tokens to tell with each token; None tells no probabilities.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig
    ends: Sequence[int]
    seed: int = 0
    bias: Mapping[int, float] | None = None
    top: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was drawn.

    Attributes:
        id: the token.
        logprob: its log-probability in nats by the model's own distribution, None where not asked for.
        top: the likeliest tokens and their log-probabilities, best first.
    """

    id: int
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a job.

    Attributes:
        reason: `end` (the model drew an end token), `length` (the limit or the context), `cancelled`.
        token: the end token that was drawn, or None.
    """

    reason: str
    token: int | None = None


Sink = Callable[[Token | Finish], None]


@dataclass(eq=False)
class Job:
    """A sequence on its way through the engine."""

    request: Request
    sink: Sink
    drawing: Drawing
    cancelled: bool = False
    done: bool = False

    def cancel(self) -> None:
        """End it before its next token; may be called from any thread."""
        self.cancelled = True


class Engine:
    """Writes sequences with a backend.

    Args:
        backend: the model, with at least `slots` rows.
        slots: sequences that are written at the same time; the others wait in line.
    """

    def __init__(self, backend: Backend, slots: int = SLOTS) -> None:
        self.backend, self.slots = backend, slots
        self.waiting: deque[Job] = deque()
        self.active: list[Job] = []  # the i-th is in row i
        self._last: list[int] = []

    @property
    def block_size(self) -> int:
        """Tokens of the context."""
        return self.backend.config.block_size

    def submit(self, request: Request, sink: Sink) -> Job:
        """Put a sequence in line; `sink` gets its tokens, then its Finish, from within `step`."""
        if not 0 < len(request.prompt) < self.block_size:
            raise ValueError(f"a prompt of {len(request.prompt)} tokens in a context of {self.block_size}")
        drawing = Drawing(request.sampling, request.prompt, request.ends, request.seed, request.bias)
        job = Job(request, sink, drawing)
        self.waiting.append(job)
        return job

    def step(self) -> bool:
        """Read prompts of those who wait, then write one token of every active sequence; False when idle."""
        for job in self.active:
            if job.cancelled:
                self._finish(job, Finish("cancelled"))
        self._drop_finished()
        if any(job.cancelled for job in self.waiting):
            for job in [j for j in self.waiting if j.cancelled]:
                self.waiting.remove(job)
                self._finish(job, Finish("cancelled"))
        self._admit()
        if self.active:
            self._draw(self.backend.decode(self._last), self.active)
            self._drop_finished()
        return bool(self.active or self.waiting)

    def _admit(self) -> None:
        """Begin sequences that wait while rows and the budget of prompt tokens allow."""
        budget, begun = PROMPT_BUDGET, 0
        while self.waiting and len(self.active) < self.slots:
            job = self.waiting[0]
            size = len(job.request.prompt)
            if begun and size > budget:
                break
            budget -= size
            self.waiting.popleft()
            row = len(self.active)
            logits = self.backend.prefill(row, job.request.prompt)
            self.active.append(job)
            self._last.append(0)
            begun += 1
            self._draw(logits[None], [job], row)
            self._drop_finished()

    def _draw(self, logits: Floats, jobs: Sequence[Job], first: int = 0) -> None:
        """Draw a token for each sequence from logits [sequences, vocab_size] and hand it on."""
        told = {i: logits[i].copy() for i, s in enumerate(jobs) if s.request.top is not None}
        tokens = next_tokens(logits, [s.drawing for s in jobs])
        for i, (job, token) in enumerate(zip(jobs, tokens)):
            request, drawing = job.request, job.drawing
            if token in request.ends:
                self._finish(job, Finish("end", token))
                continue
            drawing.take(token)
            self._last[first + i] = token
            if i in told and request.top is not None:
                job.sink(Token(token, *log_probabilities(told[i], token, request.top)))
            else:
                job.sink(Token(token))
            # the last token of a full context is drawn but need not be read
            if drawing.count >= request.sampling.max_new_tokens or len(drawing.history) > self.block_size:
                self._finish(job, Finish("length"))

    def _finish(self, job: Job, finish: Finish) -> None:
        job.done = True
        job.sink(finish)

    def _drop_finished(self) -> None:
        """Close the gaps: the last row moves into the place of one that has ended."""
        row = 0
        while row < len(self.active):
            if not self.active[row].done:
                row += 1
                continue
            last, token = self.active.pop(), self._last.pop()
            if row < len(self.active):
                self.backend.move(len(self.active), row)
                self.active[row], self._last[row] = last, token

    def stream(self, request: Request) -> Generator[Token | Finish]:
        """The events of one sequence, the engine driven by whoever reads them; closing the iterator ends it."""
        events: deque[Token | Finish] = deque()
        job = self.submit(request, events.append)
        try:
            while True:
                while not events:
                    self.step()
                event = events.popleft()
                yield event
                if isinstance(event, Finish):
                    return
        finally:
            if not job.done:
                job.cancel()
                self.step()
