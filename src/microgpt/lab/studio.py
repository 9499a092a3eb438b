"""A session's inside: the model in training, its recorded past, and looks at any of its steps.

What trains is touched by nothing but `advance`. Every look is taken at a copy: the replica has the weights of the
step that is looked at, and the shadow is a second learner that trains again from a record to any step in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from microgpt.config.build import plain
from microgpt.config.schema import SamplingConfig
from microgpt.errors import UsageError
from microgpt.inference.generate import generate
from microgpt.inference.torch_backend import engine_of
from microgpt.lab.frames import Floats
from microgpt.lab.history import History
from microgpt.lab.learner import Learner, Movement, Stepped, silence
from microgpt.lab.looks import graph, knockout, tokens, weights
from microgpt.lab.looks.embeddings import principal, turned
from microgpt.lab.looks.scene import Scene, Tensors, token_text
from microgpt.lab.messages import Metadata, Place, Sample, Unit
from microgpt.lab.panels import PANELS, EmbeddingsData, EmbeddingsParams, KnockoutParams, Params
from microgpt.lab.recipe import Recipe
from microgpt.lab.refusals import said
from microgpt.model.gpt import GPT
from microgpt.model.shapes import mlp_width
from microgpt.tokenizer.base import Tokenizer

MOST_VOCABULARY = 4096
RECORDS = 100
#: updates that a look trains again at most
REPLAY = 2000
LOOKS: dict[str, Any] = {
    "graph": graph.graph,
    "node": graph.node,
    "scalar": graph.scalar,
    "check": graph.check,
    "attention": tokens.attention,
    "probabilities": tokens.probabilities,
    "lens": tokens.lens,
    "tokens": tokens.tokens,
    "token": tokens.token,
    "parameters": weights.parameters,
    "matrix": weights.matrix,
    "weight": weights.weight,
}


def finite(value: Any) -> Any:
    """A value as JSON can have it: numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    return [finite(entry) for entry in value] if isinstance(value, list) else value


