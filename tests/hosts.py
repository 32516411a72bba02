"""Hosts for tests: namespaces of one Linux, each with its own name, boot, processes and network.

    with hosts("alpha", "beta") as cluster:
        with origin(files, address=cluster.address) as site:
            process = cluster.start("alpha", sys.executable, "-m", "dscache", "fetch", "name")

They see the same files, as hosts see a disk that they share, and reach this machine at one address.
Only root on Linux can have them; elsewhere the test is skipped, with the reason. Nothing stays: a
host ends with the one process that holds it, and takes along what runs in it and its network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_NEEDED = ("unshare", "nsenter", "ip", "mount", "hostname")
_PATIENCE = 30
#: What a host does first; then it waits for its end.
_BEGIN = """
set -e
hostname "$1"
mount --bind "$2" /proc/sys/kernel/random/boot_id
ip link set lo up
echo ready
read _
"""


class Cluster:
    """Some hosts, and the address at which they reach this machine."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._holders: dict[str, int] = {}

    def start(
        self, host: str, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program on a host; it ends with the host at the latest."""
        spaces = ("--mount", "--uts", "--net", "--pid")
        enter = ("nsenter", "--target", str(self._holders[host]), *spaces, "--", *command)
        return subprocess.Popen(
            enter,
            env={**os.environ, "PATH": _PATH, "PYTHONPATH": str(_ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def add(self, name: str, pid: int) -> None:
        """Connect a host, held by that process, with this machine."""
        number = len(self._holders)
        there, link = f"{self.address.rpartition('.')[0]}.{number + 2}", f"t{pid}-{number}"
        self._holders[name] = pid
        _must("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", str(pid))
        _must("ip", "address", "add", self.address, "peer", there, "dev", link)
        _must("ip", "link", "set", link, "up")
        inside = ("nsenter", "--target", str(pid), "--net", "--", "ip")
        _must(*inside, "address", "add", there, "peer", self.address, "dev", "eth0")
        _must(*inside, "link", "set", "eth0", "up")


@contextmanager
def hosts(*names: str) -> Iterator[Cluster]:
    """Hosts of these names."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("hosts: only root can make namespaces, on Linux")
    for program in _NEEDED:
        if shutil.which(program, path=_PATH) is None:
            pytest.skip(f"hosts: there is no program {program}")
    # 198.18.0.0/15 is for tests of networks; tests that run at the same time have others.
    cluster = Cluster(f"198.{18 + (os.getpid() >> 8) % 2}.{os.getpid() % 256}.1")
    with ExitStack() as stack:
        for name in names:
            cluster.add(name, stack.enter_context(_held(name)))
        yield cluster


@contextmanager
def _held(name: str) -> Iterator[int]:
    """The process id of the first process of a new host."""
    boot = Path(f"boot-of-{name}").absolute()
    boot.write_text(f"{uuid.uuid4()}\n")
    spaces = ("--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
    with subprocess.Popen(
        ["unshare", *spaces, "sh", "-c", _BEGIN, "sh", name, str(boot)],
        env={**os.environ, "PATH": _PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as outer:
        try:
            assert outer.stdout
            assert outer.stderr
            if outer.stdout.readline() != "ready\n":
                pytest.skip(f"hosts: {outer.stderr.read().strip()}")
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
            yield int(children.split()[0])
        finally:
            with suppress(subprocess.TimeoutExpired):  # `read` ends, and the host with it
                outer.communicate("\n", timeout=_PATIENCE)
            outer.kill()


def _must(*command: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, "PATH": _PATH}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"hosts: {command[0]}: {done.stderr.strip()}")
