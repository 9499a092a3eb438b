"""What requests may say: every field with its type and limits, nothing else taken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

SAMPLES = 50  # of one `generate` request
CHOICES = 16  # of one completion
MESSAGES = 4096
SEED = 2**63 - 1
STOP = "a text, or a list of up to 4 texts, of 1 to 256 characters each"
PROMPT = f"a text, a list of token ids, or a list of up to {CHOICES} of either"


def whole(value: Any) -> Any:
    """5.0 is a whole number in JSON, and some clients write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(whole)]
Text = Annotated[str, StringConstraints(min_length=1)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


# ---- prior art C's API


class GenerateBody(Body):
    """`POST /microgpt/v1/generate`."""

    num_samples: Annotated[Whole, Field(ge=1, le=SAMPLES, description="How many texts.")] = 1
    temperature: Annotated[float, Field(ge=0, le=100, description="0 takes the likeliest token.")] = 0.5
    seed: Annotated[Whole, Field(ge=0, le=SEED, description="Text i is drawn with seed + i.")] = 42
    max_tokens: Annotated[Whole | None, Field(ge=1, le=10**6, description="Most tokens of a text.")] = None


class Turn(Body):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class TalkBody(Body):
    """`POST /microgpt/v1/chat`."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MESSAGES, fail_fast=True)]
    temperature: Annotated[float, Field(ge=0, le=100, description="0 takes the likeliest token.")] = 0.5
    seed: Annotated[Whole, Field(ge=0, le=SEED)] = 42
    max_tokens: Annotated[Whole | None, Field(ge=1, le=10**6, description="Most tokens of the reply.")] = None


# ---- OpenAI's API


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Body):
    """A message of a conversation; what the API itself answers may be sent back as it is."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MESSAGES, fail_fast=True)]
    name: str | None = None
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    @property
    def text(self) -> str:
        """The content, whatever it is made of."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Body):
    """How to stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class PlainFormat(Body):
    """The only format of an answer that there is."""

    type: Literal["text"]


class Options(Body):
    """What both of OpenAI's ways to ask have in common."""

    model: Annotated[str | None, Field(description="May be left out where one model is served.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="0 takes the likeliest token.")] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    n: Annotated[Whole | None, Field(ge=1, le=CHOICES, description="How many answers.")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[Whole | None, Field(ge=1, description="At most the model's context.")] = None
    stop: Annotated[
        StopText | Annotated[list[StopText], Field(max_length=4)] | None,
        Field(description=STOP),
    ] = None
    seed: Annotated[Whole | None, Field(ge=-SEED - 1, le=SEED)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    logit_bias: Annotated[
        dict[Annotated[str, StringConstraints(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]]
        | None,
        Field(max_length=300, description="Added to the logits of token ids."),
    ] = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    # not OpenAI's
    top_k: Annotated[Whole | None, Field(ge=0, le=10**6, description="Keep the k likeliest; 0 keeps all.")] = None
    min_p: Annotated[float | None, Field(ge=0, lt=1)] = None
    repetition_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    min_tokens: Annotated[Whole | None, Field(ge=0, description="Tokens before the end may come.")] = None


class ChatBody(Options):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[Whole | None, Field(ge=1, description="The same as max_tokens.")] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole | None, Field(ge=0, le=20)] = None
    response_format: PlainFormat | None = None
    modalities: Annotated[list[Literal["text"]] | None, Field(max_length=1)] = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    tools: None = None
    tool_choice: None = None
    functions: None = None
    function_call: None = None
    audio: None = None


Ids = Annotated[list[Whole], Field(min_length=1, max_length=10**6, fail_fast=True)]


class CompletionBody(Options):
    """`POST /v1/completions`."""

    prompt: Annotated[
        str | Annotated[list[str], Field(min_length=1, max_length=CHOICES)] | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=CHOICES)],
        Field(description=PROMPT),
    ] = ""  # fmt: skip
    logprobs: Annotated[Whole | None, Field(ge=0, le=5)] = None
    echo: Annotated[bool | None, Field(description="True is not supported.")] = None
    best_of: None = None
    suffix: None = None
