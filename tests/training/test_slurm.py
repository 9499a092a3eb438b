"""A sweep and a run of several processes as jobs of a real SLURM: one machine, its own daemons, no accounting."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from microgpt.runs.folder import read_metrics, read_run
from waiting import until

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
HERE = all(shutil.which(name, path=PATH) for name in ("slurmctld", "slurmd", "sbatch"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE or os.geteuid() != 0, reason="needs SLURM's daemons (Debian: slurm-wlm) and root"),
]
RUN = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32"),
    *("data.batch_size=4", "trainer.max_steps=20", "trainer.eval_interval=10", "sampling.num_samples=1"),
    *("sampling.max_new_tokens=8", "device.threads=1"),
]
CONF = """
ClusterName=microgpt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
MailProg=/bin/true
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch, srun and squeue speak with daemons of our own."""
    home = tmp_path_factory.mktemp("slurm")
    (home / "state").mkdir()
    (home / "spool").mkdir()
    conf = home / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(home=home, host=host, ports=free_ports(2), cores=os.cpu_count()))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment |= {"SLURM_CONF": str(conf), "PATH": PATH, "OMP_NUM_THREADS": "1"}
    daemons = [
        subprocess.Popen([*words, "-D", "-f", str(conf)], env=environment, start_new_session=True,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in (["slurmctld", "-c"], ["slurmd", "-N", host])
    ]  # fmt: skip

    def ready() -> bool:
        asked = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        if asked.stdout.strip() != "idle":
            return False
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(["srun", "true"], env=environment, capture_output=True, timeout=30).returncode == 0
        return False

    try:
        try:
            until(ready, 60)
        except AssertionError:
            logs = "".join(log.read_text()[-500:] for log in home.glob("*.log"))
            pytest.skip(f"SLURM's daemons do not come up here: {logs}")
        yield environment
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=environment, capture_output=True)
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(60)


def ran(words: list[str], environment: dict[str, str], home: Path, code: int = 0) -> str:
    """What a command has printed; its exit code must be as expected."""
    done = subprocess.run(words, env=environment, cwd=home, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_a_sweep_trains_its_trials_as_jobs_of_an_array(slurm: dict[str, str], tmp_path: Path) -> None:
    words = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=1"]
    words += ["hydra.launcher.mem_gb=null", "seed=1,2", "hydra.sweep.dir=it", "tracking=off"]
    said = ran([sys.executable, "-m", "microgpt.train", "-m", *RUN, *words], slurm, tmp_path)
    assert "2 trials, best first" in said
    found = [read_run(tmp_path / "it" / str(n)) for n in (0, 1)]
    assert [facts["status"] for facts in found] == ["FINISHED"] * 2
    assert found[0]["pid"] != found[1]["pid"]
    assert not (tmp_path / "it" / ".submitit").exists()


def test_srun_starts_the_processes_of_one_run_and_a_signal_before_the_end_loses_nothing(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    train = [sys.executable, "-m", "microgpt.train", *RUN, "tracking=off"]
    ran([*train, "device=cpu", "hydra.run.dir=alone"], slurm, tmp_path)
    srun = ["srun", "--ntasks=2", "--ntasks-per-node=2", "--kill-on-bad-exit=1", *train, "device=ddp"]
    srun += ["device.accelerator=cpu"]
    ran([*srun, "hydra.run.dir=two"], slurm, tmp_path)
    alone, two = (read_metrics(tmp_path / name)["train/loss"] for name in ("alone", "two"))
    assert two == pytest.approx(alone, abs=1e-6)
    assert read_run(tmp_path / "two")["processes"] == 2

    # a scheduler takes the machine away, and the same job, submitted again, goes on
    again = [*srun, "trainer.max_steps=300", "trainer.eval_interval=100", "resume=auto", "name=job"]
    job = subprocess.Popen(
        again, env=slurm, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(lambda: list(tmp_path.glob("outputs/*/*-job/metrics.jsonl")))
    number = ran(["squeue", "-h", "-o", "%i"], slurm, tmp_path).strip()
    ran(["scancel", "--signal=TERM", number], slurm, tmp_path)
    said, _ = job.communicate(timeout=120)
    assert said.count("stopped: ") == 1, said
    (run,) = (tmp_path / "outputs").glob("*/*-job")
    assert read_run(run)["status"] == "KILLED"
    assert "resumed at step" in ran(again, slurm, tmp_path)
