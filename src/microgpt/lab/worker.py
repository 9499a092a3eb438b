"""`python -m microgpt.lab.worker FD`: the process of one session, which trains, looks and records.

Requests come over a socket and are answered in order, between two steps. What streams is sent only after the server
has said that somebody has taken the last of it, so that a stalled browser costs nothing.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from microgpt import runtime

runtime.prepare_process()
import torch  # noqa: E402 - after the allocator is set up

from microgpt.config.schema import TrackingConfig  # noqa: E402
from microgpt.errors import MicrogptError  # noqa: E402
from microgpt.lab import branch  # noqa: E402
from microgpt.lab.answers import inspect, trace, weights  # noqa: E402
from microgpt.lab.events import events_before, number, train_step  # noqa: E402
from microgpt.lab.follow import Follower  # noqa: E402
from microgpt.lab.frames import Pipe  # noqa: E402
from microgpt.lab.learner import Learner, Stepped  # noqa: E402
from microgpt.lab.messages import Metadata, Place, Sample, Start  # noqa: E402
from microgpt.lab.recipe import configured, prepared_recipe  # noqa: E402
from microgpt.lab.record import STATES, Record, new_folder  # noqa: E402
from microgpt.lab.refusals import printable, told  # noqa: E402
from microgpt.lab.streams import Streams  # noqa: E402
from microgpt.lab.studio import Studio  # noqa: E402
from microgpt.runs.folder import read_run  # noqa: E402

FLUSH_S = 0.03
POLL_S = 0.5
EVENTS_S = 1 / 30
MOST_BAD = 3
Answering = Callable[[dict[str, Any]], dict[str, Any]]
THREADED = 1_000_000
SAMPLES, SAMPLE_TIMES = 4, 10


class Worker:
    """A session's loop.

    Args:
        pipe: to the server.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.studio: Studio | None = None
        self.record: Record | None = None
        self.session_id = self.name = ""
        self.parent: Place | None = None
        self.tracking = TrackingConfig(kind="off")
        self.generation = 0
        self.left = 0
        self.following = False
        self.polled = -math.inf
        self.delay = 0.0
        self.next_at = self.flushed = self.evented = 0.0
        self.events = 0
        self.rows: list[list[float | None]] = []
        self.streams = Streams()
        self.ops: dict[str, Answering] = {
            "begin": self.begin, "fork": self.fork, "step": self.step, "run": self.run_steps, "pause": self.pause,
            "reset": self.reset, "sample": self.sample, "inspect": self._asked(inspect), "watch": self.watch,
            "want": self.want, "snapshot": self.snapshot, "attach": self.attach, "trace": self._asked(trace),
            "weights": self._asked(weights), "leave": self.leave,
        }  # fmt: skip

    def _asked(self, look: Callable[[Studio, dict[str, Any]], dict[str, Any]]) -> Answering:
        """A look at whatever session there is."""
        return lambda message: look(self._ready(), message)

    @property
    def running(self) -> bool:
        """Whether it is training by itself."""
        return self.left > 0

    def serve(self) -> None:
        """Until the server is gone."""
        while not self.pipe.closed:
            now = time.monotonic()
            idle = POLL_S if isinstance(self.studio, Follower) else None
            wait = max(0.0, self.next_at - now) if self.running else 0.0 if self._streaming() else idle
            message = self.pipe.receive(wait)
            while message is not None:
                self._answer(message)
                message = self.pipe.receive(0)
            if self.running and time.monotonic() >= self.next_at and not self.pipe.closed:
                self._guarded(self._train)
            self._guarded(self._follow)
            if self._streaming():
                self._guarded(partial(self.streams.send, self._ready(), self.pipe, self.running))
            if self.rows and (not self.running or time.monotonic() - self.flushed >= FLUSH_S):
                self._guarded(self._flush)
        self.left = 0
        if self.record is not None:
            self._guarded(self.record.end)

    def _streaming(self) -> bool:
        """Whether a frame is to be sent."""
        return self.studio is not None and bool(self.streams.due(self.studio.live.step, self.running))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Whatever fails between requests is told to the page; training stops, the past can still be looked at."""
        try:
            work()
        except (MicrogptError, MemoryError, OSError, RuntimeError, ValueError) as error:
            self.left = 0
            self.pipe.send({"event": "fault", "detail": told(error)})
            self._status()

    def _answer(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any]
        try:
            answer = self.ops[message["op"]](message)
        except MicrogptError as error:
            answer = {"error": told(error), "status": 422}
        except Busy as busy:
            answer = {"error": str(busy), "status": 409}
        except (MemoryError, OSError, RuntimeError, ValueError, LookupError) as error:
            print(f"lab: {message['op']} failed: {error!r}", file=sys.stderr, flush=True)
            answer = {"error": "the session could not do that; the server's log says why", "status": 500}
        if "id" in message:
            blob: Any = answer.pop("blob", b"")
            self.pipe.send({"re": message["id"], **answer}, blob)

    # ---- beginning

    def begin(self, message: dict[str, Any]) -> dict[str, Any]:
        """A fresh session."""
        start = Start.model_validate(message["start"])
        recipe = prepared_recipe(configured(start))
        self.session_id, self.name = message["session_id"], start.name
        self.tracking = TrackingConfig(**message["tracking"])
        set_threads(recipe.prepared.tokenizer.vocab_size * recipe.config.model.n_embd)
        self._open(new_folder(self.session_id), lambda states: Studio(recipe, states))
        return self._described()

    def fork(self, message: dict[str, Any]) -> dict[str, Any]:
        """A session that goes on from a step of another."""
        asked = branch.Asked.model_validate(message["fork"])
        recipe, state = branch.taken(asked)
        self.session_id, self.name, self.parent = message["session_id"], asked.name, asked.parent
        self.tracking = TrackingConfig(**message["tracking"])
        set_threads(recipe.prepared.tokenizer.vocab_size * recipe.config.model.n_embd)
        path = new_folder(self.session_id)
        self._open(path, lambda states: branch.studio(asked, recipe, state, states))
        assert self.record is not None
        self.record.take(Path(asked.run), asked.step)
        return self._described()

    def attach(self, message: dict[str, Any]) -> dict[str, Any]:
        """A run folder."""
        run = Path(message["run"])
        self.session_id, self.name = message["session_id"], printable(str(read_run(run).get("name", "")))[:64]
        self.studio = Follower(run)
        self._follow()
        return self._described()

    def _follow(self) -> None:
        """Tell what is new of a run that is followed."""
        studio, now = self.studio, time.monotonic()
        if not isinstance(studio, Follower) or now - self.polled < POLL_S:
            return
        self.polled = now
        rows, _ = studio.poll()
        if rows:
            self.pipe.send({"event": "rows", "rows": rows, "recorded": studio.history.steps})
        if studio.running != self.following:
            self.following = studio.running
            completed = studio.live.step >= studio.live.end
            self.pipe.send({"event": "status", "running": self.following, "completed": completed})

    def _open(self, path: Path, studio: Callable[[Path], Studio]) -> None:
        """Make the run folder and the studio that records into it."""
        parent = None if self.parent is None else self.parent.model_dump()
        self.studio = studio(path / STATES)
        self.record = Record(path, self.studio.live, self.name, parent, self.tracking)
        self.studio.keep(True)

    def _described(self) -> dict[str, Any]:
        studio = self._ready()
        run = studio.run if isinstance(studio, Follower) else self._recorded().folder.path
        kind = "run" if isinstance(studio, Follower) else "live"
        metadata: Metadata = studio.metadata(kind, self.name, str(run), self.parent, self.generation)
        return {"metadata": metadata.model_dump(mode="json")}

    def leave(self, message: dict[str, Any]) -> dict[str, Any]:
        """End the session; the process can begin another."""
        self.left = 0
        if self.record is not None:
            self.record.end()
        self.studio = self.record = self.parent = None
        self.generation = 0
        self.following = False
        self.polled = -math.inf
        self.rows, self.streams = [], Streams()
        return {}

    # ---- driving

    def _ready(self) -> Studio:
        if self.studio is None:
            raise Busy("the session has not begun")
        return self.studio

    def _recorded(self) -> Record:
        if self.record is None:
            raise Busy("this session follows a run; fork it to train on")
        return self.record

    def _may_step(self) -> Studio:
        studio = self._ready()
        self._recorded()
        if self.running:
            raise Busy("the session is running; pause it first")
        if studio.live.step >= studio.live.end:
            raise Busy(f"training is complete: all {studio.live.end} steps are done; reset or fork to go on")
        return studio

    def step(self, message: dict[str, Any]) -> dict[str, Any]:
        """One step, with all its token events."""
        self._may_step()
        event = self._advance(True)
        self._flush()
        self._ended()
        return {"event": event}

    def run_steps(self, message: dict[str, Any]) -> dict[str, Any]:
        """Steps by itself from now on."""
        studio = self._may_step()
        rest = studio.live.end - studio.live.step
        self.left = rest if message["to_end"] else min(int(message["steps"]), rest)
        self.delay, self.next_at = message["delay_ms"] / 1000, time.monotonic()
        self._status()
        return {"steps": self.left}

    def pause(self, message: dict[str, Any]) -> dict[str, Any]:
        """Stop after the step that is being made."""
        was, self.left = self.running, 0
        self._flush()
        if was:
            self._status()
        return {}

    def reset(self, message: dict[str, Any]) -> dict[str, Any]:
        """Begin again, as a new run."""
        studio = self._ready()
        self.left = 0
        self._recorded().end()
        self.rows.clear()
        self.generation += 1
        self.parent = None
        recipe, off = studio.recipe, studio.off
        path = new_folder(self.session_id)
        self._open(path.with_name(f"{path.name}-{self.generation}"), lambda states: Studio(recipe, states, off))
        self.streams.again()
        return self._described()

    def _train(self) -> None:
        self.left -= 1
        full = self.events > 0 and (self.delay > 0 or time.monotonic() - self.evented >= EVENTS_S)
        event = self._advance(full)
        self.next_at = time.monotonic() + self.delay
        if event is not None:
            self.events -= 1
            self.evented = time.monotonic()
        if self.delay >= FLUSH_S:
            self._flush()
        if not self.running:
            self._flush()
            self._status()
            self._ended()

    def _advance(self, full: bool) -> dict[str, Any] | None:
        """One step; a full one gives the event that the page of prior art draws."""
        studio, record = self._ready(), self._recorded()
        live = studio.live
        before = events_before(live) if full else None
        done = studio.advance(watched=full or self.streams.need_movement)
        if live.bad_steps > MOST_BAD:
            self.left = 0
            self.pipe.send(
                {"event": "fault", "detail": "training diverged; fork from an earlier step with less rate"}
            )
        val = self._validated(live, done)
        row = [done.step, number(done.loss), done.learning_rate, number(done.grad_norm), done.step_ms, done.tokens]
        self.rows.append([*row, val])
        record.add(done.step, done.loss, done.learning_rate, done.grad_norm, done.tokens, val)
        if done.step % max(1, live.end // SAMPLE_TIMES) == 0:
            self._sampled()
        if before is None:
            return None
        event = train_step(done, live.end, studio.mean_change(), before)
        self.pipe.send({"event": "train_step", "message": event})
        return event

    def _validated(self, live: Learner, done: Stepped) -> float | None:
        every = live.config.trainer.eval_interval or 1
        if done.step % every and done.step != live.end:
            return None
        return number(live.loss()[0])

    def _sampled(self) -> None:
        studio = self._ready()
        temperature = min(2.0, max(0.01, studio.recipe.config.sampling.temperature))
        asked = Sample(num_samples=SAMPLES, temperature=temperature, off=[])
        step, texts = studio.samples(asked)
        if self.record is not None:
            self.record.samples(step, texts)
        self._say_samples(asked, step, texts)

    def _say_samples(self, asked: Sample, step: int, texts: list[str]) -> dict[str, Any]:
        message = {
            "v": 1, "type": "samples", "samples": texts, "temperature": asked.temperature,
            "num_samples": asked.num_samples, "step": step, "prompt": asked.prompt,
            "off": [unit.model_dump() for unit in asked.off],
        }  # fmt: skip
        self.pipe.send({"event": "samples", "message": message})
        return message

    def _flush(self) -> None:
        rows, self.rows = self.rows, []
        self.flushed = time.monotonic()
        if rows:
            self.pipe.send({"event": "rows", "rows": rows, "recorded": self._ready().history.steps})
        if self.record is not None:
            self.record.flush()

    def _status(self) -> None:
        live = self._ready().live
        completed = live.step >= live.end
        self.pipe.send({"event": "status", "running": self.running, "completed": completed})

    def _ended(self) -> None:
        """The last step closes the run."""
        live = self._ready().live
        if live.step >= live.end and self.record is not None:
            self.record.end()

    # ---- looking

    def sample(self, message: dict[str, Any]) -> dict[str, Any]:
        """Draw texts."""
        asked = Sample.model_validate(message["sample"])
        step, texts = self._ready().samples(asked)
        return {"message": self._say_samples(asked, step, texts)}

    def watch(self, message: dict[str, Any]) -> dict[str, Any]:
        """What streams from now on."""
        self.events = int(message["events"])
        self.streams.watch(message["panels"], message["fresh"])
        return {}

    def want(self, message: dict[str, Any]) -> dict[str, Any]:
        """Somebody has taken frames, or some events."""
        self.events += int(message.get("events", 0))
        self.streams.want(message.get("keys", ()))
        return {}

    def snapshot(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a fork needs: the state of a step on disk, and what was trained."""
        studio = self._ready()
        step = studio.live.step if message["step"] is None else int(message["step"])
        if not studio.history.path(step).exists():
            state = studio.live.state() if step == studio.live.step else studio.shadow_at(step).state()
            studio.history.record(step, state)
        self._flush()
        run = studio.run if isinstance(studio, Follower) else self._recorded().folder.path
        return branch.offered(studio, run, step)


class Busy(Exception):
    """Not now."""


def set_threads(size: int) -> None:
    """Threads by the size of the largest product: a tiny model is slower on two."""
    torch.set_num_threads(1 if size < THREADED // 8 else runtime.cpu_threads())


def main() -> int:
    """Entry point: the number of a socket that this process has inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends us by closing the socket
    pipe = Pipe(socket.socket(fileno=int(sys.argv[1])))
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    configured(Start())  # brings Hydra and the config into memory before anybody waits
    pipe.send({"event": "ready", "pid": os.getpid()})
    Worker(pipe).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
