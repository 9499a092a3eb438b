"""Every message of the lab, REST and WebSocket: one pydantic model each, version 1.

Times are milliseconds, losses are nats a token, probabilities are shares of 1. A step is an optimizer step; "at step
s" means the state after s updates, looked at on the batch that update s + 1 will learn from. Tokens are shown as
text, the token around documents as `<BOS>`.

A tensor crosses a WebSocket as part of a binary frame (`FrameHeader`) and a REST answer as `Tensor`, both float32,
little-endian, row-major.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

VERSION = 1
#: most numbers in one tensor of `node` and `matrix`
MOST_NUMBERS = 65_536

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Text = Annotated[str, Field(max_length=4096)]


class Message(BaseModel):
    """What all messages share: nothing unknown is taken, and `v` is the version of this protocol."""

    model_config = ConfigDict(extra="forbid")
    v: Literal[1] = 1


# ---- starting and driving a session (REST)


class Unit(BaseModel):
    """A part that can be switched off: an attention head, or a neuron of an MLP's hidden layer.

    Attributes:
        layer: from 0.
        kind: `head` or `neuron`.
        index: which, from 0.
    """

    model_config = ConfigDict(extra="forbid")
    layer: Annotated[int, Field(ge=0, le=1023)]
    kind: Literal["head", "neuron"]
    index: Annotated[int, Field(ge=0, le=1_048_575)]


Units = Annotated[list[Unit], Field(max_length=4096)]


class Start(Message):
    """POST /api/session/start. Without any field it is prior art E's session.

    Attributes:
        n_embd, n_head, n_layer, block_size: the model's shape; n_embd is a multiple of n_head.
        learning_rate: peak of AdamW.
        num_steps: length of the run and of its schedule.
        temperature: of the samples drawn on the way.
        seed: of weights and order.
        model: a preset of conf/model; the four sizes are laid over it.
        data: a corpus, as `data=` of `microgpt.train`.
        tokenizer: `char` or `bpe`.
        optimizer: `adamw` or `muon`.
        batch_size: rows a step.
        settings: any other key of `microgpt.train` in model., data., tokenizer., optimizer., or trainer.accumulate,
            trainer.eval_interval, trainer.eval_batches: key to value.
        name: shown in lists.
    """

    n_embd: Annotated[int, Field(ge=4, le=2048)] = 16
    n_head: Annotated[int, Field(ge=1, le=64)] = 4
    n_layer: Annotated[int, Field(ge=1, le=48)] = 1
    block_size: Annotated[int, Field(ge=2, le=2048)] = 8
    learning_rate: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.01
    num_steps: Annotated[int, Field(ge=1, le=100_000)] = 500
    temperature: Annotated[FiniteFloat, Field(gt=0, le=2)] = 0.5
    seed: Annotated[int, Field(ge=0, le=2**53)] = 42
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "micro_first"
    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "names"
    tokenizer: Literal["char", "bpe"] = "char"
    optimizer: Literal["adamw", "muon"] = "adamw"
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    settings: Annotated[
        dict[str, bool | int | FiniteFloat | Annotated[str, Field(max_length=64)]], Field(max_length=64)
    ] = Field(default_factory=dict)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""


class Run(Message):
    """POST /api/session/{id}/run.

    Attributes:
        steps: how many.
        delay_ms: pause after each; 0 is full speed.
        to_end: go on to the last step, whatever `steps` says.
    """

    steps: Annotated[int, Field(ge=1, le=2000)] = 100
    delay_ms: Annotated[int, Field(ge=0, le=2000)] = 150
    to_end: bool = False


class Sample(Message):
    """POST /api/session/{id}/sample.

    Attributes:
        num_samples: how many.
        temperature: divides the logits.
        step: draw from the model as it was then; None is now.
        off: heads and neurons that are switched off.
        prompt: the text to go on from.
        seed: of the draws.
    """

    num_samples: Annotated[int, Field(ge=1, le=100)] = 10
    temperature: Annotated[FiniteFloat, Field(gt=0, le=2)] = 0.5
    step: Count | None = None
    off: Units = Field(default_factory=list[Unit])
    prompt: Text = ""
    seed: Annotated[int, Field(ge=0, le=2**53)] = 42


class Fork(Message):
    """POST /api/session/{id}/fork: a new session that goes on from a step of this one, as a run of its own.

    Unchanged it goes on bit for bit as this one did. What is None stays as it is.

    Attributes:
        step: where it leaves; None is now.
        learning_rate: new peak.
        num_steps: new end of the schedule.
        data: another corpus, in this session's tokens.
        off: heads and neurons that stay switched off while it trains.
        name: shown in lists.
    """

    step: Count | None = None
    learning_rate: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    num_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    off: Units = Field(default_factory=list[Unit])
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""


class Attach(Message):
    """POST /api/runs/attach: look into a run folder of `microgpt.train`, running or ended.

    Attributes:
        run: its folder's name, MLflow id, `latest` or `best`, as `microgpt lab --run` takes it.
    """

    run: Annotated[str, Field(min_length=1, max_length=256)]


class Place(BaseModel):
    """A session at a step; None is its last."""

    model_config = ConfigDict(extra="forbid")
    session_id: Annotated[str, Field(max_length=64)]
    step: Count | None = None


class Compare(Message):
    """POST /api/compare: two states side by side."""

    a: Place
    b: Place


class Difference(BaseModel):
    """One parameter tensor in two states: norms, norm of the difference, cosine of the angle between them."""

    name: str
    shape: list[int]
    norm_a: float
    norm_b: float
    distance: float
    cosine: float | None


class Compared(BaseModel):
    """Answer of POST /api/compare; `loss` is each state's validation loss, parameters those of equal shape."""

    a: Place
    b: Place
    loss: tuple[float, float]
    parameters: list[Difference]


