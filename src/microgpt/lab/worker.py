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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microgpt import runtime

runtime.prepare_process()
import torch  # noqa: E402 - after the allocator is set up

from microgpt.config.schema import TrackingConfig  # noqa: E402
from microgpt.errors import MicrogptError  # noqa: E402
from microgpt.lab import branch  # noqa: E402
from microgpt.lab.events import events_before, number, train_step  # noqa: E402
from microgpt.lab.export import frames  # noqa: E402
from microgpt.lab.follow import Follower  # noqa: E402
from microgpt.lab.frames import Pipe, packed  # noqa: E402
from microgpt.lab.learner import Learner, Stepped  # noqa: E402
from microgpt.lab.messages import Metadata, Place, Sample, Start  # noqa: E402
from microgpt.lab.recipe import configured, prepared_recipe  # noqa: E402
from microgpt.lab.record import STATES, Record, new_folder  # noqa: E402
from microgpt.lab.refusals import printable  # noqa: E402
from microgpt.lab.studio import Studio  # noqa: E402
from microgpt.runs.folder import read_run  # noqa: E402

FLUSH_S = 0.03
POLL_S = 0.5
#: while it trains, looks for the page take at most a quarter of the time
REST = 3.0
EVENTS_S = 1 / 30
MOST_BAD = 3
THREADED = 1_000_000
SAMPLES, SAMPLE_TIMES = 4, 10


@dataclass
class Watched:
    """A panel that streams.

    Attributes:
        wanted: somebody has taken the last frame.
        sent: the step of the last frame, and when.
    """

    panel: str
    params: dict[str, Any]
    every_s: float
    wanted: bool = True
    sent: int = -1
    at: float = field(default=-math.inf)


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
        self.next_at = self.rest_until = self.flushed = self.evented = 0.0
        self.events = 0
        self.rows: list[list[float | None]] = []
        self.watched: dict[str, Watched] = {}
        self.ops: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "begin": self.begin, "fork": self.fork, "step": self.step, "run": self.run_steps, "pause": self.pause,
            "reset": self.reset, "sample": self.sample, "inspect": self.inspect, "watch": self.watch,
            "want": self.want, "snapshot": self.snapshot, "attach": self.attach, "trace": self.trace,
            "weights": self.weights, "leave": self.leave,
        }  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether it is training by itself."""
        return self.left > 0

    def serve(self) -> None:
        """Until the server is gone."""
        while not self.pipe.closed:
            now = time.monotonic()
            idle = POLL_S if isinstance(self.studio, Follower) else None
            wait = max(0.0, self.next_at - now) if self.running else 0.0 if self._due() else idle
            message = self.pipe.receive(wait)
            while message is not None:
                self._answer(message)
                message = self.pipe.receive(0)
            if self.running and time.monotonic() >= self.next_at and not self.pipe.closed:
                self._guarded(self._train)
            self._guarded(self._follow)
            self._guarded(self._stream)
            if self.rows and (not self.running or time.monotonic() - self.flushed >= FLUSH_S):
                self._guarded(self._flush)
        self.left = 0
        if self.record is not None:
            self._guarded(self.record.end)

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
        self.session_id, self.name = message["session_id"], str(read_run(run).get("name", ""))
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
        self.rows, self.watched = [], {}
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
        for watched in self.watched.values():
            watched.sent, watched.wanted = -1, True
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
        done = studio.advance(watched=full or any(w.panel in MOVED for w in self.watched.values()))
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
        event = train_step(done, live.end, mean_change(studio), before)
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

    def inspect(self, message: dict[str, Any]) -> dict[str, Any]:
        """A panel once."""
        step, data, tensors = self._ready().look(message["panel"], message["step"], message["params"])
        listed, blob = packed(tensors)
        return {"step": step, "data": data, "tensors": listed, "blob": blob}

    def watch(self, message: dict[str, Any]) -> dict[str, Any]:
        """What streams from now on, by key; `events` is how many train_step events are wanted."""
        self.events = int(message["events"])
        former = self.watched
        self.watched = {
            key: former.get(key) or Watched(entry["panel"], entry["params"], 1 / entry["hz"])
            for key, entry in message["panels"].items()
        }
        for key in message["fresh"]:
            self.watched[key].sent, self.watched[key].wanted = -1, True
        return {}

    def want(self, message: dict[str, Any]) -> dict[str, Any]:
        """Somebody has taken a frame, or some events."""
        self.events += int(message.get("events", 0))
        for key in message.get("keys", ()):
            if key in self.watched:
                self.watched[key].wanted = True
        return {}

    def _due(self) -> list[tuple[float, str]]:
        """Keys of the panels that a frame is to be sent of, each behind the time of its last one."""
        if self.studio is None or not self.watched:
            return []
        now, step = time.monotonic(), self.studio.live.step
        if self.running and now < self.rest_until:
            return []
        return [
            (w.at, key)
            for key, w in self.watched.items()
            if w.wanted and w.sent != step and (not self.running or now - w.at >= w.every_s)
        ]

    def _stream(self) -> None:
        """Send at most one frame, that which has waited longest."""
        due = self._due()
        if not due:
            return
        studio, now = self._ready(), time.monotonic()
        _, key = min(due)
        watched = self.watched[key]
        watched.at, watched.wanted, watched.sent = now, False, studio.live.step
        try:
            at, data, tensors = studio.look(watched.panel, None, watched.params)
        except MicrogptError as error:
            self.pipe.send({"event": "unseen", "key": key, "detail": told(error)})
            return
        listed, blob = packed(tensors)
        self.pipe.send(
            {"event": "frame", "key": key, "panel": watched.panel, "step": at, "data": data, "tensors": listed}, blob
        )
        self.rest_until = time.monotonic() + REST * (time.monotonic() - now)

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

    def trace(self, message: dict[str, Any]) -> dict[str, Any]:
        """The panels at recorded steps."""
        return {"frames": frames(self._ready())}

    def weights(self, message: dict[str, Any]) -> dict[str, Any]:
        """All weights at a step, and their validation loss."""
        studio = self._ready()
        scene = studio.scene(message["step"])
        found = {name: p.detach().numpy() for name, p in scene.model.named_parameters()}
        listed, blob = packed(found)
        return {"step": scene.step, "tensors": listed, "loss": studio.live.loss(scene.model)[0], "blob": blob}


MOVED = {"parameters", "matrix", "weight"}


class Busy(Exception):
    """Not now."""


def told(error: BaseException) -> str:
    """What a page is told of a fault: what a user can mend in words, of everything else only the kind."""
    return (
        printable(str(error)) if isinstance(error, MicrogptError) else f"the session failed: {type(error).__name__}"
    )


def mean_change(studio: Studio) -> float | None:
    """Mean of |change| over all parameters in the last update."""
    moved = studio.live.movement
    if moved is None or moved.step != studio.live.step:
        return None
    changes = [(moved.after[n] - moved.before[n]).abs().sum() for n in moved.after]
    return float(sum(changes, torch.zeros(()))) / studio.live.model.parameter_count()


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
