"""Warming the hosts of a Dask cluster: real schedulers and workers, counted at the origin.

The hosts are addresses of this machine, with two workers each, and a cache folder for each host.
Dask is met in processes of its own alone, since it leaves threads, and other tests fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.children import running
from tests.making import Shelf, artifact, content
from tests.origin import Late, Site, origin

if find_spec("distributed") is None:
    pytest.skip("distributed is not installed", allow_module_level=True)
if not sys.platform.startswith("linux"):
    pytest.skip("one machine has several addresses on Linux alone", allow_module_level=True)

HOSTS = ("127.0.0.1", "127.0.0.2")
LARGE = content(3 << 20, 1)
_PATIENCE = 60


class Cluster:
    """A scheduler, and the folder with what its workers have."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def cache(self, host: str) -> Path:
        """The cache folder of a host."""
        return self.folder / f"cache-of-{host}"

    @contextmanager
    def worker(self, host: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """One more worker on a host, which has joined the cluster."""
        words = ("worker", self.address, "--host", host, "--nthreads", "1")
        quiet = ("--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        settings = {"DSCACHE_DIR": str(self.cache(host)), **environment}
        with dask(self.folder, *words, *quiet, environment=settings) as (process, log):
            _said(process, log, "Starting established connection")
            yield process


@contextmanager
def dask(
    folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A command of Dask, and the file to which it writes its log; killed at the end."""
    descriptor, log = tempfile.mkstemp(dir=folder, suffix=".log")
    settings = {**os.environ, **(environment or {})}
    with open(descriptor, "wb") as file:
        command = (sys.executable, "-m", "dask", *words)
        process = subprocess.Popen(command, env=settings, stdout=file, stderr=file)
    try:
        yield process, Path(log)
    finally:
        process.kill()
        process.wait()


def _said(process: subprocess.Popen[bytes], log: Path, words: str) -> str:
    """What a process has said once it has said those words."""
    deadline = time.monotonic() + _PATIENCE
    while words not in (said := log.read_text("utf-8")):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
    return said


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four workers on two hosts."""
    folder = tmp_path_factory.mktemp("cluster")
    shared = {
        "DSCACHE_CONFIG": str(folder / "config.toml"),
        "DSCACHE_REGISTRIES": str(folder / "shelf"),
    }
    Shelf(folder / "shelf")
    words = ("--host", HOSTS[0], "--port", "0", "--dashboard-address", f"{HOSTS[0]}:0")
    with ExitStack() as stack:
        scheduler, log = stack.enter_context(dask(folder, "scheduler", *words))
        said = _said(scheduler, log, "Registering Worker plugin")
        made = Cluster(folder, said.partition("Scheduler at:")[2].split()[0])
        for host in HOSTS * 2:
            stack.enter_context(made.worker(host, **shared))
        yield made


@pytest.fixture
def site(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(cluster.folder / "shelf"))  # of further workers
    with origin({}) as found:
        yield found


@pytest.fixture
def name(cluster: Cluster, site: Site, request: pytest.FixtureRequest) -> str:
    """A dataset of two files that no other test has."""
    made = "".join(each if each.isalnum() else "-" for each in request.node.name).rstrip("-")
    little = site.files[f"/{made}"] = made.encode()
    large = site.files[f"/{made}-large"] = made.encode() + LARGE
    rows = [
        artifact("little.bin", little, site.url(f"/{made}")),
        artifact("large.bin", large, site.url(f"/{made}-large")),
    ]
    Shelf(cluster.folder / "shelf").add(made, rows)
    return made


def started(*words: str, **environment: str) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "dscache", "warm", *words)
    pipe = subprocess.PIPE
    settings = {**os.environ, **environment}
    return subprocess.Popen(command, env=settings, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=_PATIENCE)
    assert process.returncode == code, out + err
    return out, err


def warmed(cluster: Cluster, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What the document says on each host."""
    out, _ = ended(started(*words, "--dask", cluster.address, "--json"), code)
    return {each["host"]: each for each in json.loads(out)}


def until_asked(site: Site, times: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(site.requests) < times:
        assert time.monotonic() < deadline, "nobody has asked the origin"
        time.sleep(0.01)


def test_each_host_downloads_once(cluster: Cluster, site: Site, name: str) -> None:
    found = warmed(cluster, name)
    assert tuple(found) == HOSTS
    size = len(site.files[f"/{name}"]) + len(site.files[f"/{name}-large"])
    for host, each in found.items():
        assert (each["name"], each["version"], each["registry"]) == (name, "1", "shelf")
        assert (each["status"], each["size"], each["bytes_downloaded"]) == (
            "downloaded",
            size,
            size,
        )
        assert each["worker"].startswith(f"tcp://{host}:")
        assert Path(each["path"], "little.bin").read_bytes() == site.files[f"/{name}"]
        assert Path(each["path"]).is_relative_to(cluster.cache(host))
    for path in (f"/{name}", f"/{name}-large"):
        assert site.sent(path) == len(HOSTS) * len(site.files[path])
    before = len(site.requests)
    again = warmed(cluster, name)
    assert [each["status"] for each in again.values()] == ["cached"] * len(HOSTS)
    assert len(site.requests) == before


def test_a_table_for_people(cluster: Cluster, site: Site, name: str) -> None:
    words = (name, "nothing", "--files", "little*", "--dask", cluster.address)
    out, err = ended(started(*words), code=3)
    head, *rows = [line.split() for line in out.splitlines()]
    assert head == ["host", "dataset", "size", "downloaded", "seconds", "status"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        row
        for host in HOSTS
        for row in ((host, f"shelf/{name}@1", "downloaded"), (host, "nothing", "failed"))
    ]
    assert all(f"nothing on {host}:" in err for host in HOSTS)
    assert site.sent(f"/{name}-large") == 0


def test_hosts_that_share_a_folder_download_once(
    cluster: Cluster, site: Site, name: str, home: Path
) -> None:
    found = warmed(cluster, name, "--cache-dir", str(home / "shared"))
    size = len(site.files[f"/{name}"]) + len(site.files[f"/{name}-large"])
    assert sorted(each["bytes_downloaded"] for each in found.values()) == [0, size]
    assert len({each["path"] for each in found.values()}) == 1
    for path in (f"/{name}", f"/{name}-large"):
        assert site.sent(path) == len(site.files[path])


def test_a_worker_that_dies_under_way(cluster: Cluster, site: Site, name: str) -> None:
    site.fault("*", Late(2))
    host = "127.0.0.3"
    with cluster.worker(host) as worker:
        command = started(name, "--dask", cluster.address, "--json")
        until_asked(site, 3)
        worker.kill()
        out, _ = ended(command, code=4)
    found = {each["host"]: each for each in json.loads(out)}
    assert [found[each]["status"] for each in HOSTS] == ["downloaded"] * len(HOSTS)
    assert found[host]["error"]["type"] == "TransferError"
    assert "lost under way" in found[host]["error"]["message"]


def test_hosts_that_cannot(cluster: Cluster, name: str, home: Path) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'dscache'\", name='dscache')\n"
    for folder, code in (("none", missing), ("old", "")):
        (home / folder / "dscache").mkdir(parents=True)
        (home / folder / "dscache/__init__.py").write_text(code)
    (home / "in-the-way").touch()
    with (
        cluster.worker("127.0.0.3", PYTHONPATH=str(home / "none")),
        cluster.worker("127.0.0.4", PYTHONPATH=str(home / "old")),
        cluster.worker("127.0.0.5", DSCACHE_REGISTRIES=""),
        cluster.worker("127.0.0.6", DSCACHE_DIR=str(home / "in-the-way")),
    ):
        found = warmed(cluster, name, code=2)
    assert [found[each]["status"] for each in HOSTS] == ["downloaded"] * len(HOSTS)
    errors = [found[f"127.0.0.{number}"]["error"] for number in range(3, 7)]
    assert [(each["code"], each["type"]) for each in errors] == [
        (2, "UsageError"),
        (2, "UsageError"),
        (3, "NotFound"),
        (6, "StorageError"),
    ]
    for each in errors[:2]:
        assert "missing or too old: ModuleNotFoundError" in each["message"]
        assert "install the dscache" in each["hint"]


def test_ctrl_c(cluster: Cluster, site: Site, name: str) -> None:
    site.fault("*", Late(3))
    command = started(name, "--dask", cluster.address, "--json")
    until_asked(site, len(HOSTS))
    command.send_signal(signal.SIGINT)
    out, _ = ended(command, code=130)
    assert json.loads(out)["error"]["code"] == 130


FROM_PYTHON = """
import os, sys, threading
from distributed import Client
from dscache.integrations.dask import warm

address, name = sys.argv[1:]
with Client(address) as client:
    found = []
    warming = threading.Thread(target=lambda: found.extend(warm(client, [name], files="little*")))
    warming.start()
    input()  # until the origin was asked
    assert len(client.run(os.getpid)) == 4
    assert warming.is_alive()
    warming.join()
    assert [each.status for each in found] == ["downloaded"] * 2, found
    assert all(each.error is None for each in found)
"""


def test_a_worker_that_downloads_does_its_other_work(
    cluster: Cluster, site: Site, name: str
) -> None:
    site.fault("*", Late(3))
    with running(FROM_PYTHON, cluster.address, name) as process:
        until_asked(site, len(HOSTS))
        _, err = process.communicate("\n", timeout=_PATIENCE)
        assert process.returncode == 0, err


def refused(code: int, *words: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    out, _ = ended(started("any", *words, "--json", **(environment or {})), code)
    found: dict[str, Any] = json.loads(out)["error"]
    return found


def test_an_address_at_which_nobody_answers(home: Path) -> None:
    (home / "config.toml").write_text('connect_timeout = "1s"\n')
    assert "no Dask scheduler answers" in refused(4, "--dask", "127.0.0.1:1")["message"]
    assert "is not the address" in refused(2, "--dask", "nonsense://host:1")["message"]


def test_without_dask(home: Path) -> None:
    (home / "distributed.py").write_text("raise ModuleNotFoundError('distributed')\n")
    found = refused(2, "--dask", "host:1", environment={"PYTHONPATH": str(home)})
    assert "dscache[dask]" in found["hint"]
