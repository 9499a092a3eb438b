"""Importing the package opens no socket and starts no process; a clock that jumps by years changes nothing (T16)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from warm import Warm

from microgpt.runs.folder import read_metrics, read_run
from runs import RUN, assert_equal, at_call

#: numba and MLflow, when they are imported, ask `uname` for the processor, try whether a cache can be written and
#: whether there is IPv6; only these files import them at their top, and only when they are needed
OF_LIBRARIES = {"microgpt.inference.kernels", "microgpt.inference.steps_numba", "microgpt.tracking.served"}
PACKAGE = Path(__file__).parents[2] / "src" / "microgpt"

SANDBOX = """
import importlib, json, sys
done = []
def heard(event, args):
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.__new__"):
        done.append(f"{event} {args[1:]}")
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
        done.append(f"{event} {args[:2]}")
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        if not args[0].startswith("/dev/") and "__pycache__" not in args[0]:
            done.append(f"writes {args[0]}")
sys.addaudithook(heard)
found = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ImportError as error:  # of an extra that is not installed
        if (error.name or "").partition(".")[0] == "microgpt":
            raise
    if done:
        found[name] = done[:]
        done.clear()
print(json.dumps(found))
"""


def test_importing_any_module_opens_no_socket_starts_no_process_and_writes_nothing(tmp_path: Path) -> None:
    modules = sorted(
        ".".join(("microgpt", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for p in PACKAGE.rglob("*.py")
        if p.name != "__main__.py"
    )
    modules = [name for name in modules if name not in OF_LIBRARIES]
    assert len(modules) > 60
    words = [sys.executable, "-W", "ignore", "-c", SANDBOX, json.dumps(modules)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
    assert not list(tmp_path.iterdir())


WANDERING = """
import random, time
true_time, true_format, draw = time.time, time.strftime, random.Random(1)
time.time = lambda: true_time() + draw.choice([-20, 0, 15]) * 31_536_000
time.time_ns = lambda: int(time.time() * 1e9)
time.strftime = lambda words, when=None: true_format(words, when or time.localtime(time.time()))
"""


def test_a_clock_that_wanders_by_years_changes_nothing_but_the_dates(
    warm: Warm, unbroken: Path, tmp_path: Path
) -> None:
    kill = at_call("microgpt.training.saving", "prune", 6)
    assert warm.start("train", *RUN, cwd=tmp_path, before=WANDERING + kill).wait() == -9
    warm.run("train", "resume=run", cwd=tmp_path, before=WANDERING)
    run = tmp_path / "run"
    assert_equal(unbroken, run)
    years = {line["time"][:4] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}
    assert len(years) > 1, "the clock must wander for this test to mean anything"
    assert 0 < read_run(run)["train_seconds"] < 600
    for key in ("perf/step_ms", "progress/eta_s", "perf/tokens_per_s"):
        assert all(0 <= value < 1e9 for value in read_metrics(run)[key].values()), key
