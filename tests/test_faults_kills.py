"""Processes that are killed or stopped in the middle of a large download, from a real server.

The server limits each connection, so that a client with several of them has reason to use them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.children import interpreter, running
from tests.downloads import Desk, moments
from tests.making import artifact, content
from tests.origin import BEFORE_ANSWER, Drip, Drop, Fault, Refuse, Stall, origin
from tests.servers import Server, nginx
from tests.stores import faults_of

MIB = 1 << 20
BIG = content(64 * MIB, 1)
JOBS = 4
#: What a connection may have brought that nobody has written down yet, kernel buffers included.
PER_CONNECTION = 4 * MIB
#: What may have come already when a request is stopped, since another one has what follows.
SURPLUS = 2 * MIB

#: Fetches a dataset, and says each time how many bytes of it are here.
FETCH = """
import sys
from dscache.cache import Cache
from dscache.events import Advanced

def tell(event):
    if isinstance(event, Advanced):
        print(event.done, flush=True)

(found,) = Cache().fetch_all([sys.argv[1]], progress=tell)
found.unwrap()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/big.bin").write_bytes(BIG)
    with nginx(tmp_path / "files", tmp_path / "nginx", limit_rate="32m") as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, jobs=JOBS, stall_timeout=20)


def environment(desk: Desk) -> Mapping[str, str]:
    """What a child needs to do as the desk does."""
    config = desk.root.parent / "config.toml"
    config.write_text(f'jobs = {JOBS}\nretries = 2\nmax_retry_wait = "5m"\n', "utf-8")
    return {
        "DSCACHE_DIR": str(desk.root),
        "DSCACHE_CONFIG": str(config),
        "DSCACHE_REGISTRIES": str(desk.shelf.folder),
    }


def test_a_kill_costs_what_was_on_its_way(desk: Desk, server: Server) -> None:
    """And a second one too: a few MiB for each connection are fetched again, no more."""
    desk.offer("big", artifact("big.bin", BIG, f"{server.url}/big.bin"))
    here = 0
    for goal in (20 * MIB, 40 * MIB):
        with running(FETCH, "big", environment=environment(desk)) as child:
            assert child.stdout
            here = next(done for line in child.stdout if (done := int(line)) >= goal)
            child.kill()
            child.wait()
        assert faults_of(desk.root) == []
    found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed >= here - JOBS * PER_CONNECTION
    assert found.bytes_resumed + found.bytes_downloaded <= len(BIG) + SURPLUS
    sent = sum(seen.sent for seen in server.requests(at_least=3))
    assert sent <= len(BIG) + 2 * JOBS * PER_CONNECTION
    assert not desk.parts
    assert faults_of(desk.root) == []


def fetching(desk: Desk, *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """`dscache fetch big`; killed at the end, should it still run."""
    words = ("-m", "dscache", "fetch", "big", *options)
    return interpreter(*words, environment=environment(desk))


@pytest.mark.parametrize(
    ("number", "code", "fault"),
    [
        pytest.param(signal.SIGINT, 130, Drip(MIB // 2, 0.02), id="receiving"),
        pytest.param(signal.SIGTERM, 143, Stall(20 * MIB), id="silent"),
        pytest.param(signal.SIGINT, 130, Stall(BEFORE_ANSWER), id="no answer"),
        pytest.param(signal.SIGTERM, 143, Refuse(503, retry_after="200"), id="waiting"),
    ],
)
def test_a_signal_ends_it_whatever_it_waits_for(
    desk: Desk, number: signal.Signals, code: int, fault: Fault
) -> None:
    """With what has come; the message says so, and the next call goes on from there."""
    with origin({"/big.bin": BIG}) as site:
        site.fault("/big.bin", Drop(20 * MIB), times=1)
        site.fault("/big.bin", fault, skip=1)
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        with fetching(desk) as process:
            for _ in moments():
                if len(site.requests) >= 2 or process.poll() is not None:
                    break
                time.sleep(0.01)
            time.sleep(0.3)  # so that it has settled down to wait
            process.send_signal(number)
            out, said = process.communicate(timeout=20)
        assert process.returncode == code
        assert out == ""
        assert "what has arrived is kept, and the same command goes on from there" in said
        assert "Traceback" not in said
        site.mend()
        found = desk.fetch("big")
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed >= 20 * MIB - JOBS * PER_CONNECTION
    assert found.bytes_resumed + found.bytes_downloaded <= len(BIG) + SURPLUS


def test_a_signal_is_told_in_the_document_too(desk: Desk) -> None:
    with origin({"/big.bin": BIG}) as site:
        site.fault("/big.bin", Drip(MIB // 2, 0.02))
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        with fetching(desk, "--json") as process:
            for _ in moments():
                if site.sent("/big.bin") >= 4 * MIB or process.poll() is not None:
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    error = json.loads(out)["error"]
    assert (error["code"], error["type"]) == (143, "Terminated")
    assert "kept" in error["message"]
