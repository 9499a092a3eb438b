"""The WebSocket: prior art's messages, subscriptions, and clients that behave badly."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the extra `lab` is not installed")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from microgpt.lab.frames import unframed

from .conftest import PATIENCE, Lab


def heard(client: ClientConnection) -> Any:
    """The next message: JSON, or header and tensors of a frame."""
    content = client.recv(timeout=PATIENCE)
    return json.loads(content) if isinstance(content, str) else unframed(content)


def until(client: ClientConnection, kind: str) -> Any:
    """The next message of a type; `frame` gives header and tensors."""
    while True:
        message = heard(client)
        if (message["type"] if isinstance(message, dict) else "frame") == kind:
            return message


def say(client: ClientConnection, **message: Any) -> None:
    client.send(json.dumps(message))


@pytest.fixture
def session(lab: Lab) -> str:
    return lab.start(num_steps=300)


def test_a_client_that_never_subscribes_hears_prior_arts_messages(lab: Lab, session: str) -> None:
    with lab.socket(session) as client:
        first, second = heard(client), heard(client)
        assert (first["type"], first["session_id"], first["metadata"]["step"]) == ("session", session, 0)
        assert (second["type"], second["running"]) == ("run_status", False)
        lab.post(f"/session/{session}/run", steps=5, delay_ms=40)
        assert heard(client)["running"] is True
        steps = [until(client, "train_step") for _ in range(5)]
        assert [event["step"] for event in steps] == [1, 2, 3, 4, 5]
        assert all(event["token_events"] and event["mean_abs_update"] for event in steps)
        assert until(client, "run_status")["running"] is False
        lab.post(f"/session/{session}/sample", num_samples=2)
        assert len(until(client, "samples")["samples"]) == 2
        lab.post(f"/session/{session}/reset")
        assert until(client, "session")["metadata"]["generation"] == 1
        lab.finish(session)
        assert [until(client, "train_step")["step"] for _ in range(300)] == list(range(1, 301))
        assert until(client, "run_status")["completed"] is True


def test_a_subscriber_gets_every_scalar_and_the_newest_frames(lab: Lab, session: str) -> None:
    with lab.socket(session) as client:
        watch = {"key": "mine", "panel": "attention", "params": {"text": "anna"}, "hz": 30}
        say(client, type="subscribe", panels=[watch, {"key": "hist", "panel": "parameters"}])
        header, _ = until(client, "frame")
        assert header["step"] == 0
        assert header["key"] in ("mine", "hist")
        lab.finish(session)
        steps: list[int] = []
        frames: dict[str, list[int]] = {"mine": [], "hist": []}
        while steps[-1:] != [300] or frames["mine"][-1:] != [300] or frames["hist"][-1:] != [300]:
            message = heard(client)
            if isinstance(message, tuple):
                frames[message[0]["key"]].append(message[0]["step"])
            elif message["type"] == "scalars":
                steps += [row[0] for row in message["rows"]]
        assert steps == list(range(1, 301))
        assert all(shown == sorted(set(shown)) for shown in frames.values())
        assert len(frames["mine"]) < 300
        say(client, type="inspect", id="q1", panel="attention", step=300, params={"text": "anna"})
        header, asked = until(client, "frame")
        assert (header["id"], header["step"]) == ("q1", 300)
        assert asked["weights"].shape == (1, 4, 5, 5)
        assert asked["weights"].sum(-1) == pytest.approx(1, abs=1e-5)
        rest = lab.post(f"/session/{session}/inspect", panel="attention", params={"text": "anna"}).json()
        assert rest["tensors"]["weights"]["shape"] == [1, 4, 5, 5]


def test_a_panel_that_has_nothing_to_show_yet_is_told_once_and_streams_later(lab: Lab, session: str) -> None:
    with lab.socket(session) as client:
        params = {"name": "wte", "index": [1, 1]}
        say(client, type="subscribe", panels=[{"key": "w", "panel": "weight", "params": params}])
        assert "nothing has moved at step 0" in until(client, "error")["detail"]
        lab.post(f"/session/{session}/step")
        header, _ = until(client, "frame")
        assert (header["key"], header["step"]) == ("w", 1)
        assert header["data"]["error"] < 1e-6


def test_a_lost_connection_resumes_without_a_gap(lab: Lab, session: str) -> None:
    seen: list[int] = []
    with lab.socket(session) as client:
        say(client, type="subscribe")
        lab.post(f"/session/{session}/run", steps=250, delay_ms=5)
        while len(seen) < 20:
            seen += [row[0] for row in until(client, "scalars")["rows"]]
    with lab.socket(session) as client:
        say(client, type="subscribe", since=seen[-1], generation=0)
        while len(seen) < 250:
            seen += [row[0] for row in until(client, "scalars")["rows"]]
    assert seen == list(range(1, 251))
    with lab.socket(session) as client:
        say(client, type="subscribe", since=3, generation=7)
        assert until(client, "scalars")["rows"][0][0] == 1


def test_nonsense_is_answered_and_the_connection_lives(lab: Lab, session: str) -> None:
    with lab.socket(session) as client:
        wrong = [
            "no", "[]", '{"type": "dance"}', '{"type": ["subscribe"]}', "[" * 50_000, '{"type": "inspect"}',
            '{"type": "subscribe", "panels": [{"key": "a", "panel": "nothing"}]}', '{"type": "ping", "v": 2}',
            '{"type": "subscribe", "since": NaN}', b"\x00\x01",
        ]  # fmt: skip
        for message in wrong:
            client.send(message)
            assert until(client, "error")["detail"]
        say(client, type="inspect", id="7", panel="attention", step=10**6)
        assert until(client, "error")["id"] == "7"
        say(client, type="ping", id="x")
        assert until(client, "pong")["id"] == "x"


def test_a_message_over_the_limit_closes_with_1009(lab: Lab, session: str) -> None:
    with lab.socket(session) as client:
        until(client, "run_status")
        client.send("x" * (2 << 20))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_page_of_another_origin_opens_none(lab: Lab, session: str, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        lab.socket(session, origin=origin)
    assert refused.value.response.status_code == 403


def test_an_unknown_session_is_told_and_closed(lab: Lab) -> None:
    with lab.socket("nobody") as client:
        assert heard(client)["type"] == "error"
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)


def test_a_browser_that_stalls_stops_nobody(lab: Lab) -> None:
    session = lab.start(num_steps=600, settings={"trainer.eval_interval": 600})
    with lab.socket(session, max_queue=1) as stalled, lab.socket(session, max_queue=1) as silent:
        watch = [{"key": str(i), "panel": "graph", "params": {"row": 0}, "hz": 30} for i in range(2)]
        say(stalled, type="subscribe", panels=watch)
        lab.finish(session)  # neither of them reads
        assert lab.get(f"/session/{session}").json()["metadata"]["step"] == 600
        events = [until(silent, "train_step")["step"] for _ in range(600)]
        assert events == list(range(1, 601))
        seen: list[int] = []
        while seen[-1:] != [600]:
            seen += [row[0] for row in until(stalled, "scalars")["rows"]]
        assert seen == list(range(1, 601))


def test_a_session_survives_the_reload_of_its_page(lab: Lab, session: str) -> None:
    with lab.socket(session):
        lab.post(f"/session/{session}/run", steps=200, delay_ms=5)
    time.sleep(0.2)
    with lab.socket(session) as client:
        first = heard(client)
        assert first["metadata"]["step"] > 0
        assert heard(client)["running"] is True


def test_a_worker_that_dies_is_told_to_everybody(lab: Lab) -> None:
    import psutil

    session = lab.start(num_steps=2000)
    before = {child.pid for child in psutil.Process(lab.process.pid).children()}
    with lab.socket(session) as client:
        lab.post(f"/session/{session}/run", steps=2000, delay_ms=1)
        busy = [psutil.Process(pid) for pid in before]
        time.sleep(0.3)
        max(busy, key=lambda process: process.create_time() if process.cpu_percent(0.2) > 1 else 0).kill()
        assert "ended" in until(client, "error")["detail"]
    assert lab.post(f"/session/{session}/step").status_code in (404, 503)
    assert lab.get("/health").status_code == 200


def test_a_session_that_diverges_can_still_be_looked_at(lab: Lab) -> None:
    wild = {"optimizer.weight_decay": 10, "model.mlp": "relu2", "model.init_std": 10}
    session = lab.start(num_steps=60, learning_rate=1, n_layer=3, settings=wild)
    with lab.socket(session) as client:
        panels = [{"key": p, "panel": p} for p in ("graph", "parameters", "tokens", "probabilities", "embeddings")]
        say(client, type="subscribe", panels=panels)
        lab.finish(session)
        until(client, "frame")
    for panel in ("graph", "tokens", "parameters", "knockout", "attention", "lens"):
        assert lab.post(f"/session/{session}/inspect", panel=panel).status_code in (200, 422)
    assert lab.post(f"/session/{session}/sample").status_code < 500
