"""The GPT, one number at a time.

It reads a token at a position and answers with one score (a logit) for each token that may follow:

    embed      token vector + position vector, then RMSNorm
    a layer    RMSNorm -> attention -> add to what came in
               RMSNorm -> MLP       -> add to what came in
    read out   one dot product with each row of lm_head

Of a usual GPT it leaves out biases, norm gains, dropout and the last norm; the read-out matrix is not
shared with the token embedding. In comments and docstrings C is n_embd, V vocab_size, T the number of
positions seen so far.

Sources: attention and the residual stream, Vaswani et al. 2017 (arXiv 1706.03762); decoder only with the norm
before each block, Radford et al. 2019 (GPT-2); RMSNorm, Zhang & Sennrich 2019 (arXiv 1910.07467);
squared ReLU, So et al. 2021 (arXiv 2109.08668); the shape of the whole, microgpt, A. Karpathy 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from .value import Value, dot, linear, total

__all__ = ["GPT", "Activation", "Cache", "Config", "Init", "State", "cross_entropy", "rms_norm", "softmax"]

Activation = Literal["relu", "relu2"]
Init = Literal["current", "first"]
Vector = list[Value]
State = dict[str, list[Vector]]

RMS_NORM_EPS = 1e-5
MLP_WIDTH = 4  # the MLP's hidden layer, in multiples of n_embd


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The shape of a model. The defaults are microgpt as it stands today: 4192 weights.

    n_embd: width of every vector (C). n_head: attention heads, each n_embd / n_head wide.
    n_layer: number of layers. block_size: number of positions, the longest text it can see.
    vocab_size: number of tokens (V); 27 is names.txt, 26 letters and BOS.
    activation: what stands between the two MLP matrices, ReLU or its square.
    init: 'current' draws every weight with standard deviation 0.08. 'first' uses 0.02, and zero for
    attn_wo and mlp_fc2, so that a layer adds nothing at first.
    """

    n_embd: int = 16
    n_head: int = 4
    n_layer: int = 1
    block_size: int = 16
    vocab_size: int = 27
    activation: Activation = "relu"
    init: Init = "current"

    def __post_init__(self) -> None:
        """Raises ValueError that lists everything wrong at once."""
        problems = [
            f"{name} is {getattr(self, name)}, must be at least 1"
            for name in ("n_embd", "n_head", "n_layer", "block_size", "vocab_size")
            if getattr(self, name) < 1
        ]
        if self.n_head >= 1 and self.n_embd % self.n_head:
            problems.append(f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}")
        if self.activation not in get_args(Activation):
            problems.append(f"activation {self.activation!r} is none of {', '.join(get_args(Activation))}")
        if self.init not in get_args(Init):
            problems.append(f"init {self.init!r} is none of {', '.join(get_args(Init))}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(rows, columns) of every weight matrix, in the order in which they are drawn and updated.

        A matrix has a row for each output and a column for each input.
        """
        width, hidden = self.n_embd, MLP_WIDTH * self.n_embd
        shapes = {
            "wte": (self.vocab_size, width),
            "wpe": (self.block_size, width),
            "lm_head": (self.vocab_size, width),
        }
        for layer in range(self.n_layer):
            for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo"):
                shapes[f"layer{layer}.{name}"] = (width, width)
            shapes[f"layer{layer}.mlp_fc1"] = (hidden, width)
            shapes[f"layer{layer}.mlp_fc2"] = (width, hidden)
        return shapes

    def init_std(self, name: str) -> float:
        """Standard deviation of the first weights of the matrix `name`."""
        if self.init == "current":
            return 0.08
        return 0.0 if name.endswith((".attn_wo", ".mlp_fc2")) else 0.02


class Cache:
    """Keys and values of the positions read so far, for each layer: keys[layer][position] is C wide.

    A past token's key and value never change, for nothing looks ahead. Keeping them is what lets
    `GPT.forward` take one token at a time instead of the whole text again.
    """

    __slots__ = ("keys", "values")

    def __init__(self, n_layer: int) -> None:
        self.keys: list[list[Vector]] = [[] for _ in range(n_layer)]
        self.values: list[list[Vector]] = [[] for _ in range(n_layer)]

    def __len__(self) -> int:
        return len(self.keys[0])


def rms_norm(x: Vector) -> Vector:
    """x divided by the root of its mean square: n values in, n out, of size about 1 whatever came in."""
    mean_square = dot(x, x) / len(x)
    scale = (mean_square + RMS_NORM_EPS) ** -0.5
    return [value * scale for value in x]


def softmax(scores: Vector) -> Vector:
    """n scores to n probabilities: positive, summing to 1, higher for higher scores."""
    # Taking the same number off every score changes no ratio, and exp() then never overflows.
    top = max([score.data for score in scores])
    powers = [(score - top).exp() for score in scores]
    norm = total(powers)
    return [power / norm for power in powers]


def cross_entropy(logits: Vector, target: int) -> Value:
    """Surprise at the token that came, in nats: -log softmax(logits)[target]. 0 would be certainty.

    logits: V values. Written as log(sum(exp(logits))) - logits[target], which needs no division and
    stays finite where the probability itself would round to zero.
    """
    top = max([logit.data for logit in logits])
    norm = total([(logit - top).exp() for logit in logits])
    return norm.log() + top - logits[target]


class GPT:
    """A model: its shape and its weights.

    state: name -> rows of values, as `Config.shapes` gives them. Whoever puts weights in from outside
    uses `weights.from_arrays`, which checks them.
    """

    def __init__(self, config: Config, state: State) -> None:
        self.config = config
        self.state = state

    @classmethod
    def initial(cls, config: Config, rng: Random) -> GPT:
        """An untrained model. One rng.gauss for each weight, row by row, also where the deviation is 0."""
        state: State = {}
        for name, (rows, columns) in config.shapes().items():
            std = config.init_std(name)
            state[name] = [[Value(rng.gauss(0.0, std)) for _ in range(columns)] for _ in range(rows)]
        return cls(config, state)

    def parameters(self) -> list[Value]:
        """All weights as one flat list, matrix by matrix and row by row."""
        return [value for matrix in self.state.values() for row in matrix for value in row]

    def forward(self, token: int, position: int, cache: Cache) -> Vector:
        """Logits for the token after `token`: V values, unbounded; softmax makes them probabilities.

        token: 0..V-1. position: 0..block_size-1, the number of tokens that `cache` has seen. The cache
        grows by this position. ValueError where one of them does not fit.
        """
        config, state = self.config, self.state
        if not 0 <= token < config.vocab_size:
            raise ValueError(f"token {token} is outside 0..{config.vocab_size - 1}")
        if not 0 <= position < config.block_size:
            raise ValueError(f"position {position} is outside 0..{config.block_size - 1}")
        if position != len(cache):
            raise ValueError(f"position {position} does not follow the {len(cache)} tokens in the cache")

        # What the token is, plus where it stands.
        x = [a + b for a, b in zip(state["wte"][token], state["wpe"][position])]
        x = rms_norm(x)
        for layer in range(config.n_layer):
            # A layer only ever adds to x. Gradients run back along these sums undiminished, which is
            # what makes deep models trainable.
            x = [a + b for a, b in zip(x, self._attention(rms_norm(x), layer, cache))]
            x = [a + b for a, b in zip(x, self._mlp(rms_norm(x), layer))]
        return linear(x, state["lm_head"])

    def loss(self, tokens: Sequence[int]) -> Value:
        """Mean surprise over a document, in nats a token: a single value, ready for `backward()`.

        tokens: the document's ids with BOS on both ends, two at least. Each token predicts the next;
        what goes beyond block_size predictions is cut off.
        """
        if len(tokens) < 2:
            raise ValueError("a document needs two tokens: one to read and one to predict")
        cache = Cache(self.config.n_layer)
        losses: list[Value] = []
        for position in range(min(self.config.block_size, len(tokens) - 1)):
            logits = self.forward(tokens[position], position, cache)
            losses.append(cross_entropy(logits, tokens[position + 1]))
        return total(losses) / len(losses)

    def _attention(self, x: Vector, layer: int, cache: Cache) -> Vector:
        """What this position takes from itself and those before it: C values in, C out.

        It asks a question (query), each position it can see offers a label (key) and a content
        (value). The better a label fits the question, the more of that content is taken.
        """
        state, head_dim = self.state, self.config.head_dim
        query = linear(x, state[f"layer{layer}.attn_wq"])
        keys, values = cache.keys[layer], cache.values[layer]
        keys.append(linear(x, state[f"layer{layer}.attn_wk"]))
        values.append(linear(x, state[f"layer{layer}.attn_wv"]))

        # Dot products of long vectors are large, and softmax of large scores is all or nothing.
        # Dividing by sqrt(head_dim) keeps their spread the same whatever the width.
        scale = head_dim**-0.5
        taken: Vector = []
        for start in range(0, self.config.n_embd, head_dim):  # each head sees its own slice
            head = slice(start, start + head_dim)
            scores = [dot(query[head], key[head]) * scale for key in keys]
            attention = softmax(scores)  # T probabilities
            taken += [dot(attention, column) for column in zip(*[value[head] for value in values])]
        return linear(taken, state[f"layer{layer}.attn_wo"])

    def _mlp(self, x: Vector, layer: int) -> Vector:
        """What this position makes of what it has gathered: C values, widened to 4C, and back to C."""
        hidden = [value.relu() for value in linear(x, self.state[f"layer{layer}.mlp_fc1"])]
        if self.config.activation == "relu2":
            hidden = [value**2 for value in hidden]
        return linear(hidden, self.state[f"layer{layer}.mlp_fc2"])
