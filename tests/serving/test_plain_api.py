"""The plain API keeps to its letter: fields, defaults, limits, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import microgpt

Running = Any
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model(talker: Path) -> microgpt.Model:
    return microgpt.load(talker, "cpu", compiled="never")


def test_generate_gives_the_texts_that_the_library_gives(server: Running, model: microgpt.Model) -> None:
    answer = server.post("/microgpt/v1/generate", {"num_samples": 3, "temperature": 0.9, "seed": 7})
    assert answer.status_code == 200
    assert answer.json() == {
        "samples": model.generate("", 3, temperature=0.9, seed=7, top_k=0, top_p=1, max_new_tokens=128)
    }


def test_generate_without_fields_is_one_sample_at_one_half_with_seed_42(server: Running) -> None:
    assert (
        server.post("/microgpt/v1/generate", {}).json()
        == server.post("/microgpt/v1/generate", {"num_samples": 1, "temperature": 0.5, "seed": 42}).json()
    )
    assert server.post("/microgpt/v1/generate", {}).json() != server.post("/microgpt/v1/generate", {"seed": 1}).json()


def test_chat_answers_as_the_library_does(server: Running, model: microgpt.Model) -> None:
    answer = server.post("/microgpt/v1/chat", {"messages": HELLO, "temperature": 0.8, "seed": 5, "max_tokens": 9})
    reply = model.chat(HELLO, temperature=0.8, seed=5, max_new_tokens=9, top_k=0, top_p=1)
    assert answer.status_code == 200
    assert answer.json() == {"role": "assistant", "content": reply.text, "tokens_dropped": 0}


def test_chat_defaults_are_one_half_and_42(server: Running) -> None:
    plain = server.post("/microgpt/v1/chat", {"messages": HELLO})
    assert plain.status_code == 200
    assert (
        plain.json()
        == server.post(
            "/microgpt/v1/chat", {"messages": HELLO, "temperature": 0.5, "seed": 42, "max_tokens": None}
        ).json()
    )


def test_old_turns_are_dropped_and_counted(server: Running) -> None:
    talk = [{"role": ("user", "assistant")[i % 2], "content": f"{i} hello there"} for i in range(31)]
    dropped = server.post("/microgpt/v1/chat", {"messages": talk, "max_tokens": 20}).json()["tokens_dropped"]
    assert dropped > 100
    fewer = server.post("/microgpt/v1/chat", {"messages": talk[8:], "max_tokens": 20}).json()["tokens_dropped"]
    assert 0 < fewer < dropped


@pytest.mark.parametrize(
    "path, body, said",
    [
        ("generate", {"temperature": -0.1}, "temperature must be greater than or equal to 0"),
        ("generate", {"num_samples": 0}, "num_samples must be greater than or equal to 1"),
        ("generate", {"num_samples": -1}, "num_samples must be greater than or equal to 1"),
        ("generate", {"num_samples": 51}, "num_samples must be less than or equal to 50"),
        ("generate", {"max_tokens": 0}, "max_tokens must be greater than or equal to 1"),
        ("generate", {"num_samples": "3"}, "num_samples must be a valid integer"),
        ("generate", {"num_samples": True}, "num_samples must be a valid integer"),
        ("generate", {"seed": -1}, "seed must be greater than or equal to 0"),
        ("generate", {"samples": 3}, "samples is unknown here, or not supported"),
        ("chat", {}, "messages is missing"),
        ("chat", {"messages": HELLO, "temperature": -1}, "temperature must be greater than or equal to 0"),
        ("chat", {"messages": HELLO, "max_tokens": 0}, "max_tokens must be greater than or equal to 1"),
        ("chat", {"messages": []}, "messages must have at least 1 item"),
        ("chat", {"messages": "hello"}, "messages must be a valid list"),
        (
            "chat",
            {"messages": [*HELLO, {"role": "wizard", "content": "x"}]},
            "messages[1].role must be 'system', 'user' or 'assistant'",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": ""}]},
            "messages[0].content must have at least 1 character",
        ),
        ("chat", {"messages": [{"role": "user"}]}, "messages[0].content is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_400(server: Running, path: str, body: Any, said: str) -> None:
    answer = server.post(f"/microgpt/v1/{path}", body)
    assert (answer.status_code, answer.json()) == (400, {"error": said})


def test_fifty_samples_are_as_many_as_it_takes(server: Running) -> None:
    answer = server.post("/microgpt/v1/generate", {"num_samples": 50, "max_tokens": 2})
    assert len(answer.json()["samples"]) == 50


def test_a_model_of_plain_text_does_not_chat(several: Running) -> None:
    answer = several.post("/microgpt/v1/chat", {"messages": HELLO})
    assert answer.status_code == 400
    assert answer.json() == {"error": "this model was not trained for chat; ask it for a completion instead"}
    assert set("".join(several.post("/microgpt/v1/generate", {}).json()["samples"])) <= set("abcdef \n")


def test_a_message_that_does_not_fit_is_refused(server: Running) -> None:
    answer = server.post("/microgpt/v1/chat", {"messages": [{"role": "user", "content": "zq" * 200}]})
    assert answer.status_code == 400
    assert answer.json()["error"] == "the message has 404 tokens, the context holds 128; send less"


def test_4_mb_are_read_and_more_is_413(server: Running) -> None:
    message = [{"role": "user", "content": "x" * (4_000_000)}]
    assert server.post("/microgpt/v1/chat", {"messages": message}).status_code == 400  # read, and too long to fit
    message[0]["content"] += "x" * 400_000
    over = server.post("/microgpt/v1/chat", {"messages": message})
    assert over.status_code == 413
    assert "limit" in over.json()["error"]


def test_paths_and_methods_that_are_not_there(server: Running) -> None:
    assert server.client.get("/microgpt/v1/nothing").status_code == 404
    assert server.client.get("/microgpt/v1/nothing").json() == {"error": "there is nothing here"}
    wrong = server.client.get("/microgpt/v1/generate")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_health(server: Running) -> None:
    answer = server.client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_an_answer_that_takes_too_long_is_408(serve: Callable[..., Running], tireless: Path) -> None:
    impatient = serve("--model-dir", tireless, "--timeout", "1")
    answer = impatient.post("/microgpt/v1/generate", {"num_samples": 50})
    assert answer.status_code == 408
    assert answer.json() == {"error": "no answer within 1 seconds; ask for less"}
    impatient.until(lambda: impatient.metrics()['microgpt_active_sequences{model="microgpt"}'] == 0)
