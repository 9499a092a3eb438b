"""Models come, change under load and are refused: no request is lost, and nothing wrong is ever served."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from microgpt.checkpoints.folder import MANIFEST, META, TOKENIZER, WEIGHTS
from microgpt.tokenizer.base import Tokenizer

Running = Any
Serve = Callable[..., Running]
Save = Callable[..., Path]
ASK = {"prompt": "the", "max_tokens": 60, "min_tokens": 60, "temperature": 0}


def answer(server: Running) -> str:
    reply = server.post("/v1/completions", ASK)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["text"]


@pytest.fixture
def changing(tmp_path: Path, serve: Serve, save: Save, tokenizer: Tokenizer) -> Running:
    """A server of a model whose folder the test may change: `folder` and `other`, another model."""
    save(tmp_path / "model", tokenizer)
    server = serve("--model-dir", tmp_path / "model")
    server.folder, server.other = tmp_path / "model", save(tmp_path / "other", tokenizer, seed=8)
    return server


def put(source: Path, target: Path) -> None:
    """Let a folder take the place of another, as an export does."""
    shutil.copytree(source, target.with_suffix(".new"))
    target.rename(target.with_suffix(".old"))
    target.with_suffix(".new").rename(target)
    shutil.rmtree(target.with_suffix(".old"))


def reloaded(server: Running) -> str:
    """Ask for a reload; what the server says about it."""
    before = len(server.said())
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: len(server.said()) > before)
    (line,) = server.said()[before:]
    return line


@pytest.mark.slow
def test_a_model_is_replaced_while_requests_run_and_none_is_lost(changing: Running) -> None:
    old = answer(changing)
    seen: list[str] = []
    faults: list[BaseException] = []
    enough = threading.Event()

    def ask() -> None:
        try:
            while not enough.is_set():
                seen.append(answer(changing))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for source in (changing.other, changing.folder, changing.other):
            put(source, changing.folder)
            assert reloaded(changing) == "model microgpt is loaded again"
            changing.until(lambda: answer(changing) != old)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert set(seen) == {old, answer(changing)}  # each answer is of one model or the other, never of both


@pytest.mark.slow
def test_what_is_being_written_ends_on_the_old_model(
    tmp_path: Path, serve: Serve, tireless: Path, talker: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tireless, folder)
    server = serve("--model-dir", folder)
    body = {"prompt": "the", "max_tokens": 8000, "min_tokens": 8000, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        put(talker, folder)
        reloaded(server)
        assert server.client.get("/v1/models").json()["data"][0]["microgpt"]["block_size"] == 128
        assert answer(server)
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert rest[-1]["choices"][0]["finish_reason"] == "length"


# ---- what is no model


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def rewritten(folder: Path, header: Callable[[dict[str, Any]], None], body: Callable[[bytes], bytes] = bytes) -> None:
    """Change the header or the numbers of a weights file."""
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    header(entries)
    text = json.dumps(entries).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + body(content[8 + length :]))


def only_pickle(folder: Path) -> None:
    (folder / META).unlink()
    (folder / "model.ckpt").write_bytes(pickle.dumps(Bomb(folder.parent / "marker")))


def many_tensors(entries: dict[str, Any]) -> None:
    entries.update({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)})


def doubled(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    text = json.dumps(entries)[:-1] + ', "wte": ' + json.dumps(entries["wte"]) + "}"
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text.encode() + content[8 + length :])


def meta(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / META).read_text())
    content["model"].update(changes)
    (folder / META).write_text(json.dumps(content))


def gap(folder: Path) -> None:
    content = json.loads((folder / TOKENIZER).read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] += 5
    (folder / TOKENIZER).write_text(json.dumps(content))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "a pickle alone": only_pickle,
    "a pickle for weights": lambda f: (f / WEIGHTS).write_bytes(pickle.dumps(Bomb(f.parent / "marker"))) and None,
    "a duplicate key": doubled,
    "NaN": lambda f: rewritten(f, lambda _: None, lambda b: np.float32(np.nan).tobytes() + b[4:]),
    "a wrong shape": lambda f: rewritten(f, lambda e: e["wte"].update(shape=[e["wte"]["shape"][0] * 16, 1])),
    "a wrong dtype": lambda f: rewritten(f, lambda e: e["wte"].update(dtype="I32")),
    "200,000 tensors": lambda f: rewritten(f, many_tensors),
    "an empty tokenizer": lambda f: (f / TOKENIZER).write_text("") and None,
    "ids with a gap": gap,
    "a million layers": lambda f: meta(f, n_layer=10**6),
    "a huge width": lambda f: meta(f, n_embd=2**40),
    "cut short": lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]) and None,
    "nothing": lambda f: shutil.rmtree(f),
}


@pytest.mark.slow
def test_no_hostile_model_takes_the_place_of_a_good_one(changing: Running, tmp_path: Path) -> None:
    good, old = tmp_path / "good", answer(changing)
    shutil.copytree(changing.folder, good)
    for name, harm in HOSTILE.items():
        evil = shutil.copytree(good, tmp_path / "evil")
        (evil / MANIFEST).unlink()  # so that nothing but the files' own content can tell
        harm(evil)
        shutil.rmtree(changing.folder, ignore_errors=True)
        if evil.exists():
            evil.rename(changing.folder)
        assert reloaded(changing).startswith("model microgpt stays as it was: "), name
        assert answer(changing) == old, name
        assert changing.client.get("/ready").status_code == 200
    shutil.rmtree(changing.folder, ignore_errors=True)
    assert not (tmp_path / "marker").exists()
    shutil.copytree(changing.other, changing.folder)
    assert reloaded(changing) == "model microgpt is loaded again"
    assert answer(changing) != old


# ---- what the server says of itself


def test_ready_only_when_the_models_are(serve: Serve, tmp_path: Path, save: Save, tokenizer: Tokenizer) -> None:
    large = save(tmp_path / "large", tokenizer, 64, n_layer=6, n_embd=256)
    server = serve("--model-dir", large, wait=False)
    first = server.client.get("/ready")
    assert server.client.get("/health").status_code == 200
    if first.status_code == 503:  # it may have been quicker than this test
        assert first.json() == {"status": "loading"}
        refused = server.post("/v1/completions", ASK | {"max_tokens": 1, "min_tokens": 0})
        assert refused.status_code in (200, 503)
    server.until(server.ready)
    assert server.client.get("/ready").json() == {"status": "ready"}
    lines = [server.process.stdout.readline() for _ in range(3)]
    assert lines[0].startswith("model microgpt is ready: for chat, ")
    assert lines[1] == f"next: open {server.url} in a browser, or\n"
    assert f"curl {server.url}/microgpt/v1/chat -d " in lines[2]


def test_metrics_are_prometheus_text_and_count(several: Running) -> None:
    def samples() -> dict[tuple[str, tuple[str, ...]], float]:
        text = several.client.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain")
        families = list(text_string_to_metric_families(text.text))
        return {(s.name, tuple(sorted(s.labels.values()))): s.value for f in families for s in f.samples}

    several.post("/v1/completions", ASK | {"model": "talker"})
    before = samples()
    talk = {
        "model": "talker",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "min_tokens": 7,
        "n": 2,
    }
    used = several.post("/v1/chat/completions", talk).json()["usage"]
    several.post("/v1/chat/completions", {"messages": 5})
    several.client.post("/v1/completions", content=b" " * (2 << 20))
    several.client.get("/made/up/by/a/client")
    refused = ("microgpt_requests_total", ("413", "other"))
    until = time.monotonic() + 30
    while refused not in (after := samples()) and time.monotonic() < until:
        time.sleep(0.05)  # it is counted once what was left of its body has been read

    def grown(name: str, *labels: str) -> float:
        return after[name, tuple(sorted(labels))] - before.get((name, tuple(sorted(labels))), 0.0)

    assert grown("microgpt_tokens_generated_total", "talker") == used["completion_tokens"] == 14
    assert grown("microgpt_prompt_tokens_total", "talker") == 2 * used["prompt_tokens"]
    assert grown("microgpt_conversations_total", "talker") == 1
    assert grown("microgpt_requests_total", "/v1/chat/completions", "200") == 1
    assert grown("microgpt_requests_total", "/v1/chat/completions", "400") == 1
    assert grown("microgpt_requests_total", "other", "413") == 1
    assert grown("microgpt_requests_total", "other", "404") == 1
    assert grown("microgpt_request_duration_seconds_count", "/v1/chat/completions") == 2
    assert grown("microgpt_time_to_first_token_seconds_count", "talker") == 2
    assert grown("microgpt_time_per_token_seconds_count", "talker") == 2
    assert grown("microgpt_tokens_per_second_count", "talker") == 1
    assert grown("microgpt_batch_size_count", "talker") >= 6
    assert grown("microgpt_batch_size_sum", "talker") >= 12
    for gauge in ("microgpt_queue_depth", "microgpt_active_sequences"):
        assert after[gauge, ("talker",)] == 0
    assert not any("made" in label for _, labels in after for label in labels)


def test_the_page_is_served_where_it_is_there(server: Running) -> None:
    page = server.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = server.client.get("/static/main.js")
    assert script.status_code == 200
    assert "javascript" in script.headers["content-type"]
    assert server.client.get("/static/nothing.js").status_code == 404
