"""`python -m microgpt.tracking.parent`: the parent run of a sweep or pipeline, in a process of its own."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from microgpt.runtime import quiet_libraries
from microgpt.tracking.stale import mend, owner_tags, send_rest
from microgpt.tracking.store import experiment_id, open_client, settings


def main(words: list[str]) -> None:
    """`start NAME KIND [KNOWN_ID]` prints the run's id; `log ID FILE...` keeps files; `end ID STATUS` ends it."""
    quiet_libraries()
    given = settings()
    client = open_client(given["uri"])
    if words[0] == "start":
        tags = {"microgpt.kind": words[2], **owner_tags(os.getppid())}
        experiment = experiment_id(client, given["uri"], given["experiment"])
        known = reopened(client, words[3], tags) if words[3:] else ""
        print(known or client.create_run(experiment, run_name=words[1], tags=tags).info.run_id, flush=True)
        send_rest(mend(client, experiment))
    elif words[0] == "log":
        for path in words[2:]:
            client.log_artifact(words[1], path)
    else:
        client.set_terminated(words[1], words[2])


def reopened(client: Any, run_id: str, tags: dict[str, str]) -> str:
    """The id of a run of an earlier start, which is this process's now; nothing where it is gone."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        client.update_run(run_id, status="RUNNING")
        return run_id
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
