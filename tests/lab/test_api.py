"""REST: prior art E's endpoints as it has them, and what is refused."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="the extra `dev` is not installed")
import httpx

from .conftest import LARGER, PATIENCE, Lab, Serve


@pytest.fixture
def session(lab: Lab) -> str:
    """A session of 40 steps."""
    return lab.start(num_steps=40)


def test_health(lab: Lab) -> None:
    assert lab.get("/health").json() == {"status": "ok"}


def test_a_session_of_prior_art_from_start_to_end(lab: Lab) -> None:
    begun = lab.post("/session/start", num_steps=12).json()
    metadata = begun["metadata"]
    own = {"n_embd": 16, "n_head": 4, "n_layer": 1, "block_size": 8, "learning_rate": 0.01, "num_steps": 12}
    assert metadata["config"] == {**metadata["config"], **own, "temperature": 0.5, "seed": 42}
    assert {"num_docs", "vocab_size", "bos_token_id", "step", "num_params", "num_steps"} <= set(metadata)
    assert (metadata["step"], metadata["steps_remaining"], metadata["progress"]) == (0, 12, 0.0)
    assert metadata["num_params"] == 4064
    at = f"/session/{begun['session_id']}"
    event = lab.post(f"{at}/step").json()
    assert (event["type"], event["step"], event["num_steps"], event["steps_remaining"]) == ("train_step", 1, 12, 11)
    assert event["loss"] == pytest.approx(3.3, abs=0.1)
    assert event["learning_rate"] == 0.01
    assert event["mean_abs_update"] > 0
    assert event["sequence"]["tokens"][0] == "<BOS>"
    assert event["doc"] == "".join(t for t in event["sequence"]["tokens"] if t != "<BOS>")
    assert event["last_token_event"] == event["token_events"][-1]
    for place, token in enumerate(event["token_events"]):
        assert token["pos"] == place
        assert len(token["top_probs"]) == 5
        (layer,) = token["attention"]
        assert [head["head"] for head in layer["heads"]] == [0, 1, 2, 3]
        for head in layer["heads"]:
            assert len(head["weights"]) == len(head["logits"]) == place + 1
            assert sum(head["weights"]) == pytest.approx(1, abs=1e-5)
        assert event["sequence"]["token_ids"][place : place + 2] == [
            token["input_token_id"],
            token["target_token_id"],
        ]
    answer = lab.post(f"{at}/run", steps=2, delay_ms=0).json()
    assert answer == {"running": True, "steps": 2, "delay_ms": 0}
    lab.until(lambda: not lab.get(at).json()["running"])
    assert lab.get(at).json()["metadata"]["step"] == 3
    drawn = lab.post(f"{at}/sample", num_samples=3, temperature=0.7).json()
    assert (drawn["type"], len(drawn["samples"]), drawn["num_samples"], drawn["temperature"]) == (
        "samples",
        3,
        3,
        0.7,
    )
    lab.finish(begun["session_id"])
    done = lab.get(at).json()["metadata"]
    assert (done["step"], done["progress"], done["completed"]) == (12, 1.0, True)
    for past_the_end in ("step", "run"):
        refused = lab.post(f"{at}/{past_the_end}")
        assert refused.status_code == 409
        assert refused.json() == {"detail": "training is complete: all 12 steps are done; reset or fork to go on"}
    again = lab.post(f"{at}/reset").json()
    assert (again["running"], again["metadata"]["step"], again["metadata"]["generation"]) == (False, 0, 1)
    assert lab.post(f"{at}/step").json()["loss"] == event["loss"]
    listed = next(s for s in lab.get("/sessions").json()["sessions"] if s["session_id"] == begun["session_id"])
    assert (listed["running"], listed["step"], listed["num_steps"], listed["clients"]) == (False, 1, 12, 0)


def test_running_refuses_a_second_run_and_a_step_but_not_a_pause(lab: Lab) -> None:
    session = lab.start(num_steps=2000)
    at = f"/session/{session}"
    assert lab.post(f"{at}/pause").json() == {"running": False}
    assert lab.post(f"{at}/run", steps=2000, delay_ms=50).status_code == 200
    for asked in ("run", "step"):
        refused = lab.post(f"{at}/{asked}")
        assert (refused.status_code, refused.json()["detail"]) == (409, "the session is running; pause it first")
    assert lab.get(at).json()["running"]
    assert lab.post(f"{at}/pause").json() == {"running": False}
    lab.until(lambda: not lab.get(at).json()["running"])
    step = lab.get(at).json()["metadata"]["step"]
    assert lab.post(f"{at}/step").json()["step"] == step + 1
    assert lab.client.delete(at).json() == {"closed": True}
    assert lab.get(at).status_code == 404


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"n_embd": 15}, "divisible by model.n_head=4"),
        ({"n_embd": -1}, "n_embd: "),
        ({"n_layer": 10**9}, "n_layer: "),
        ({"learning_rate": 0}, "learning_rate: "),
        ({"num_steps": 0}, "num_steps: "),
        ({"temperature": 9}, "temperature: "),
        ({"n_heads": 4}, "n_heads: "),
        ({"model": "huge"}, "choose one of micro_first"),
        ({"data": "secrets"}, "choose one of tales, names"),
        ({"settings": {"data.path": "/etc/passwd"}}, "no key that a session may set"),
        ({"settings": {"optimizer._target_": "os.system"}}, "no key that a session may set"),
        ({"settings": {"optimizer.beta1": 2}}, "optimizer.beta1=2"),
        ({"n_embd": 2048, "n_layer": 48}, "parameters"),
    ],
)
def test_what_no_session_can_be_is_refused_with_a_reason(lab: Lab, fields: dict[str, object], says: str) -> None:
    refused = lab.post("/session/start", **fields)
    assert refused.status_code == 422
    assert says in refused.json()["detail"]
    assert set(refused.json()) == {"detail"}


@pytest.mark.parametrize(
    "body",
    [b'{"n_embd": NaN}', b'{"learning_rate": 1e999}', b'{"name": "\\ud800"}', b"[" * 100_000, b"no", b'{"seed": -1}',
     b"null1", b'"\xff"'],
)  # fmt: skip
def test_hostile_bodies_are_client_errors(lab: Lab, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = lab.client.post("/session/start", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("run", {"steps": 0}), ("run", {"steps": 2001}), ("run", {"delay_ms": 2001}), ("run", {"delay_ms": -1}),
        ("sample", {"num_samples": 0}), ("sample", {"num_samples": 101}), ("sample", {"temperature": 0}),
        ("sample", {"temperature": 2.5}), ("sample", {"step": 10**6}), ("sample", {"prompt": "far too long a name"}),
        ("sample", {"prompt": "Ω"}), ("sample", {"off": [{"layer": 5, "kind": "head", "index": 0}]}),
        ("inspect", {"panel": "nothing"}), ("inspect", {"panel": "attention", "step": 10**6}),
        ("fork", {"step": 10**6}), ("fork", {"learning_rate": -1}), ("fork", {"num_steps": 1, "step": 1}),
    ],
)  # fmt: skip
def test_what_a_session_cannot_do_is_refused(lab: Lab, session: str, path: str, body: dict[str, object]) -> None:
    lab.post(f"/session/{session}/step")
    answer = lab.post(f"/session/{session}/{path}", **body)
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) > 10


@pytest.mark.parametrize("session_id", ["nobody", "..%2f..%2fetc", "%00", "a" * 500])
def test_an_unknown_session_is_not_found(lab: Lab, session_id: str) -> None:
    for answer in (lab.get(f"/session/{session_id}"), lab.post(f"/session/{session_id}/step")):
        assert answer.status_code == 404
        assert set(answer.json()) == {"detail"}


def test_files_outside_the_page_are_not_served(lab: Lab) -> None:
    for path in ("/static/../api.py", "/static/..%2fapi.py", "/static/.hidden", "/static//etc/passwd", "/nothing"):
        assert lab.client.get(f"{lab.url}{path}").status_code == 404


def test_pages_of_another_origin_may_not_write(lab: Lab) -> None:
    for origin in ("http://evil.example", "null"):
        refused = lab.client.post("/session/start", json={}, headers={"origin": origin})
        assert (refused.status_code, set(refused.json())) == (403, {"detail"})
    assert lab.client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_every_scalar_can_be_asked_for(lab: Lab) -> None:
    session = lab.start(num_steps=40)
    lab.finish(session)
    found = lab.get(f"/session/{session}/scalars").json()
    assert [row[0] for row in found["rows"]] == list(range(1, 41))
    places = {name: found["columns"].index(name) for name in ("loss", "val_loss", "tokens")}
    assert all(row[places["loss"]] > 0 for row in found["rows"])
    assert [row[0] for row in found["rows"] if row[places["val_loss"]] is not None] == list(range(2, 41, 2))
    assert len(lab.get(f"/session/{session}/scalars?since=38").json()["rows"]) == 2
    assert len(lab.get(f"/session/{session}/samples").json()["samples"]) == 10


def test_an_unchanged_fork_is_bit_for_bit_its_origin_and_a_changed_one_is_not(lab: Lab) -> None:
    origin = lab.start(**LARGER)
    lab.finish(origin)
    rows = lab.get(f"/session/{origin}/scalars").json()["rows"]
    same = lab.post(f"/session/{origin}/fork", step=17).json()
    other = lab.post(f"/session/{origin}/fork", step=17, learning_rate=0.1, name="faster").json()
    off = [{"layer": 1, "kind": "head", "index": 0}]
    without = lab.post(f"/session/{origin}/fork", step=17, off=off).json()
    assert same["metadata"]["parent"] == {"session_id": origin, "step": 17}
    assert (same["metadata"]["step"], same["metadata"]["first_step"]) == (17, 17)
    assert without["metadata"]["off"] == off
    family = lab.get(f"/session/{other['session_id']}/branches").json()["sessions"]
    assert {s["session_id"] for s in family} == {origin, *(f["session_id"] for f in (same, other, without))}
    timed = 4  # step_ms is the clock's
    losses = {}
    for fork in (same, other, without):
        lab.finish(fork["session_id"])
        theirs = lab.get(f"/session/{fork['session_id']}/scalars").json()["rows"]
        assert theirs[:17] == rows[:17]
        lines = (lab.folder / fork["metadata"]["run"] / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, 41))
        losses[fork["session_id"]] = [row[:timed] + row[timed + 1 :] for row in theirs]
    mine = [row[:timed] + row[timed + 1 :] for row in rows]
    assert losses[same["session_id"]] == mine
    assert losses[other["session_id"]][18:] != mine[18:]
    assert losses[without["session_id"]][18:] != mine[18:]
    place = {"session_id": origin, "step": None}
    equal = lab.post("/compare", a=place, b={"session_id": same["session_id"]}).json()
    assert all(p["distance"] == 0 for p in equal["parameters"])
    assert equal["loss"][0] == equal["loss"][1]
    apart = lab.post("/compare", a=place, b={"session_id": other["session_id"], "step": 40}).json()
    assert any(p["distance"] > 0 for p in apart["parameters"])
    earlier = lab.post(f"/session/{same['session_id']}/inspect", panel="attention", step=3)
    assert earlier.status_code == 422


def test_a_fork_reads_other_data_in_its_origins_tokens(lab: Lab) -> None:
    origin = lab.start(num_steps=20, tokenizer="bpe", settings={"tokenizer.vocab_size": 300})
    lab.finish(origin, steps=10)
    fork = lab.post(f"/session/{origin}/fork", data="tales")
    assert fork.status_code == 200, fork.text
    metadata = fork.json()["metadata"]
    assert metadata["config"]["data"] == "tales"
    assert metadata["vocab_size"] == 300
    lab.finish(fork.json()["session_id"])
    letters = lab.start(num_steps=20)
    refused = lab.post(f"/session/{letters}/fork", data="tales")
    assert refused.status_code == 422
    assert "no token for" in refused.json()["detail"]


def test_sessions_are_limited_expire_and_leave_runs(serve: Serve, tmp_path: Path) -> None:
    server = serve("--sessions", "1", "--expire", "4", folder=tmp_path)
    first = server.start(num_steps=30)
    refused = server.post("/session/start")
    assert refused.status_code == 429
    assert "close one first" in refused.json()["detail"]
    assert refused.headers["retry-after"]
    server.finish(first)
    server.until(lambda: not server.get("/sessions").json()["sessions"])
    assert server.get(f"/session/{first}").status_code == 404
    server.client.delete(f"/session/{server.start()}")  # it has learned nothing and leaves nothing
    (run,) = (tmp_path / "outputs").glob("*/*/run.json")
    facts = json.loads(run.read_text())
    assert (facts["status"], facts["steps"], facts["stage"]) == ("FINISHED", 30, "train")
    steps = [json.loads(line)["step"] for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 31))
    assert (run.parent / "checkpoints" / "step-000030" / "weights.safetensors").exists()
    assert server.stop(signal.SIGTERM) == 143


def test_uvicorn_alone_serves_the_same_app(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "microgpt.lab:app", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=tmp_path)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=PATIENCE) as client:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    assert client.get("/health").json() == {"status": "ok"}
                    break
                except httpx.TransportError:
                    assert time.monotonic() < end
                    time.sleep(0.1)
            assert client.post("/session/start", headers={"origin": "http://evil.example"}).status_code == 403
            session = client.post("/session/start").json()["session_id"]
            assert client.post(f"/session/{session}/step").json()["step"] == 1
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
