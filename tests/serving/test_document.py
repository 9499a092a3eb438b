"""The OpenAPI document tells the truth: schemathesis makes requests from it and compares the answers with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Running = Any
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


@pytest.mark.slow
def test_answers_are_as_the_document_says(server: Running, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="the extra `dev` is not installed")
    words = ["run", f"{server.url}/openapi.json", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
             "--max-examples", "20", "--seed", "1", "--generation-database", "none", "--no-color"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_path_names_its_statuses(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    assert set(posts) == {"/microgpt/v1/generate", "/microgpt/v1/chat", "/v1/chat/completions", "/v1/completions"}
    for path, operation in posts.items():
        assert {"200", "400", "401", "403", "404", "408", "413", "429", "500", "503"} <= set(operation["responses"])
        assert "422" not in operation["responses"]
        assert operation["requestBody"]["required"], path
    assert {"/health", "/ready", "/metrics", "/v1/models", "/v1/models/{model}"} <= set(document["paths"])
