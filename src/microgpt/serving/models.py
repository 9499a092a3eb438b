"""The models that a server has: names, loading, and replacing them while they are in use."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from microgpt.checkpoints.model import open_model
from microgpt.config.schema import SamplingConfig
from microgpt.errors import MicrogptError, printable
from microgpt.inference.engine import Request
from microgpt.inference.load import Model, load
from microgpt.serving.metrics import Metrics
from microgpt.serving.refusal import Refusal, later
from microgpt.serving.worker import Worker
from microgpt.tracking.registry import model_folder


@dataclass(frozen=True)
class Capacity:
    """How much a model may have to do.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `mps`.
        slots: sequences that are written at the same time.
        queue: sequences that may wait in line.
    """

    device: str = "auto"
    slots: int = 32
    queue: int = 128


class Models:
    """Names and what stands behind them.

    Args:
        sources: for each name a model folder, checkpoint, run folder, `latest`, `best` or `models:/name@alias`.
        capacity: of each model.
        metrics: where the models count.

    Raises:
        ModelError: a model is missing or damaged.
    """

    def __init__(self, sources: Mapping[str, str], capacity: Capacity, metrics: Metrics) -> None:
        for source in sources.values():
            open_model(model_folder(source))  # so that a wrong name is told before the server listens
        self.sources, self.capacity, self.metrics = dict(sources), capacity, metrics
        self.workers: dict[str, Worker] = {}
        self.failure: Exception | None = None
        self.draining = False
        self.url = ""
        self._again = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether every model is loaded and requests are taken."""
        return len(self.workers) == len(self.sources) and not self.draining

    @property
    def first(self) -> str:
        """The name of the model that answers where none can be named."""
        return next(iter(self.sources))

    def listening(self, url: str) -> None:
        """Take note of where clients find the models."""
        self.url = url
        self._tell()

    def drain(self) -> None:
        """Take no request any more."""
        self.draining = True

    def get(self, name: str | None) -> Worker:
        """The worker of a name; no name means the only model there is.

        Raises:
            Refusal: there is no such model, or it is not loaded yet.
        """
        if not name:
            if len(self.sources) > 1:
                raise Refusal(400, "you must provide a model parameter", param="model", code="missing_model")
            name = self.first
        if name not in self.sources:
            message = "the model does not exist here; the list of models has those that do"
            raise Refusal(404, message, param="model", code="model_not_found")
        if self.draining:
            raise later(503, "the server is stopping", "stopping")
        if name not in self.workers:
            raise later(503, "the model is still being loaded; ask again in a moment", "loading")
        return self.workers[name]

    def start(self) -> asyncio.Task[None]:
        """Begin to load all models; at each SIGHUP they are loaded again, until the task is cancelled."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._again.set)
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
        for name in self.sources:
            try:
                await self._replace(name)
            except Exception as error:
                self.failure = error
                signal.raise_signal(signal.SIGTERM)  # a server without its models is none
                return
        self._tell()
        while True:
            await self._again.wait()
            self._again.clear()
            for name in self.sources:
                try:
                    await self._replace(name)
                    print(f"model {name} is loaded again", file=sys.stderr, flush=True)
                except Exception as error:
                    print(f"model {name} stays as it was: {why(error)}", file=sys.stderr, flush=True)

    def _tell(self) -> None:
        """Say what is there and what to do with it, once both are known."""
        if not self.url or not self.ready:
            return
        for worker in self.workers.values():
            facts = worker.card["microgpt"]
            kind = "for chat" if facts["chat"] else "of plain text"
            size = f"{facts['parameters']:,} parameters, context {facts['block_size']:,}"
            print(f"model {worker.name} is ready: {kind}, {size}")
        chat = self.workers[self.first].model.tokenizer.is_chat
        body = '{"messages": [{"role": "user", "content": "Hello!"}]}' if chat else '{"num_samples": 5}'
        print(f"next: open {self.url} in a browser, or")
        print(f"  curl {self.url}/microgpt/v1/{'chat' if chat else 'generate'} -d '{body}'", flush=True)

    async def _replace(self, name: str) -> None:
        """Load a model from its folder and let it answer from now on; what is being written ends on the old one."""
        model = await asyncio.to_thread(warm_model, self.sources[name], self.capacity)
        former = self.workers.get(name)
        self.workers[name] = Worker(name, model, self.capacity.queue, self.metrics)
        if former is not None:
            former.retire()


def warm_model(source: str, capacity: Capacity) -> Model:
    """A model whose code is compiled: it has written a few tokens, of one sequence and of two."""
    model = load(model_folder(source), capacity.device, capacity.slots, compiled="now")
    sampling = SamplingConfig(max_new_tokens=3)
    bos = model.tokenizer.bos
    for count in (1, min(2, capacity.slots)):
        for length in range(1, count + 1):
            if length < model.engine.block_size:
                model.engine.submit(Request([bos] * length, sampling, []), lambda event: None)
        while model.engine.step():
            pass
    return model


def why(error: Exception) -> str:
    """What went wrong, on one line."""
    return printable(str(error) if isinstance(error, MicrogptError) else type(error).__name__)
