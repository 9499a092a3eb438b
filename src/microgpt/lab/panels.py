"""What each panel can be asked and what it answers: a model of its parameters and one of its data.

The tensors that come beside the data are named in the data model's docstring, with their shapes. Letters: L layers,
H heads, T tokens of the row, R rows of the batch, V token ids, M parameter tensors, B bins.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from microgpt.lab.messages import Likely, Text, Unit, Units

Index = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(max_length=8)]


class Params(BaseModel):
    """Of every panel.

    Attributes:
        off: heads and neurons that are switched off for this look.
    """

    model_config = ConfigDict(extra="forbid")
    off: Units = Field(default_factory=list[Unit])


class Where(Params):
    """Which tokens are looked at.

    Attributes:
        row: of the batch.
        text: a text of one's own instead of the batch; `row` is 0 then.
    """

    row: Annotated[int, Field(ge=0, le=100_000)] = 0
    text: Text | None = None


class At(Where):
    """A token of the row.

    Attributes:
        position: from 0; negative ones count from the end; outside of the row it is the nearest token.
    """

    position: Annotated[int, Field(ge=-100_000, le=100_000)] = -1


class Shown(BaseModel):
    """A token as it is shown; id -1 is none (a target that does not count)."""

    id: int
    text: str


class Stats(BaseModel):
    """Of all numbers of a tensor; norm is the Euclidean one."""

    mean: float
    std: float
    min: float
    max: float
    norm: float


# ---- graph


class GraphParams(Where):
    """The computation of the batch's loss (mean over its targets, in nats), forward and backward."""


class Node(BaseModel):
    """One operation of the model, or a parameter or input that one takes.

    Attributes:
        id: place in `GraphData.nodes`.
        name: such as `layer0.attn_wq` (the product with that matrix), `layer0.attn_norm`, `layer0.attention`.
        op: the operation, such as linear, rms_norm, scaled_dot_product_attention; `parameter` or `input`.
        layer: which layer it belongs to, None outside.
        inputs: ids of the nodes that it takes, in the order of its arguments.
        shape: of its output.
        forward: place in the order of the forward pass; None for parameters and inputs.
        backward: place in the order in which gradients were ready; None where there is none.
        value, gradient: statistics of output and gradient of the loss.
    """

    id: int
    name: str
    op: str
    layer: int | None
    inputs: list[int]
    shape: list[int]
    forward: int | None
    backward: int | None
    value: Stats | None
    gradient: Stats | None


class GraphData(BaseModel):
    """No tensors."""

    nodes: list[Node]
    loss: float
    tokens: list[Shown]


class NodeParams(Where):
    """All numbers of a node; of one with a row for each row of the batch, those of `row`."""

    node: Annotated[int, Field(ge=0, le=1_000_000)]


class NodeData(BaseModel):
    """Tensors: value, gradient, both of shape `shown`; gradient may be missing.

    Attributes:
        shape: of the node.
        shown: of the tensors; the leading index is left out where it is the row.
        prefix: what to put before an index into the shown tensor to get that of the node: [row] or [].
        cut: whether only the first 65,536 of its numbers are here, flattened (shown has one entry).
    """

    node: Node
    shape: list[int]
    shown: list[int]
    prefix: list[int]
    cut: bool


class ScalarParams(Where):
    """One number of a node: `index` has one entry for each of its dimensions."""

    node: Annotated[int, Field(ge=0, le=1_000_000)]
    index: Index
    count: Annotated[int, Field(ge=1, le=256)] = 32


class Operand(BaseModel):
    """A number that another is made of.

    Attributes:
        node, index: which.
        value: of it.
        local: derivative of the result by it.
        flow: local times the result's gradient: what flows back to it along this edge.
    """

    node: int
    name: str
    index: list[int]
    value: float
    local: float
    flow: float


class ScalarData(BaseModel):
    """No tensors.

    Attributes:
        gradient: of the loss by this number; None where none flows.
        operands: what it is made of, largest |local| first.
        operand_count: how many have a derivative that is not zero.
    """

    node: int
    name: str
    op: str
    index: list[int]
    value: float
    gradient: float | None
    operands: list[Operand]
    operand_count: int


class CheckData(BaseModel):
    """A gradient against a central difference in float64; parameters as of `ScalarParams`. No tensors.

    Attributes:
        gradient: by backward, float32, as in training.
        exact: by backward in float64.
        numeric: (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon).
        error: |gradient - numeric| / max(|gradient|, |numeric|, 1e-6).
        ok: error below 1e-3.
    """

    node: int
    name: str
    index: list[int]
    gradient: float
    exact: float
    numeric: float
    epsilon: float
    error: float
    ok: bool


# ---- tokens, attention, probabilities


class AttentionParams(Where):
    """All layers and heads of a row."""


class AttentionData(BaseModel):
    """Tensors: weights [L, H, T, T] (to each query its keys, rows add up to 1), logits [L, H, T, T] (-inf unseen)."""

    tokens: list[Shown]
    targets: list[Shown]


class ProbabilitiesParams(At):
    """The next token after `position`; the sliders change `top` alone, the tensors are before them."""

    temperature: Annotated[FiniteFloat, Field(gt=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1, le=4096)] = 20


class ProbabilitiesData(BaseModel):
    """Tensor: logits [V].

    Attributes:
        position: counted from 0.
        top: likeliest first, after temperature, top_k and top_p.
        entropy: of them, in nats.
        target: the token that comes next in the data.
    """

    tokens: list[Shown]
    position: int
    target: Shown
    top: list[Likely]
    entropy: float