class Known(BaseModel):
    """A run folder; `run` is what attaching it takes."""

    run: str
    name: str
    status: str
    step: int | None
    val_loss: float | None
    started: str


class Runs(BaseModel):
    """GET /api/runs, newest first."""

    runs: list[Known]


# ---- answers about sessions


class Metadata(BaseModel):
    """What a session is. The first nine are prior art E's.

    Attributes:
        config: E's eight keys, then those of `Start` that E does not have.
        num_docs: documents trained on.
        vocab_size, bos_token_id: of the tokenizer.
        step: updates done.
        num_params: trained numbers.
        num_steps: the end of the schedule.
        steps_remaining: of them.
        progress: share of num_steps that is done, 0 to 1.
        kind: `live` trains here; `run` follows a run folder; `trace` replays a file. Only `live` can step.
        completed: whether the last step is done.
        name: given at the start.
        parent: the session and step that it was forked from.
        off: units that stay switched off while it trains.
        layers, heads: for the grids.
        hidden: neurons a layer.
        vocab: text of each token id, where there are at most 4,096, else empty.
        parameters: name to shape of each tensor.
        first_step: the earliest step that can be asked for.
        recorded: steps recorded on disk (any step between can be asked for too where kind is `live`).
        uniform_loss: ln(vocab_size), the loss of knowing nothing.
        generation: goes up with each reset; scalars of another generation are void.
        run: name of the run folder, empty where there is none.
        full_config: the resolved config of `microgpt.train`.
    """

    config: dict[str, Any]
    num_docs: int
    vocab_size: int
    bos_token_id: int
    step: int
    num_params: int
    num_steps: int
    steps_remaining: int
    progress: float
    kind: Literal["live", "run", "trace"] = "live"
    completed: bool = False
    name: str = ""
    parent: Place | None = None
    off: list[Unit] = Field(default_factory=list[Unit])
    layers: int = 0
    heads: int = 0
    hidden: int = 0
    vocab: list[str] = Field(default_factory=list[str])
    parameters: dict[str, list[int]] = Field(default_factory=dict[str, list[int]])
    first_step: int = 0
    recorded: list[int] = Field(default_factory=list[int])
    uniform_loss: float = 0.0
    generation: int = 0
    run: str = ""
    full_config: dict[str, Any] = Field(default_factory=dict[str, Any])


class Listed(BaseModel):
    """One session of GET /api/sessions; what is not E's has a default."""

    session_id: str
    running: bool
    step: int
    num_steps: int
    clients: int
    kind: str = "live"
    name: str = ""
    parent: Place | None = None


