"""The thread behind a model: a step that fails ends the requests that were in it, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import microgpt
from microgpt.config.schema import SamplingConfig
from microgpt.inference.engine import Backend, Request
from microgpt.serving.metrics import Metrics
from microgpt.serving.refusal import Refusal
from microgpt.serving.ticket import Part, Ticket
from microgpt.serving.worker import Worker


class Breaking:
    """A backend that fails when it reads a certain prompt or token."""

    def __init__(self, inner: Backend, evil: int, fault: Exception) -> None:
        self.inner, self.evil, self.fault = inner, evil, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def prefill(self, row: int, ids: Sequence[int]) -> Any:
        if self.evil in ids:
            raise self.fault
        return self.inner.prefill(row, ids)


def run(
    talker: Path, use: Callable[[Worker], Any], slots: int = 2, queue: int = 2, fault: Exception | None = None
) -> Any:
    """Use a worker on an event loop."""

    async def main() -> Any:
        model = microgpt.load(talker, "cpu", 2, compiled="never")
        if fault is not None:
            model.engine.backend = Breaking(model.engine.backend, EVIL, fault)  # type: ignore[assignment]
        worker = Worker("m", model, 2, Metrics())
        try:
            return await asyncio.wait_for(use(worker), 60)
        finally:
            worker.retire()
            await asyncio.to_thread(worker._thread.join, 60)
            assert not worker._thread.is_alive()

    return asyncio.run(main())


EVIL = 77


def request(*prompt: int, tokens: int = 5) -> Request:
    return Request(prompt or (0, 50), SamplingConfig(max_new_tokens=tokens, min_new_tokens=tokens), [0], 1)


async def parts_of(ticket: Ticket) -> list[Part]:
    found: list[Part] = []
    while parts := await ticket.more():
        found.extend(parts)
    return found


@pytest.mark.parametrize(
    "fault, status, code",
    [(RuntimeError("secret"), 500, "model_failed"), (MemoryError(), 503, "out_of_memory")],
)
def test_a_step_that_fails_ends_its_requests_and_the_next_ones_are_answered(
    talker: Path, fault: Exception, status: int, code: str
) -> None:
    async def use(worker: Worker) -> None:
        for _ in range(3):
            with pytest.raises(Refusal) as caught:
                await parts_of(worker.submit([request(0, EVIL)], False))
            assert (caught.value.status, caught.value.code) == (status, code)
            assert "secret" not in caught.value.message
            assert worker.load == 0
            (part,) = await parts_of(worker.submit([request()], False))
            assert (part.count, part.finish) == (5, "length")

    run(talker, use, fault=fault)


def test_a_line_that_is_full_refuses_and_takes_again_when_it_has_moved(talker: Path) -> None:
    async def use(worker: Worker) -> None:
        first = worker.submit([request(tokens=100)] * 4, True)
        with pytest.raises(Refusal) as caught:
            worker.submit([request()], True)
        assert caught.value.status == 429
        assert caught.value.headers == {"retry-after": "1"}
        first.cancel()
        assert {part.finish for part in await parts_of(first)} >= {"cancelled"}
        assert len(await parts_of(worker.submit([request()] * 4, False))) == 4
        assert len(await parts_of(worker.submit([request()] * 9, False))) == 9  # an empty line takes any one request

    run(talker, use)


def test_a_request_is_cancelled_before_its_turn(talker: Path) -> None:
    async def use(worker: Worker) -> None:
        running = worker.submit([request(tokens=100)] * 2, True)
        waiting = worker.submit([request(tokens=100)], True)
        waiting.cancel()
        (part,) = await parts_of(waiting)
        assert (part.finish, part.count) == ("cancelled", 0)
        assert running.open
        await parts_of(running)

    run(talker, use)


def test_who_holds_a_retired_worker_may_still_submit(talker: Path) -> None:
    async def use(worker: Worker) -> None:
        with worker.held():
            worker.retire()
            await asyncio.sleep(0.05)
            ticket = worker.submit([request()], False)
        (part,) = await parts_of(ticket)
        assert part.count == 5

    run(talker, use)


def test_a_stream_and_a_whole_answer_are_made_of_the_same(talker: Path) -> None:
    async def use(worker: Worker) -> None:
        (whole,) = await parts_of(worker.submit([request(tokens=60)], False))
        parts = await parts_of(worker.submit([request(tokens=60)], True))
        assert "".join(part.text for part in parts) == whole.text
        assert (parts[-1].count, parts[-1].finish) == (whole.count, whole.finish) == (60, "length")

    run(talker, use)
