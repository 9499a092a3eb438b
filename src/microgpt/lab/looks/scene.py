"""What a look is taken at: a model at a step, and the rows of tokens before it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from microgpt.data.batches import Batch
from microgpt.errors import UsageError
from microgpt.lab.learner import Learner, Movement, Part, outputs_of, silence, tensors_of
from microgpt.lab.messages import Likely
from microgpt.lab.panels import Params, Shown, Stats, Where
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, Tokenizer

#: longest row that is shown token by token
MOST_TOKENS = 256
#: larger tensors are not copied to float64 for their statistics
EXACT = 100_000
Tensors = dict[str, Tensor]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as people see it; the one around documents as prior art writes it."""
    return "<BOS>" if token == tokenizer.control[BOS] else tokenizer.token_text(token)


@dataclass
class Scene:
    """A model in evaluation mode at a step, which looks may change and nobody trains.

    Attributes:
        model: with the weights of the step.
        step: updates done.
        learner: knows data and config; its own weights may be of any step.
        moved: the update that led to the step, made when it is asked for; None at step 0.
        before: the embeddings of a name at the recorded step before, aligned, or None.
    """

    model: GPT
    step: int
    learner: Learner
    moved: Callable[[], Movement | None]
    batches: list[Batch] = field(default_factory=list[Batch])

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the session."""
        return self.learner.recipe.prepared.tokenizer

    def batch(self) -> Batch:
        """The first micro-batch that the update after this step learns from."""
        if not self.batches:
            self.batches = self.learner.micro_batches(self.step)
        return self.batches[0]

    def without(self, params: Params) -> Scene:
        """The scene with units switched off.

        Raises:
            ModelError: the model has no such unit.
        """
        if not params.off:
            return self
        for unit in params.off:
            outputs_of(self.model, unit)
        model = copy.deepcopy(self.model)
        silence(model, params.off)
        return Scene(model, self.step, self.learner, self.moved, self.batches)

    def rows(self, where: Where) -> Row:
        """The tokens that a look is at.

        Raises:
            UsageError: there is no such row, or the text does not fit.
        """
        if where.text is not None:
            return self._typed(where.text)
        batch = self.batch()
        if where.row >= len(batch.inputs):
            raise UsageError(f"the batch has no row {where.row}", f"it has {len(batch.inputs)}, from 0")
        length = int((batch.index[where.row] >= 0).sum())
        part = tensors_of(batch)
        alone = tuple(None if t is None else t[where.row : where.row + 1] for t in part)
        inputs, targets, positions, segments = alone
        assert inputs is not None
        assert targets is not None
        assert positions is not None
        return Row(self, part, (inputs, targets, positions, segments), where.row, max(1, length))

    def _typed(self, text: str) -> Row:
        ids = [self.tokenizer.bos, *self.tokenizer.encode(text)]
        limit = self.model.config.block_size
        if len(ids) > limit:
            raise UsageError(f"the text has {len(ids)} tokens, the context holds {limit}", "shorten it")
        inputs = torch.tensor([ids])
        targets = torch.tensor([[*ids[1:], -1]])
        part: Part = (inputs, targets, torch.arange(len(ids))[None], None)
        return Row(self, part, part, 0, len(ids))

    def target_count(self) -> int:
        """Targets of the whole step, which its loss is the mean over."""
        self.batch()
        return sum(b.target_count for b in self.batches)

    def shown(self, ids: Sequence[int] | np.ndarray | Tensor) -> list[Shown]:
        """Tokens with their texts."""
        return [Shown(id=int(t), text=token_text(self.tokenizer, int(t)) if t >= 0 else "") for t in ids]

    def likely(self, probabilities: Tensor, count: int) -> list[Likely]:
        """The likeliest tokens of a distribution [vocab_size]; those without probability are left out."""
        values, ids = torch.topk(probabilities, min(count, len(probabilities)))
        pairs = [(int(i), float(p)) for i, p in zip(ids, values) if p > 0]
        return [Likely(token_id=i, token=token_text(self.tokenizer, i), prob=p) for i, p in pairs]


@dataclass(frozen=True)
class Row:
    """A row of tokens, alone and within its batch.

    Attributes:
        scene: that it is from.
        batch: inputs, targets, positions, segments [rows, tokens] of all rows.
        alone: the same of this one, [1, tokens].
        number: which of the batch.
        length: tokens that are no padding.
    """

    scene: Scene
    batch: Part
    alone: Part
    number: int
    length: int

    @property
    def cut(self) -> Part:
        """The row without padding, at most 256 tokens."""
        count = min(self.length, MOST_TOKENS)
        inputs, targets, positions, segments = self.alone
        seen = None if segments is None else segments[:, :count]
        return inputs[:, :count], targets[:, :count], positions[:, :count], seen

    def tokens(self) -> list[Shown]:
        """Its inputs."""
        return self.scene.shown(self.cut[0][0])

    def targets(self) -> list[Shown]:
        """The token that comes after each."""
        return self.scene.shown(self.cut[1][0])

    def position(self, wanted: int) -> int:
        """A position counted from 0; one outside is the last or first, since the next step's row may be shorter."""
        count = self.cut[0].shape[1]
        return min(count - 1, max(0, wanted + count if wanted < 0 else wanted))


def stats(tensor: Tensor) -> Stats:
    """Of all numbers of a tensor."""
    flat = tensor.detach().flatten()
    count = flat.numel()
    if not count:
        return Stats(mean=0.0, std=0.0, min=0.0, max=0.0, norm=0.0)
    if count <= EXACT:
        flat = flat.double()
    low, high = flat.aminmax()
    mean, norm = float(flat.sum(dtype=torch.float64)) / count, float(flat.norm())
    std = float(flat.std(unbiased=False)) if count <= EXACT else max(0.0, norm * norm / count - mean * mean) ** 0.5
    found = (v if math.isfinite(v) else 0.0 for v in (mean, std, float(low), float(high), norm))
    mean, std, least, most, norm = found
    return Stats(mean=mean, std=std, min=least, max=most, norm=norm)