class LensParams(At):
    """The head applied to the residual stream before and after every layer."""

    count: Annotated[int, Field(ge=1, le=50)] = 5


class LensLayer(BaseModel):
    """`name` is embedding, layer0, layer1, ...; target_prob that of the token that comes next, None without one."""

    name: str
    top: list[Likely]
    target_prob: float | None


class LensData(BaseModel):
    """Tensor: target_probs [L + 1, T], of every position's target (0 where there is none)."""

    tokens: list[Shown]
    position: int
    target: Shown
    layers: list[LensLayer]


class TokensParams(Params):
    """The whole batch, coloured by loss."""


class TokenRow(BaseModel):
    """`length` tokens are no padding."""

    tokens: list[Shown]
    targets: list[Shown]
    length: int
    doc: str


class TokensData(BaseModel):
    """Tensor: losses [R, T], nats; 0 where the target has id -1."""

    rows: list[TokenRow]
    loss: float


class TokenParams(At):
    """A token's story."""


class TokenData(BaseModel):
    """Tensors: attention [L, H, T] (of this token, to each up to itself), saliency [T] (norm of the gradient of this
    token's loss by each input's embedding), gradient [V] (of its loss by the logits).

    Attributes:
        loss: of its target in nats, None without one.
        top: five likeliest next tokens.
        rank: of the target among all, from 1.
        parameters: norm of the gradient of its loss by each parameter tensor.
    """

    tokens: list[Shown]
    position: int
    target: Shown
    loss: float | None
    rank: int | None
    top: list[Likely]
    parameters: dict[str, float]


# ---- parameters


class ParametersParams(Params):
    """Histograms of every parameter tensor, over the update that led to the step (step 0 has no update yet)."""

    bins: Annotated[int, Field(ge=4, le=200)] = 40


class Matrix(BaseModel):
    """One parameter tensor.

    Attributes:
        optimizer: adamw or muon.
        weight, gradient: statistics; the gradient (after clipping) is that of the last update.
        update_ratio: norm of the last update over that of the weights; None at step 0.
    """

    name: str
    shape: list[int]
    optimizer: str
    weight: Stats
    gradient: Stats | None
    update_ratio: float | None


class ParametersData(BaseModel):
    """Tensors: weight_counts [M, B], weight_edges [M, B + 1], and the same of gradient and of update (of
    log10(|change| / (|weight| + 1e-12)), changes of 0 left out); gradient and update are missing at step 0."""

    matrices: list[Matrix]


class MatrixParams(Params):
    """The numbers of one parameter tensor."""

    name: Annotated[str, Field(max_length=64)]


class MatrixData(BaseModel):
    """Tensors: weight, gradient and update (both missing at step 0), of shape `shown`: that of the parameter, or its
    first rows where it has more than 65,536 numbers."""

    name: str
    shape: list[int]
    shown: list[int]


class WeightParams(Params):
    """Why did it move: one weight over the update that led to the step."""

    name: Annotated[str, Field(max_length=64)]
    index: Index


class Term(BaseModel):
    """A part of the change; all parts add up to it within 1e-6."""

    name: str
    value: float


class Quantity(BaseModel):
    """A number on the way to a term, with the formula that it comes from."""

    name: str
    formula: str
    value: float


class WeightData(BaseModel):
    """No tensors.

    Attributes:
        before, after: the weight.
        change: after - before.
        quantities: gradient, clipping, moments, bias correction, orthogonalised value, scale, learning rate, ...
        terms: parts of the change.
        error: |change - sum of terms|.
    """

    name: str
    index: list[int]
    optimizer: str
    before: float
    after: float
    change: float
    quantities: list[Quantity]
    terms: list[Term]
    error: float


class EmbeddingsParams(Params):
    """The token or position embeddings in the plane in which they vary most (PCA), turned to fit the step before."""

    which: Literal["wte", "wpe"] = "wte"
    dimensions: Literal[2, 3] = 2


class EmbeddingsData(BaseModel):
    """Tensor: points [V or T, dimensions].

    Attributes:
        labels: text of each point.
        explained: share of the variance of each principal axis, before turning.
    """

    labels: list[str]
    explained: list[float]


class KnockoutParams(Params):
    """The validation loss with each head, or each neuron of a layer, switched off (beside those in `off`).

    Attributes:
        rows: of the validation set that are scored, at most 8,192 tokens.
    """

    kind: Literal["head", "neuron"] = "head"
    layer: Annotated[int, Field(ge=0, le=1023)] = 0
    rows: Annotated[int, Field(ge=1, le=1024)] = 64


class KnockoutData(BaseModel):
    """Tensor: effect [L, H] or [neurons]: validation loss with the unit off minus without, nats.

    Attributes:
        loss: with only `off` switched off.
        whole: with nothing switched off.
        targets: tokens scored.
    """

    kind: str
    loss: float
    whole: float
    targets: int


PANELS: dict[str, tuple[type[Params], type[BaseModel]]] = {
    "graph": (GraphParams, GraphData),
    "node": (NodeParams, NodeData),
    "scalar": (ScalarParams, ScalarData),
    "check": (ScalarParams, CheckData),
    "attention": (AttentionParams, AttentionData),
    "probabilities": (ProbabilitiesParams, ProbabilitiesData),
    "lens": (LensParams, LensData),
    "tokens": (TokensParams, TokensData),
    "token": (TokenParams, TokenData),
    "parameters": (ParametersParams, ParametersData),
    "matrix": (MatrixParams, MatrixData),
    "weight": (WeightParams, WeightData),
    "embeddings": (EmbeddingsParams, EmbeddingsData),
    "knockout": (KnockoutParams, KnockoutData),
}
