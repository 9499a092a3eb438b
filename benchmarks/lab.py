"""The browser lab: what a session costs beside a bare loop, what goes over the wire, how long a click takes.

The bare loop is that of steps.py in a process of its own. A session trains 2,000 steps at full speed with no viewer,
with one, with eight, and with one that never reads; each viewer watches four panels. The viewers run on the same
machine, so with eight of them some of the difference is their own reading.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
from common import arguments, compared, scratch, seconds
from steps import BARE
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

WORDS = ["model=micro_first", "data=names", "tokenizer=char", "data.packing=false", "data.batch_size=1"]
WORDS += ["optimizer=adamw", "optimizer.learning_rate=0.01", "optimizer.schedule=cosine", "optimizer.grad_clip=0"]
WORDS += ["optimizer.warmup_steps=0"]
LOOP = BARE.replace("set_threads(0)", "set_threads(1)")  # a session has one thread, the right number at this size
PANELS = ("attention", "probabilities", "parameters", "embeddings")
WATCH = json.dumps({"type": "subscribe", "panels": [{"key": p, "panel": p, "hz": 5} for p in PANELS], "since": 0})
CLICKS = 20


class Lab:
    """A server of its own, ended by `stop`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "microgpt.cli", "lab", "--port", "0", "--no-browser", "--tracking", "off"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=scratch(), env=dict(os.environ)
        )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found is not None
        self.url = found[0]
        self.client = httpx.Client(base_url=f"{self.url}/api", timeout=600)

    def start(self, steps: int) -> str:
        """A session without validation on the way."""
        body = {"num_steps": steps, "settings": {"trainer.eval_interval": steps}}
        return self.client.post("/session/start", json=body).raise_for_status().json()["session_id"]

    def socket(self, session: str) -> ClientConnection:
        """A viewer."""
        return connect(f"{self.url.replace('http', 'ws')}/ws/{session}", proxy=None, max_size=None, close_timeout=1)

    def train(self, session: str) -> float:
        """Seconds until all steps are done."""
        started = time.perf_counter()
        self.client.post(f"/session/{session}/run", json={"to_end": True, "delay_ms": 0}).raise_for_status()
        while self.client.get(f"/session/{session}").json()["running"]:
            time.sleep(0.05)
        return time.perf_counter() - started

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self.process.terminate()
        self.process.wait(timeout=30)


def reading(client: ClientConnection, count: list[int]) -> None:
    """Read and count bytes until the connection closes."""
    try:
        while True:
            content = client.recv()
            count[0] += len(content) if isinstance(content, bytes) else len(content.encode())
    except ConnectionClosed:
        return


def trained(lab: Lab, steps: int, viewers: int, reads: bool = True, watched: bool = True) -> tuple[float, float]:
    """Milliseconds a step of a session, and bytes a second to its first viewer."""
    session = lab.start(steps)
    with ExitStack() as open_sockets:
        clients = [open_sockets.enter_context(lab.socket(session)) for _ in range(viewers)]
        counts = [[0] for _ in clients]
        for client, count in zip(clients, counts):
            if watched:
                client.send(WATCH)
            if reads:
                threading.Thread(target=reading, args=(client, count), daemon=True).start()
        spent = lab.train(session)
    lab.client.delete(f"/session/{session}")
    return 1000 * spent / steps, (counts[0][0] if counts else 0) / spent


def clicked(lab: Lab, session: str, panel: str, live: bool) -> float:
    """Milliseconds from a question to its picture, the median of some: over the WebSocket, or by REST as JSON."""
    found: list[float] = []
    with lab.socket(session) as client:
        client.send(WATCH)
        for number in range(CLICKS):
            started = time.perf_counter()
            if live:
                client.send(json.dumps({"type": "inspect", "id": str(number), "panel": panel, "step": number + 1}))
                wanted = f'"id": "{number}"'.encode()
                while isinstance(content := client.recv(), str) or wanted not in content:
                    pass
            else:
                body = {"panel": panel, "step": number + 1}
                lab.client.post(f"/session/{session}/inspect", json=body).raise_for_status()
            found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found)


def main() -> None:
    given = arguments(__doc__ or "", 3)
    many, few = (30, 10) if given.smoke else (4000, 2000)

    def bare() -> float:
        words = json.dumps(WORDS)
        long = seconds([sys.executable, "-c", LOOP, words, str(many)])
        return 1000 * (long - seconds([sys.executable, "-c", LOOP, words, str(few)])) / (many - few)

    lab = Lab()
    try:
        trained(lab, few, 0)
        sides: dict[str, Callable[[], float]] = {
            "no viewer": lambda: trained(lab, few, 0)[0],
            "one viewer": lambda: trained(lab, few, 1)[0],
            "eight viewers": lambda: trained(lab, few, 8)[0],
            "a viewer that never reads": lambda: trained(lab, few, 1, reads=False)[0],
        }
        for name, side in list(sides.items())[3 if given.smoke else 0 :]:
            compared(
                f"a step of the lab with {name} over a bare loop", side, bare, given.rounds, "at most 1.25", "ms"
            )
        wire = "bytes a second to a viewer of four panels over those to one of prior art"
        compared(
            wire, lambda: trained(lab, few, 1)[1] / 1000, lambda: trained(lab, few, 1, watched=False)[1] / 1000,
            given.rounds, "none", "kB/s",
        )  # fmt: skip
        session = lab.start(200)
        lab.train(session)
        for panel in ("attention", "graph", "knockout"):
            compared(
                f"from click to picture, {panel}: a frame over JSON",
                lambda panel=panel: clicked(lab, session, panel, True),
                lambda panel=panel: clicked(lab, session, panel, False),
                given.rounds, "at most 100 ms", "ms",
            )  # fmt: skip
    finally:
        lab.stop()


if __name__ == "__main__":
    main()
