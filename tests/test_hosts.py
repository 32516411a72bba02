"""Hosts that share a cache folder: what they ask of the origin where locks work, and where not.

Each host is a world of its own (name, boot, processes, network), and several processes begin on
each at once. How the locks of the folder behave is played in front of the system's own `flock`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import Cluster, hosts
from tests.making import Shelf, artifact, content
from tests.origin import Late, Site, origin
from tests.stores import faults_of

FILES = {f"{number}.bin": content(3000 + number, number) for number in range(4)}
FILES |= {"large.bin": content(3 << 20, 10), "larger.bin": content(5 << 20, 11)}
NAMES, EACH = ("alpha", "beta"), 3

LIES = "int flock(int fd, int operation) { return 0; }\n"
# The lock of a file is that of its twin in a folder of the host, as on NFS with local_lock=flock.
LOCAL = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int twins[4096];

int flock(int fd, int operation) {
    if (!twins[fd]) {
        struct stat found;
        char path[4096];
        fstat(fd, &found);
        snprintf(path, sizeof path, "%s/%lu", getenv("LOCKS_OF_THIS_HOST"), found.st_ino);
        twins[fd] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    }
    int result = syscall(SYS_flock, twins[fd], operation), error = errno;
    if (result || operation & LOCK_UN) {
        close(twins[fd]);
        twins[fd] = 0;
    }
    errno = error;
    return result;
}
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with hosts(*NAMES) as found:
        yield found


@pytest.fixture
def site(home: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    files = {f"/{name}": data for name, data in FILES.items()}
    with origin(files, address=cluster.address) as found:
        found.fault("*", Late(0.5))  # none is done before the others have begun
        shelf = Shelf(home / "shelf")
        shelf.add("all", [artifact(name, FILES[name], found.url(f"/{name}")) for name in FILES])
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
        yield found


def instead_of_flock(home: Path, source: str) -> dict[str, str]:
    """An environment in which every process has that `flock`."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    (home / "flock.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "flock.so", "flock.c"], cwd=home, check=True)
    return {"LD_PRELOAD": str(home / "flock.so")}


def fetch_at_once(
    cluster: Cluster, environment: dict[str, dict[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """What some processes on each host say, which begin at once."""
    words = (sys.executable, "-m", "dscache", "fetch", "all", "--json")
    started = [
        (host, cluster.start(host, *words, environment=environment.get(host)))
        for _ in range(EACH)
        for host in NAMES
    ]
    told: dict[str, list[dict[str, Any]]] = {host: [] for host in NAMES}
    for host, process in started:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        told[host] += json.loads(out)
    return told


def asked(site: Site) -> Counter[str]:
    """How often the origin was asked for each file."""
    return Counter(each.path[1:] for each in site.requests)


def look(home: Path, told: dict[str, list[dict[str, Any]]]) -> None:
    """All of them have got the right bytes, in one place."""
    (path,) = {each["path"] for results in told.values() for each in results}
    assert {each.name: each.read_bytes() for each in Path(path).iterdir()} == FILES
    assert faults_of(home / "cache") == []


def downloads(results: list[dict[str, Any]]) -> int:
    return sum(each["status"] == "downloaded" for each in results)


def test_where_locks_work_the_origin_is_asked_once(
    home: Path, cluster: Cluster, site: Site
) -> None:
    told = fetch_at_once(cluster, {})
    look(home, told)
    assert asked(site) == dict.fromkeys(FILES, 1)
    assert sum(map(downloads, told.values())) == 1


def test_where_locks_end_at_the_host_each_host_asks_once(
    home: Path, cluster: Cluster, site: Site
) -> None:
    library = instead_of_flock(home, LOCAL)
    environment = {}
    for host in NAMES:
        (home / f"locks-of-{host}").mkdir()
        environment[host] = library | {"LOCKS_OF_THIS_HOST": str(home / f"locks-of-{host}")}
    told = fetch_at_once(cluster, environment)
    look(home, told)
    assert asked(site).keys() == FILES.keys()
    assert max(asked(site).values()) <= len(NAMES)
    assert all(downloads(results) <= 1 for results in told.values())


def test_where_locks_lie_the_origin_is_asked_once_all_the_same(
    home: Path, cluster: Cluster, site: Site
) -> None:
    library = instead_of_flock(home, LIES)
    told = fetch_at_once(cluster, dict.fromkeys(NAMES, library))
    look(home, told)
    assert asked(site) == dict.fromkeys(FILES, 1)
    assert sum(map(downloads, told.values())) == 1
