"""The container files fit the code: no engine builds them here, so each line is held against what it names."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from microgpt.cli import app

ROOT = Path(__file__).parents[2]
SECRET = re.compile(r"password|secret|token|api_key", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """(instruction, argument) of each line of the Containerfile, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
            found[name] = []
        elif name:
            found[name].append((word, rest))
    return found


def verb(words: list[str]) -> tuple[str, list[str]]:
    """The name of the verb that a `microgpt ...` command line means, and its options."""
    assert words[0] == "microgpt"
    return words[1], words[2:]


def parse(name: str, options: list[str]) -> dict[str, Any]:
    """What the verb's own parser reads from its options; it refuses what it does not know."""
    command: Any = typer.main.get_command(app)
    with click.Context(command) as context:
        chosen = command.get_command(context, name)
        assert chosen is not None, name
        return chosen.make_context(name, list(options)).params


def entry(stage: str) -> list[str]:
    return json.loads(dict(stages()[stage])["ENTRYPOINT"])


def ignored(path: str) -> bool:
    """As the engine reads .containerignore: the last pattern that fits wins."""
    verdict = False
    for line in (ROOT / ".containerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            wanted, pattern = pattern.startswith("!"), pattern.lstrip("!")
            if fnmatch.fnmatch(path, pattern) or path.startswith(pattern + "/"):
                verdict = not wanted
    return verdict


def test_there_is_a_target_for_training_serving_and_tracking_each_on_one_base() -> None:
    froms = [rest for word, rest in instructions() if word == "FROM"]
    assert froms[0] == "python:${PYTHON}-slim AS base"
    assert froms[1:] == [f"base AS {name}" for name in ("train", "tracking", "serve")]


def test_every_path_that_is_copied_is_there_and_reaches_the_build() -> None:
    copied = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    assert {"src", "conf", "pipelines", "corpora", "pyproject.toml", "constraints.txt"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert (ROOT / ".dockerignore").resolve() == (ROOT / ".containerignore").resolve()


def test_what_the_wheel_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["force-include"], project["project"]["readme"], *(p.split("/")[0] for p in wheel["packages"])}
    assert needed <= copied


def test_results_secrets_and_environments_stay_out_of_the_build() -> None:
    for path in (".env", "outputs/a", "mlruns/mlflow.db", "mlruns/server/postgresql/service.conf", ".git/config",
                 ".venv/bin/python", "src/.env", "src/microgpt/__pycache__"):  # fmt: skip
        assert ignored(path), path


def test_the_extras_that_are_installed_exist_and_torch_comes_from_the_index_of_the_argument() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    base = stages()["base"]
    given = next(rest for word, rest in base if word == "ARG" and rest.startswith("EXTRAS="))
    assert set(given.partition("=")[2].split(",")) <= set(extras)
    assert {"serve", "team", "fast"} <= set(given.partition("=")[2].split(","))
    installs = [rest for word, rest in base if word == "RUN" and rest.startswith("pip install")]
    assert len(installs) == 2
    for line in installs:
        assert '${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt' in line
    assert any(rest.startswith("TORCH_INDEX=") for word, rest in base if word == "ARG")


@pytest.mark.parametrize("target", ["train", "tracking", "serve"])
def test_nothing_runs_as_root_and_what_is_made_lies_in_volumes(target: str) -> None:
    lines = [*stages()["base"], *stages()[target]]
    assert [rest for word, rest in lines if word == "USER"][-1] == "microgpt"
    assert [json.loads(rest) for word, rest in lines if word == "VOLUME"] == [["/work/outputs", "/work/mlruns"]]
    assert [rest for word, rest in lines if word == "WORKDIR"][-1] == "/work"
    assert not [rest for word, rest in lines if word in ("ENV", "ARG") and SECRET.search(rest)]


def test_training_starts_a_stage_that_is_there() -> None:
    assert entry("train") == ["python", "-m"]
    (module,) = json.loads(dict(stages()["train"])["CMD"])
    assert (ROOT / "src" / Path(*module.split("."))).with_suffix(".py").exists()


@pytest.mark.parametrize("target", ["tracking", "serve"])
def test_a_server_starts_with_options_that_its_verb_has_and_is_asked_for_its_health(target: str) -> None:
    lines = dict(stages()[target])
    name, options = verb(entry(target))
    given = parse(name, options)
    assert given["host"] == "0.0.0.0"
    assert str(given["port"]) == lines["EXPOSE"]
    check = json.loads(lines["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{given['port']}/health" in check[2]


def test_compose_starts_targets_that_are_there_with_options_that_are_there() -> None:
    content: Any = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = content["services"]
    named = {name: service["build"] for name, service in services.items() if "build" in service}
    assert set(named) == {"train", "tracking", "serve"}
    for name, build in named.items():
        assert build == {"context": ".", "dockerfile": "Containerfile", "target": name}
    name, options = verb([*entry("tracking"), *services["tracking"]["command"]])
    given = parse(name, options)
    assert given["allowed_host"] == [services["train"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")]
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in content["volumes"]
        for key, value in service.get("environment", {}).items():
            assert not SECRET.search(key) or value.startswith("${"), f"{key} is written down"
    backend = services["tracking"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    database = services["database"]["environment"]
    assert backend == f"postgresql://{database['POSTGRES_USER']}@database/{database['POSTGRES_DB']}"


def test_the_pages_commands_name_targets_and_files_that_are_there() -> None:
    page = (ROOT / "docs" / "team.md").read_text(encoding="utf-8")
    built = [shlex.split(line) for line in page.splitlines() if line.startswith("docker build")]
    assert {line[line.index("--target") + 1] for line in built} == {"train", "serve"}
    assert all(line[line.index("-f") + 1] == "Containerfile" for line in built)
