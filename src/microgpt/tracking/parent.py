"""`python -m microgpt.tracking.parent`: the parent run of a sweep or pipeline, in a process of its own."""

from __future__ import annotations

import os
import sys

from microgpt.runtime import quiet_libraries
from microgpt.tracking.stale import mend, owner_tags, send_rest
from microgpt.tracking.store import experiment_id, open_client, settings


def main(words: list[str]) -> None:
    """`start NAME KIND` prints the new run's id; `end ID STATUS` ends it."""
    quiet_libraries()
    given = settings()
    client = open_client(given["uri"])
    if words[0] == "start":
        tags = {"microgpt.kind": words[2], **owner_tags(os.getppid())}
        experiment = experiment_id(client, given["uri"], given["experiment"])
        run = client.create_run(experiment, run_name=words[1], tags=tags)
        print(run.info.run_id, flush=True)
        send_rest(mend(client, experiment))
    else:
        client.set_terminated(words[1], words[2])


if __name__ == "__main__":
    main(sys.argv[1:])