class Listing(BaseModel):
    """GET /api/sessions, and GET /api/session/{id}/branches: the session itself, all its forks and their origin."""

    sessions: list[Listed]


class Begun(BaseModel):
    """Answer of start, fork, attach and import."""

    session_id: str
    metadata: Metadata


class State(BaseModel):
    """GET /api/session/{id}, and the answer of reset."""

    session_id: str
    running: bool
    metadata: Metadata


class Running(BaseModel):
    """Answer of run."""

    running: bool
    steps: int
    delay_ms: int


class Paused(BaseModel):
    """Answer of pause."""

    running: bool


class Scalars(BaseModel):
    """The numbers of every step, none left out: GET /api/session/{id}/scalars?since=, and a WebSocket message.

    Attributes:
        type: `scalars`.
        generation: see `Metadata`.
        columns: names of the values in a row: step, loss, learning_rate, grad_norm, step_ms, tokens, val_loss. A
            value that a step does not have is null; val_loss is that of the weights after the step.
        rows: in the order of steps, which count from 1; one more row of the same step takes the place of the last.
    """

    v: Literal[1] = 1
    type: Literal["scalars"] = "scalars"
    session_id: str
    generation: int
    columns: list[str]
    rows: list[list[float | None]]


class Problem(BaseModel):
    """Every refused REST request."""

    detail: str


# ---- WebSocket, server to client, as prior art E has them


class Session(BaseModel):
    """First on every connection, and again after a reset."""

    v: Literal[1] = 1
    type: Literal["session"] = "session"
    session_id: str
    metadata: Metadata


class RunStatus(BaseModel):
    """Running or not; `completed` with the last step."""

    v: Literal[1] = 1
    type: Literal["run_status"] = "run_status"
    running: bool
    completed: bool | None = None


class Samples(BaseModel):
    """Drawn texts, asked for or drawn on the way; to all clients.

    Attributes:
        step: the state they are of.
        prompt: what they go on from.
        off: what was switched off.
    """

    v: Literal[1] = 1
    type: Literal["samples"] = "samples"
    samples: list[str]
    temperature: float
    num_samples: int
    step: int = 0
    prompt: str = ""
    off: list[Unit] = Field(default_factory=list[Unit])


class Likely(BaseModel):
    """A token and its probability."""

    token_id: int
    token: str
    prob: float


class HeadEvent(BaseModel):
    """Attention of one token in one head, over the tokens up to itself."""

    head: int
    weights: list[float]
    logits: list[float | None]


class LayerEvent(BaseModel):
    """Attention of one token in one layer."""

    layer: int
    heads: list[HeadEvent]


class TokenEvent(BaseModel):
    """What the model made of one token before the update."""

    pos: int
    input_token_id: int
    input_token: str
    target_token_id: int
    target_token: str
    top_probs: list[Likely]
    attention: list[LayerEvent]


class Sequence(BaseModel):
    """The first row of the batch, its last target included."""

    token_ids: list[int]
    tokens: list[str]


class TrainStep(BaseModel):
    """One optimizer step; for clients that never subscribe, and the answer of POST /api/session/{id}/step.

    At full speed (delay_ms 0) every step is sent, but the token events of at most 30 steps a second are worked out;
    the others have none, and no mean_abs_update. `loss`, probabilities and attention are those before the update.
    """

    v: Literal[1] = 1
    type: Literal["train_step"] = "train_step"
    step: int
    num_steps: int
    step_time_ms: float
    progress: float
    steps_remaining: int
    doc: str
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    mean_abs_update: float | None
    sequence: Sequence
    token_events: list[TokenEvent]
    last_token_event: TokenEvent | None


class Forked(BaseModel):
    """A branch has been made from this session (to subscribed clients)."""

    v: Literal[1] = 1
    type: Literal["forked"] = "forked"
    session_id: str
    parent: Place


class Fault(BaseModel):
    """What was wrong with a client's message, or with the session; `id` is that of the message where it had one."""

    v: Literal[1] = 1
    type: Literal["error"] = "error"
    detail: str
    id: str | None = None


class Pong(BaseModel):
    """Answer of ping."""

    v: Literal[1] = 1
    type: Literal["pong"] = "pong"
    id: str | None = None


