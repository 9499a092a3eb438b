"""Training and sampling: the loop that turns a list of names into a model, and the model into names.

The order in which random numbers are drawn (shuffle, weights, samples) is that of the original
program, so that the same seed gives the same losses, to the digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import MappingProxyType
from typing import Literal

from .adam import Adam, Schedule
from .gpt import GPT, Cache, Config
from .tokenizer import CharTokenizer

__all__ = ["PRESETS", "Preset", "Revision", "Step", "Training", "sample"]

Revision = Literal["current", "first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Everything that is decided before training. The defaults are microgpt as it stands today.

    config: the model; its vocab_size is replaced by that of the data. learning_rate, beta1, beta2,
    schedule: see `Adam`. max_steps: documents trained on, one a step.
    temperature, samples: what is drawn afterwards, see `sample`.
    """

    config: Config = field(default_factory=Config)
    learning_rate: float = 0.01
    beta1: float = 0.85
    beta2: float = 0.99
    schedule: Schedule = "linear"
    max_steps: int = 1000
    temperature: float = 0.5
    samples: int = 20


# The original program as published first, and as it stands since.
PRESETS: MappingProxyType[Revision, Preset] = MappingProxyType(
    {
        "current": Preset(),
        "first": Preset(
            config=Config(block_size=8, activation="relu2", init="first"),
            beta1=0.9,
            beta2=0.95,
            schedule="cosine",
            max_steps=500,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one training step reports.

    number: from 1. document: the text trained on. loss: before the update, in nats a token.
    learning_rate: the one used for the update.
    """

    number: int
    document: str
    loss: float
    learning_rate: float


class Training:
    """A model on its way from noise to names.

    documents: at least one text, none empty; a copy is shuffled. preset: shape and optimizer.
    seed: decides the shuffle, the first weights and, afterwards, the samples (`rng` goes on from here).
    """

    def __init__(self, documents: Sequence[str], preset: Preset, seed: int = 42) -> None:
        if not documents:
            raise ValueError("training needs at least one document")
        self.rng = Random(seed)
        self.documents = list(documents)
        self.rng.shuffle(self.documents)
        self.preset = preset
        self.tokenizer = CharTokenizer(self.documents)
        self.model = GPT.initial(replace(preset.config, vocab_size=self.tokenizer.vocab_size), self.rng)
        self.optimizer = Adam(
            self.model.parameters(),
            learning_rate=preset.learning_rate,
            beta1=preset.beta1,
            beta2=preset.beta2,
            schedule=preset.schedule,
            max_steps=preset.max_steps,
        )

    def step(self) -> Step:
        """One document: how surprised is the model by it, whose fault is that, and a nudge to each weight."""
        done = self.optimizer.steps_done
        document = self.documents[done % len(self.documents)]
        loss = self.model.loss(self.tokenizer.encode(document))
        loss.backward()
        rate = self.optimizer.step()
        return Step(done + 1, document, loss.data, rate)

    def steps(self) -> Iterator[Step]:
        """All steps that are left, one at a time. Whoever has seen enough simply stops asking."""
        while self.optimizer.steps_done < self.preset.max_steps:
            yield self.step()

    def sample(self, temperature: float | None = None) -> str:
        """One new text in the manner of the documents, at the preset's temperature unless told otherwise."""
        if temperature is None:
            temperature = self.preset.temperature
        return sample(self.model, self.tokenizer, self.rng, temperature)


def sample(model: GPT, tokenizer: CharTokenizer, rng: Random, temperature: float = 0.5) -> str:
    """One new text, drawn token by token, from BOS until the model says BOS or block_size is full.

    temperature: above 0. Logits are divided by it, so below 1 the likely gets likelier and texts more
    alike, and above 1 they get wilder. Towards 0 the likeliest token always wins.
    Uses one random number a token: rng.choices over the whole vocabulary, BOS included.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature is {temperature}, must be above 0")
    cache = Cache(model.config.n_layer)
    token, ids = tokenizer.bos, list[int]()
    for position in range(model.config.block_size):
        logits = [logit.data for logit in model.forward(token, position, cache)]
        # As in softmax: subtract first, so that the smallest temperature cannot overflow.
        top = max(logits)
        weights = [math.exp((logit - top) / temperature) for logit in logits]
        token = rng.choices(range(len(weights)), weights)[0]
        if token == tokenizer.bos:
            break
        ids.append(token)
    return tokenizer.decode(ids)
