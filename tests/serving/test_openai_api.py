"""OpenAI's own client is content: its answers, streams, options and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import microgpt
from microgpt.tokenizer.base import Tokenizer

Running = Any
Client = openai.OpenAI
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Client]:
    with Client(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def model(talker: Path) -> microgpt.Model:
    return microgpt.load(talker, "cpu", compiled="never")


def chat(client: Client, **options: Any) -> Any:
    given = {"model": "microgpt", "messages": HELLO, "seed": 3, "max_tokens": 12, **options}
    return client.chat.completions.create(**given)


def complete(client: Client, **options: Any) -> Any:
    return client.completions.create(**{"model": "microgpt", "prompt": "the", "seed": 3, "max_tokens": 12, **options})


# ---- answers


def test_a_chat_is_what_the_library_writes(client: Client, model: microgpt.Model) -> None:
    answer = chat(client, temperature=0.9, top_p=0.9)
    reply = model.chat(HELLO, temperature=0.9, top_p=0.9, top_k=0, seed=3, max_new_tokens=12)
    (choice,) = answer.choices
    assert choice.message.content == reply.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == {"length": "length"}.get(reply.finish, "stop")
    assert answer.object == "chat.completion"
    assert answer.model == "microgpt"
    assert answer.id.startswith("chatcmpl-")


def test_usage_counts_what_the_template_makes_of_the_messages(client: Client, tokenizer: Tokenizer) -> None:
    answer = chat(client, messages=[{"role": "system", "content": "be brief"}, *HELLO])
    prompt = 1 + 2 + len(tokenizer.encode("be brief")) + 2 + len(tokenizer.encode("hello")) + 1
    usage = answer.usage
    assert usage.prompt_tokens == prompt
    assert usage.total_tokens == prompt + usage.completion_tokens
    assert usage.completion_tokens <= 12
    assert usage.microgpt_tokens_dropped == 0


def test_a_completion_is_what_the_library_writes(client: Client, model: microgpt.Model) -> None:
    answer = complete(client, temperature=1.1)
    assert answer.object == "text_completion"
    texts = model.generate("the", temperature=1.1, top_k=0, top_p=1, seed=3, max_new_tokens=12)
    assert [choice.text for choice in answer.choices] == texts
    assert answer.usage.prompt_tokens == 1 + len(model.tokenizer.encode("the"))


def test_several_answers_are_drawn_with_the_next_seeds(client: Client) -> None:
    three = chat(client, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    alone = [chat(client, seed=3 + i).choices[0].message.content for i in range(3)]
    assert [choice.message.content for choice in three.choices] == alone
    assert three.usage.completion_tokens > 12


def test_several_prompts_in_one_request(client: Client, model: microgpt.Model) -> None:
    both = complete(client, prompt=["the", "cat"], n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == complete(client).choices[0].text
    assert both.choices[3].text == complete(client, prompt="cat", seed=6).choices[0].text
    ids = model.tokenizer.encode("the")
    assert complete(client, prompt=ids).choices[0].text == complete(client).choices[0].text
    assert complete(client, prompt=[ids, ids]).choices[0].text == complete(client).choices[0].text


def test_without_a_seed_answers_differ(client: Client) -> None:
    texts = {complete(client, seed=None, extra_body={"seed": None}).choices[0].text for _ in range(4)}
    assert len(texts) > 1


def test_an_unset_length_goes_to_the_end_of_the_context_or_to_sixteen(client: Client) -> None:
    talk = chat(
        client, max_tokens=openai.NOT_GIVEN, logit_bias={"0": -100, "1": -100, "2": -100, "3": -100, "4": -100}
    )
    assert talk.usage.total_tokens == 129  # the last token of a full context is drawn, not read
    assert talk.choices[0].finish_reason == "length"
    text = complete(client, max_tokens=openai.NOT_GIVEN, extra_body={"min_tokens": 16})
    assert text.usage.completion_tokens == 16


def test_a_stop_text_ends_an_answer_and_is_not_shown(client: Client) -> None:
    whole = chat(client, max_tokens=60).choices[0].message.content
    stop = whole[5:7]
    for given in (stop, ["never said", stop]):
        cut = chat(client, max_tokens=60, stop=given)
        assert cut.choices[0].message.content == whole[: whole.index(stop)]
        assert cut.choices[0].finish_reason == "stop"
    streamed = list(chat(client, max_tokens=60, stop=stop, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == whole[: whole.index(stop)]
    assert streamed[-1].choices[0].finish_reason == "stop"


def test_logprobs_tell_of_every_token(client: Client) -> None:
    answer = chat(client, temperature=0, logprobs=True, top_logprobs=3)
    told = answer.choices[0].logprobs.content
    assert len(told) == answer.usage.completion_tokens
    assert b"".join(bytes(t.bytes) for t in told).decode("utf-8", "replace") == answer.choices[0].message.content
    for token in told:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob  # the likeliest was taken
        assert token.logprob < 0
    bare = chat(client, logprobs=True).choices[0].logprobs.content
    assert all(token.top_logprobs == [] for token in bare)
    assert chat(client).choices[0].logprobs is None


def test_logprobs_of_completions_have_the_older_shape(client: Client) -> None:
    answer = complete(client, temperature=0, logprobs=2)
    told = answer.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 12
    assert all(len(top) == 2 and max(top.values()) == p for top, p in zip(told.top_logprobs, told.token_logprobs))
    assert told.text_offset[0] == 0
    streamed = [c.choices[0].logprobs for c in complete(client, temperature=0, logprobs=2, stream=True)]
    assert [t for told_part in streamed for t in told_part.tokens] == told.tokens
    assert [t for told_part in streamed for t in told_part.text_offset] == told.text_offset


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.2},
        {"top_p": 0.3},
        {"frequency_penalty": 2.0},
        {"presence_penalty": 2.0},
        {"extra_body": {"top_k": 2}},
        {"extra_body": {"min_p": 0.5}},
        {"extra_body": {"repetition_penalty": 5.0}},
        {"logit_bias": {"100": 30}},
    ],
    ids=str,
)
def test_every_option_changes_what_is_drawn(client: Client, model: microgpt.Model, options: dict[str, Any]) -> None:
    flat = options.get("extra_body", options)
    names = {"logit_bias"} & set(flat)
    answer = complete(client, max_tokens=40, **options).choices[0].text
    assert answer != complete(client, max_tokens=40).choices[0].text
    if not names:  # the library takes the same settings
        settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 3, "max_new_tokens": 40, **flat}
        assert answer == model.generate("the", **settings)[0]


def test_top_p_0_takes_the_likeliest_and_min_tokens_holds_the_end_back(client: Client) -> None:
    assert chat(client, top_p=0).choices[0].message.content == chat(client, temperature=0).choices[0].message.content
    loud = {"0": 100.0, "1": 100.0, "2": 100.0, "3": 100.0, "4": 100.0}  # all control tokens
    assert chat(client, logit_bias=loud).usage.completion_tokens == 0
    assert chat(client, logit_bias=loud, extra_body={"min_tokens": 5}).usage.completion_tokens == 5


def test_roles_and_parts_of_content(client: Client) -> None:
    asked = [
        {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        {"role": "user", "content": "hello", "name": "ann"},
    ]
    plain = [{"role": "system", "content": "be brief"}, *HELLO]
    assert chat(client, messages=asked).choices[0].message == chat(client, messages=plain).choices[0].message


def test_an_answer_can_be_sent_back_as_it_is(client: Client) -> None:
    first = chat(client)
    said = first.choices[0].message.model_dump()
    second = chat(client, messages=[*HELLO, said, {"role": "user", "content": "and you?"}])
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_harmless_fields_change_nothing(client: Client) -> None:
    asked = chat(client, user="ann", metadata={"a": "b"}, store=False, response_format={"type": "text"}, tools=None)
    assert asked.choices[0].message == chat(client).choices[0].message


# ---- streams


@pytest.mark.parametrize(
    "options", [{}, {"n": 3}, {"logprobs": True, "top_logprobs": 2}, {"temperature": 0}], ids=str
)
def test_a_streamed_chat_says_the_same_as_a_whole_one(client: Client, options: dict[str, Any]) -> None:
    whole = chat(client, max_tokens=50, **options)
    chunks = list(chat(client, max_tokens=50, stream=True, stream_options={"include_usage": True}, **options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks[:-1] if c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.delta.role for c in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        if "logprobs" in options:
            assert [t for c in mine for t in c.logprobs.content] == choice.logprobs.content


def test_a_streamed_completion_says_the_same_as_a_whole_one(client: Client) -> None:
    whole = complete(client, prompt=["the", "a cat"], max_tokens=50)
    chunks = list(complete(client, prompt=["the", "a cat"], max_tokens=50, stream=True))
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices[0].index == choice.index]
        assert "".join(c.text for c in mine) == choice.text
        assert mine[-1].finish_reason == choice.finish_reason
    assert all(chunk.usage is None for chunk in chunks)


# ---- models


def test_models_tell_what_they_can(client: Client, several: Running) -> None:
    (only,) = client.models.list().data
    assert (only.id, only.object, only.owned_by) == ("microgpt", "model", "microgpt")
    facts = only.microgpt
    assert facts == {"chat": True, "block_size": 128, "vocab_size": 300, "parameters": facts["parameters"]}
    assert facts["parameters"] > 2 * 300 * 16
    assert client.models.retrieve("microgpt") == only
    names = [entry["id"] for entry in several.client.get("/v1/models").json()["data"]]
    assert names == ["speller", "talker", "tireless"]
    assert several.client.get("/v1/models/speller").json()["microgpt"]["chat"] is False


def test_each_model_answers_under_its_name(several: Running) -> None:
    spelt = several.post("/v1/completions", {"model": "speller", "prompt": "abc", "max_tokens": 20}).json()
    assert spelt["model"] == "speller"
    assert set(spelt["choices"][0]["text"]) <= set("abcdef \n")
    told = several.post("/v1/completions", {"model": "talker", "prompt": "xyz"})
    assert (told.status_code, told.json()["model"]) == (200, "talker")


def test_a_model_must_be_named_where_there_are_several(server: Running, several: Running) -> None:
    for model in ({}, {"model": ""}, {"model": None}):
        assert server.post("/v1/chat/completions", {"messages": HELLO, **model}).status_code == 200
        refused = several.post("/v1/chat/completions", {"messages": HELLO, **model})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "model"


# ---- errors

IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
Ask = Callable[[Client], Any]


@pytest.mark.parametrize(
    "ask, param, code",
    [
        (lambda c: chat(c, temperature=2.1), "temperature", "invalid_value"),
        (lambda c: chat(c, temperature=-1), "temperature", "invalid_value"),
        (lambda c: chat(c, top_p=1.5), "top_p", "invalid_value"),
        (lambda c: chat(c, n=17), "n", "invalid_value"),
        (lambda c: chat(c, n=0), "n", "invalid_value"),
        (lambda c: chat(c, max_tokens=129), "max_tokens", "invalid_value"),
        (lambda c: chat(c, max_completion_tokens=129), "max_completion_tokens", "invalid_value"),
        (lambda c: chat(c, max_tokens=0), "max_tokens", "invalid_value"),
        (lambda c: chat(c, logprobs=True, top_logprobs=21), "top_logprobs", "invalid_value"),
        (lambda c: chat(c, top_logprobs=2), "top_logprobs", "invalid_value"),
        (lambda c: complete(c, logprobs=6), "logprobs", "invalid_value"),
        (lambda c: chat(c, stop=list("abcde")), "stop", "invalid_value"),
        (lambda c: chat(c, stop=""), "stop", "invalid_value"),
        (lambda c: chat(c, stop="x" * 257), "stop", "invalid_value"),
        (lambda c: chat(c, seed=2**64), "seed", "invalid_value"),
        (lambda c: chat(c, logit_bias={"300": 1}), "logit_bias", "invalid_value"),
        (lambda c: chat(c, logit_bias={"5": 101}), "logit_bias", "invalid_value"),
        (lambda c: chat(c, frequency_penalty=3), "frequency_penalty", "invalid_value"),
        (lambda c: chat(c, stream_options={"include_usage": True}), "stream_options", "invalid_value"),
        (lambda c: chat(c, extra_body={"min_tokens": 13}), "min_tokens", "invalid_value"),
        (lambda c: chat(c, tools=[{"type": "function", "function": {"name": "f"}}]), "tools", "unsupported_field"),
        (lambda c: chat(c, functions=[{"name": "f"}]), "functions", "unsupported_field"),
        (lambda c: chat(c, audio={"voice": "a", "format": "wav"}), "audio", "unsupported_field"),
        (lambda c: chat(c, response_format={"type": "json_object"}), "response_format.type", "invalid_value"),
        (lambda c: chat(c, modalities=["audio"]), "modalities[0]", "invalid_value"),
        (lambda c: chat(c, extra_body={"temprature": 1}), "temprature", "unsupported_field"),
        (lambda c: chat(c, messages=[]), "messages", "invalid_value"),
        (lambda c: chat(c, messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]), "messages[0].role",
         "invalid_value"),
        (lambda c: chat(c, messages=[{"role": "user", "content": [IMAGE]}]), "messages[0].content", "invalid_value"),
        (lambda c: complete(c, echo=True), "echo", None),
        (lambda c: chat(c, messages=[{"role": "user", "content": "zq" * 99}]), "messages", "context_length_exceeded"),
        (lambda c: complete(c, prompt="zq" * 99), "prompt", "context_length_exceeded"),
        (lambda c: complete(c, prompt=[5] * 127), "prompt", "context_length_exceeded"),
        (lambda c: complete(c, prompt=[300]), "prompt", "invalid_value"),
        (lambda c: complete(c, prompt=[0]), "prompt", "invalid_value"),  # a control token
        (lambda c: complete(c, prompt=["a"] * 17), "prompt", "invalid_value"),
        (lambda c: complete(c, prompt=["a"] * 9, n=2), "n", "invalid_value"),
        (lambda c: complete(c, best_of=3), "best_of", "unsupported_field"),
        (lambda c: complete(c, suffix="x"), "suffix", "unsupported_field"),
    ],
)  # fmt: skip
def test_mistakes_are_400_with_the_field(client: Client, ask: Ask, param: str, code: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client)
    error = caught.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert error.body is not None


def test_an_unknown_model_is_not_found(client: Client) -> None:
    for ask in (lambda: chat(client, model="gpt-4o"), lambda: client.models.retrieve("gpt-4o")):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"


def test_a_model_of_plain_text_does_not_chat(several: Running) -> None:
    client = Client(base_url=f"{several.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, model="speller")
    assert caught.value.code == "not_a_chat_model"
    with pytest.raises(openai.BadRequestError) as unknown:
        complete(client, model="speller", prompt="xyz")
    assert unknown.value.param == "prompt"
    assert "xyz" not in str(unknown.value)


def test_a_key_is_asked_for_where_there_is_one(serve: Callable[..., Running], talker: Path) -> None:
    locked = serve("--model-dir", talker, env={"MICROGPT_API_KEY": "open sesame"})
    with pytest.raises(openai.AuthenticationError):
        chat(Client(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0))
    assert chat(Client(base_url=f"{locked.url}/v1", api_key="open sesame")).choices
    assert locked.client.get("/health").status_code == 200
    assert locked.client.get("/metrics").status_code == 401