# ---- WebSocket, client to server

Key = Annotated[str, Field(min_length=1, max_length=64)]


class Watch(BaseModel):
    """A panel that streams.

    Attributes:
        key: the client's name for it; frames carry it.
        panel: which.
        params: as of that panel, without a step.
        hz: at most so many frames a second.
    """

    model_config = ConfigDict(extra="forbid")
    key: Key
    panel: str
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    hz: Annotated[FiniteFloat, Field(gt=0, le=30)] = 5.0


class Subscribe(Message):
    """From the first of these on a client gets `scalars` and frames in place of `train_step`.

    The list takes the place of the former one. Each watched panel is sent at once, then as the model moves.

    Attributes:
        panels: what to stream.
        since: send all scalars after this step (of `generation`) first; None sends those from now on. After a lost
            connection the last step that was seen leaves no gap.
        generation: that `since` belongs to; of another one all scalars are sent.
    """

    type: Literal["subscribe"] = "subscribe"
    panels: Annotated[list[Watch], Field(max_length=32)] = Field(default_factory=list[Watch])
    since: Count | None = None
    generation: Count | None = None


class Inspect(Message):
    """One look at a panel; also POST /api/session/{id}/inspect (there without id and type).

    Attributes:
        id: the client's name for the question; the frame carries it as `id`.
        panel: which.
        step: at which step; None is now.
        params: as of that panel.
    """

    type: Literal["inspect"] = "inspect"
    id: Key = "0"
    panel: str
    step: Count | None = None
    params: dict[str, Any] = Field(default_factory=dict[str, Any])


class Ping(Message):
    """Asks for a pong."""

    type: Literal["ping"] = "ping"
    id: Key | None = None


# ---- answers of panels


class TensorHeader(BaseModel):
    """Where a tensor stands in a frame's payload.

    Attributes:
        name: as the panel's docs call it.
        shape: its dimensions.
        offset: of its first number in the payload, in numbers (not bytes).
    """

    name: str
    shape: list[int]
    offset: int


class FrameHeader(BaseModel):
    """The JSON at the head of a binary frame.

    Frame: uint32 length of the header in bytes, the header (UTF-8, filled with spaces so that what follows begins
    at a multiple of 4), then the numbers of all tensors as float32; everything little-endian.

    Attributes:
        panel: which.
        id: of the `inspect` that it answers, else None.
        key: of the watch that it belongs to, else None.
        step: the state it shows.
        generation: see `Metadata`.
        data: the panel's data model.
        tensors: what the payload holds.
    """

    v: Literal[1] = 1
    type: Literal["frame"] = "frame"
    panel: str
    id: str | None = None
    key: str | None = None
    session_id: str
    step: int
    generation: int
    data: dict[str, Any]
    tensors: list[TensorHeader]


class Tensor(BaseModel):
    """A tensor in JSON: `f32` is base64 of its float32 numbers, little-endian, row-major."""

    shape: list[int]
    f32: str


class Inspected(BaseModel):
    """Answer of POST /api/session/{id}/inspect; also what a trace holds for a panel at a step."""

    panel: str
    step: int
    data: dict[str, Any]
    tensors: dict[str, Tensor]


class TraceFrame(Inspected):
    """A panel at a step; `params` are those that differ from the panel's defaults."""

    params: dict[str, Any] = Field(default_factory=dict[str, Any])


class Trace(BaseModel):
    """A session in a file: all its scalars and samples, and the panels at its recorded steps.

    GET /api/session/{id}/trace gives one, POST /api/trace takes one and answers `Begun`: a read-only session that
    answers the same messages, but for panels and steps that are not in it.

    Attributes:
        created: ISO 8601.
        metadata: at the end; its `recorded` are the steps that have frames.
        scalars: every step.
        samples: oldest first.
        frames: by step.
    """

    model_config = ConfigDict(extra="forbid")
    v: Literal[1] = 1
    format: Literal["microgpt-lab-trace"] = "microgpt-lab-trace"
    created: str
    metadata: Metadata
    scalars: Scalars
    samples: list[Samples]
    frames: list[TraceFrame]


REQUESTS: dict[str, type[Message]] = {"subscribe": Subscribe, "inspect": Inspect, "ping": Ping}
