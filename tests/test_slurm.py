"""The batch script of the guide, run by Slurm's own programs: a controller and two nodes.

The script is read from the guide's page, so that the two cannot drift apart. Both nodes are on this
machine, under two names; whether they have one cache folder or one each is for the test to say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.making import Shelf, artifact, content
from tests.origin import Late, Site, origin
from tests.servers import free_port

NODES = ("node1", "node2")
DATA = content(3 << 20, 1)
#: What the guide's script trains; each task says where its dataset is.
TRAIN = """
import os, dscache
path = dscache.path("imagenet-val")
print(os.environ["SLURMD_NODENAME"], path, path.stat().st_size)
"""
_GUIDE = Path(__file__).parents[1] / "docs/guide/clusters.md"
_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_PATIENCE = 60
_CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Slurm:
    """A controller and its nodes, and the folder with what they have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def task_prolog(self, *lines: str) -> None:
        """What every task of a node begins with; what it prints is set for the task."""
        (self.folder / "prolog").write_text("\n".join(("#!/bin/sh", *lines, "")))
        (self.folder / "prolog").chmod(0o755)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        """What went wrong is said there and in the output of the job."""
        logs = [*self.folder.glob("*.log"), *Path.cwd().glob("slurm-*.out")]
        return "\n".join(f"{path}:\n{path.read_text('utf-8', 'replace')}" for path in logs)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """It needs no munge: who asks is believed, since nobody else can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("Slurm: only root can run its nodes, on Linux")
    for program in ("slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "srun"):
        if shutil.which(program, path=_PATH) is None:
            pytest.skip(f"Slurm: there is no program {program}")
    made = Slurm(tmp_path_factory.mktemp("slurm"))
    (made.folder / "state").mkdir()
    lines = [
        f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs=2"
        for node in NODES
    ]
    text = _CONFIGURATION.format(port=free_port(), folder=made.folder)
    (made.folder / "slurm.conf").write_text("\n".join((text, *lines, "")))
    made.task_prolog()
    with ExitStack() as stack:
        _start(made, stack, "slurmctld", "-D")
        for node in NODES:
            _start(made, stack, "slurmd", "-D", "-N", node)
        _wait_until_idle(made)
        yield made


def _start(slurm: Slurm, stack: ExitStack, *command: str) -> None:
    with open(slurm.folder / f"{command[-1]}.log", "wb") as log:
        process = subprocess.Popen(command, env=slurm.environment(), stdout=log, stderr=log)
    stack.callback(process.wait, _PATIENCE)
    stack.callback(process.terminate)


def _wait_until_idle(slurm: Slurm) -> None:
    command = ("sinfo", "--noheader", "--Node", "--format=%T")
    deadline = time.monotonic() + _PATIENCE
    while True:
        done = subprocess.run(
            command, env=slurm.environment(), capture_output=True, text=True, check=False
        )
        if done.stdout.split() == ["idle"] * len(NODES):
            return
        assert time.monotonic() < deadline, done.stdout + done.stderr + slurm.logs()
        time.sleep(0.1)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with origin({"/val.bin": DATA}) as found:
        found.fault("*", Late(0.5))  # both nodes have begun by then
        shelf = Shelf(home / "shelf")
        shelf.add("imagenet-val", [artifact("val.bin", DATA, found.url("/val.bin"))])
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
        (home / "train.py").write_text(TRAIN)
        yield found


def script() -> str:
    """The batch script of the guide."""
    _, _, rest = _GUIDE.read_text("utf-8").partition("```bash\n#!/bin/bash\n#SBATCH")
    return f"#!/bin/bash\n#SBATCH{rest.partition('```')[0]}"


def submitted(slurm: Slurm) -> Mapping[str, list[str]]:
    """What the tasks of each node have said about their dataset."""
    Path("job.sh").write_text(script())
    job = slurm.run("sbatch", "--parsable", "--output=slurm-job.out", "job.sh").strip()
    deadline = time.monotonic() + _PATIENCE  # `sbatch --wait` looks every ten seconds
    while "JobState=COMPLETED" not in (state := slurm.run("scontrol", "show", "job", job)):
        assert "JobState=FAILED" not in state, slurm.logs()
        assert time.monotonic() < deadline, state + slurm.logs()
        time.sleep(0.1)
    said: dict[str, list[str]] = {node: [] for node in NODES}
    for line in Path("slurm-job.out").read_text("utf-8").splitlines():
        node, _, rest = line.partition(" ")
        if node in said:
            said[node].append(rest)
    return said


def test_nodes_that_share_a_cache(slurm: Slurm, site: Site, home: Path) -> None:
    said = submitted(slurm)
    assert all(len(lines) == 2 for lines in said.values()), slurm.logs()
    (line,) = {line for lines in said.values() for line in lines}
    assert line.startswith(f"{home}/cache/")
    assert line.endswith(f" {len(DATA)}")
    assert site.sent("/val.bin") == len(DATA)


def test_nodes_with_a_cache_each(slurm: Slurm, site: Site, home: Path) -> None:
    slurm.task_prolog(f"echo export DSCACHE_DIR={home}/cache-of-$SLURMD_NODENAME")
    said = submitted(slurm)
    for node, lines in said.items():
        assert len(lines) == 2, slurm.logs()
        assert len(set(lines)) == 1
        assert lines[0].startswith(f"{home}/cache-of-{node}/")
    assert site.sent("/val.bin") == len(NODES) * len(DATA)