def record_interval(steps: int, parameters: int) -> int:
    """Steps between records: a hundred of them in a run, fewer where the model is large."""
    return max(10, steps // RECORDS, parameters // 100_000)


class Studio:
    """A learner with its past.

    Args:
        recipe: what to train.
        records: where states are recorded: a folder, or what has them already.
        off: units that stay switched off.
    """

    def __init__(self, recipe: Recipe, records: Path | History, off: Sequence[Unit] = ()) -> None:
        self.recipe, self.off = recipe, list(off)
        self.live = Learner(recipe, off)
        size = self.live.model.parameter_count()
        every = record_interval(self.live.end, size)
        self.history = records if isinstance(records, History) else History(records, every)
        self._shadow: Learner | None = None
        self._replica: GPT | None = None
        self._pictures: dict[tuple[str, int, int], tuple[Tensor, list[float]]] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the session."""
        return self.recipe.prepared.tokenizer

    def advance(self, watched: bool = False) -> Stepped:
        """One step of training; the state before it is recorded where it is due."""
        self.keep()
        done = self.live.advance(watched)
        if self.live.step == self.live.end:
            self.keep(True)
        return done

    def keep(self, always: bool = False) -> None:
        """Record the present state if it is due."""
        step = self.live.step
        if self.history.due(step) or (always and step not in self.history.sizes):
            self.history.record(step, self.live.state())

    # ---- any step

    def shadow_at(self, step: int) -> Learner:
        """The second learner, at a step.

        Raises:
            UsageError: that step has not been made, or nothing is recorded before it.
        """
        if not 0 <= step <= self.live.step:
            raise UsageError(f"step {step} has not been made", f"there are steps up to {self.live.step}")
        recorded = self.history.before(step)
        if self._shadow is None:
            self._shadow = Learner(self.recipe, self.off)
            self._shadow.schedule = self.live.schedule
        shadow = self._shadow
        ready = shadow.step if 0 < shadow.step <= step else -1
        if step == self.live.step and ready < step:
            shadow.restore(self.live.state())
            return shadow
        if recorded is None and ready < 0:
            raise UsageError(f"nothing is recorded at or before step {step}", "choose a later step")
        start = max(ready, -1 if recorded is None else recorded)
        if step - start > REPLAY:
            raise UsageError(f"step {step} is {step - start} steps after the last record", "choose another step")
        if start != shadow.step or start == 0:
            shadow.restore(self.history.load(start))
        while shadow.step < step:
            shadow.advance()
        return shadow

    def scene(self, step: int | None) -> Scene:
        """The model at a step, free to be changed.

        Raises:
            UsageError: as `shadow_at`.
        """
        at = self.live.step if step is None else step
        source = self.live.model if at == self.live.step else self.shadow_at(at).model
        if self._replica is None:
            self._replica = GPT(self.recipe.config.model, self.tokenizer.vocab_size).eval()
        with torch.no_grad():
            for mine, theirs in zip(self._replica.parameters(), source.parameters()):
                mine.copy_(theirs)
        return Scene(self._replica, at, self.live, lambda: self.movement(at))

    def movement(self, step: int) -> Movement | None:
        """The update that led to a step; None where there was none."""
        moved = self.live.movement
        if moved is not None and moved.step == step:
            return moved
        moved = None if self._shadow is None else self._shadow.movement
        if moved is not None and moved.step == step:
            return moved
        if step < 1 or (self.history.before(step - 1) is None and step - 1 != self.live.step):
            return None
        shadow = self.shadow_at(step - 1)
        shadow.advance(watched=True)
        return shadow.movement

    def mean_change(self) -> float | None:
        """Mean of |change| over all parameters in the last update, where it was watched."""
        moved = self.live.movement
        if moved is None or moved.step != self.live.step:
            return None
        changes = torch.stack([(moved.after[n] - moved.before[n]).abs().sum() for n in moved.after])
        return float(changes.sum()) / self.live.model.parameter_count()

    # ---- looks

    def look(
        self, panel: str, step: int | None, given: dict[str, Any]
    ) -> tuple[int, dict[str, Any], dict[str, Floats]]:
        """A panel at a step: the step, its data, its tensors.

        Raises:
            UsageError, ModelError: there is no such panel, step, row, unit, ...
        """
        if panel not in PANELS:
            raise UsageError("there is no such panel", f"there are {', '.join(PANELS)}")
        try:
            params = PANELS[panel][0].model_validate(given)
        except ValidationError as error:
            raise UsageError(f"params of {panel}: {said(error.errors())}", "see docs/lab-protocol.md") from None
        whole = self.scene(step)
        scene = whole.without(params)
        data, tensors = self._answer(panel, scene, whole, params)
        arrays = {name: t.detach().float().contiguous().numpy() for name, t in tensors.items()}
        return whole.step, finite(data.model_dump(mode="json")), arrays

    def _answer(self, panel: str, scene: Scene, whole: Scene, params: Params) -> tuple[Any, Tensors]:
        if isinstance(params, EmbeddingsParams):
            return self._embeddings(scene, params)
        if isinstance(params, KnockoutParams):
            return knockout.knockout(scene, whole, params)
        return LOOKS[panel](scene, params)

    def _embeddings(self, scene: Scene, params: EmbeddingsParams) -> tuple[EmbeddingsData, Tensors]:
        table = scene.model.wte if params.which == "wte" else scene.model.wpe
        if table is None:
            raise UsageError("the model has no table of positions", "its positions are rotary: look at wte")
        points, shares = principal(table.detach(), params.dimensions)
        onto: Tensor | None = None
        for step in self.history.steps:
            if step >= scene.step:
                break
            key = (params.which, params.dimensions, step)
            if key not in self._pictures:
                past, kept = principal(self.history.tensor(step, f"weights.{params.which}"), params.dimensions)
                self._pictures[key] = (past if onto is None else turned(past, onto), kept)
            onto = self._pictures[key][0]
        if onto is not None:
            points = turned(points, onto)
        words = params.which == "wte"
        labels = [token_text(self.tokenizer, i) if words else str(i) for i in range(len(points))]
        return EmbeddingsData(labels=labels, explained=shares), {"points": points}

    def samples(self, asked: Sample) -> tuple[int, list[str]]:
        """Texts drawn from the model at a step; no state of training is touched.

        Raises:
            UsageError: there is no such step or unit, or the prompt is too long.
        """
        scene = self.scene(asked.step)
        silence(scene.model, asked.off)
        block = self.recipe.config.model.block_size
        sampling = SamplingConfig(
            temperature=asked.temperature, top_k=0, top_p=1.0, num_samples=asked.num_samples,
            max_new_tokens=min(block, 256), seed=asked.seed,
        )  # fmt: skip
        engine = engine_of(scene.model, asked.num_samples)
        return scene.step, [asked.prompt + s.text for s in generate(engine, self.tokenizer, sampling, asked.prompt)]

    # ---- what it is

    def metadata(self, kind: str, name: str, run: str, parent: Place | None, generation: int) -> Metadata:
        """What the page is told of the session."""
        config, model, vocab = self.recipe.config, self.live.model, self.tokenizer.vocab_size
        shape = config.model
        step, end = self.live.step, self.live.end
        known = {
            "n_embd": shape.n_embd, "n_head": shape.n_head, "n_layer": shape.n_layer, "block_size": shape.block_size,
            "learning_rate": config.optimizer.learning_rate, "num_steps": end,
            "temperature": config.sampling.temperature, "seed": config.seed, "data": config.data.corpus,
            "tokenizer": self.tokenizer.kind, "optimizer": config.optimizer.name,
            "batch_size": config.data.batch_size,
        }  # fmt: skip
        every = range(vocab if vocab <= MOST_VOCABULARY else 0)
        return Metadata(
            config=known,
            num_docs=int(self.recipe.prepared.facts["train"]["documents"]),
            vocab_size=vocab,
            bos_token_id=self.tokenizer.bos,
            step=step,
            num_params=model.parameter_count(),
            num_steps=end,
            steps_remaining=max(0, end - step),
            progress=min(1.0, step / end),
            kind="run" if kind == "run" else "live",
            completed=step >= end,
            name=name,
            parent=parent,
            off=self.off,
            layers=shape.n_layer,
            heads=shape.n_head,
            hidden=mlp_width(shape),
            vocab=[token_text(self.tokenizer, i) for i in every],
            parameters={n: list(p.shape) for n, p in model.named_parameters()},
            first_step=min(self.history.steps, default=0),
            recorded=self.history.steps,
            uniform_loss=math.log(vocab),
            generation=generation,
            run=run,
            full_config=plain(config),
        )
