"""A disk that becomes full in the middle of a download: a small one, mounted for a child alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.making import Shelf, artifact, content
from tests.origin import Drip, Site, origin

MIB = 1 << 20
BIG = content(32 * MIB, 1)
ROOT = Path(__file__).parents[1]

#: On a disk of 40 MiB, another program takes 20 of them when 8 of the download are here, and gives
#: them back after it has failed. Then it is tried again, by the same process or by another one.
FULL = """
import hashlib, json, os, sys
from dscache.cache import Cache
from dscache.events import Advanced

BALLAST = os.path.join(sys.argv[1], "ballast")

def fill(event):
    if isinstance(event, Advanced) and event.done >= 8 << 20 and not os.path.exists(BALLAST):
        with open(BALLAST, "wb") as file:
            file.write(bytes(20 << 20))

def fetch(progress):
    (found,) = Cache().fetch_all(["shelf/big"], progress=progress)
    error = found.error
    print(json.dumps({
        "error": error and [type(error).__name__, error.code, str(error), error.hint],
        "resumed": found.bytes_resumed, "downloaded": found.bytes_downloaded,
        "sha256": found.path and hashlib.sha256(found.path.read_bytes()).hexdigest(),
    }), flush=True)

if sys.argv[2] == "same":
    fetch(fill)
elif not (child := os.fork()):
    fetch(fill)
    os._exit(0)
else:
    os.waitpid(child, 0)
os.remove(BALLAST)
fetch(lambda event: None)
print(json.dumps(os.listdir(os.path.join(sys.argv[1], "cache/parts"))))
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/big.bin": BIG}) as found:
        found.fault("*", Drip(MIB, 0.02))
        yield found


@pytest.fixture
def disk(tmp_path: Path) -> tuple[str, ...]:
    """The beginning of a command that has a disk of 40 MiB at `tmp_path/disk`, seen by it alone."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("a small disk: there is no unshare program here")
    place = tmp_path / "disk"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=40m tmpfs '{place}'"
    for rights in ((), ("-r",)):
        command = ("unshare", *rights, "-m", "sh", "-c", f'{mount} && exec "$@"', "sh")
        tried = subprocess.run([*command, "true"], capture_output=True, check=False)
        if tried.returncode == 0:
            return command
    pytest.skip("a small disk: nothing can be mounted here")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def on(disk: tuple[str, ...], shelf: Shelf, process: str) -> list[Any]:
    """What became of the two fetches, and what is left of them in the folder for parts."""
    folder = shelf.folder.parent
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "DSCACHE_DIR": str(folder / "disk/cache"),
        "DSCACHE_CONFIG": str(folder / "config.toml"),
        "DSCACHE_REGISTRIES": str(shelf.folder),
    }
    command = (*disk, sys.executable, "-c", FULL, str(folder / "disk"), process)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("process", ["another", "same"])
@pytest.mark.parametrize("size", [len(BIG), None], ids=["size known", "size unknown"])
def test_a_disk_that_becomes_full(
    site: Site, disk: tuple[str, ...], shelf: Shelf, size: int | None, process: str
) -> None:
    """What was good is kept; after room was made the next call goes on from there."""
    shelf.add("big", [artifact("big.bin", BIG, site.url("/big.bin"), size=size)])
    failed, found, parts = on(disk, shelf, process)
    kind, code, message, hint = failed["error"]
    assert (kind, code) == ("StorageError", 6)
    assert "No space left on device" in message or "are free in" in message
    assert "kept" in hint
    assert found["error"] is None
    assert f"sha256:{found['sha256']}" == artifact("big.bin", BIG)["hash"]
    assert found["resumed"] >= 8 * MIB
    assert found["resumed"] + found["downloaded"] <= len(BIG) + 2 * MIB
    assert parts == []
    assert [seen.range for seen in site.requests].count("") == 1  # nobody began again


def test_a_full_disk_says_how_much_is_missing(
    site: Site, disk: tuple[str, ...], shelf: Shelf
) -> None:
    """As the check before the download does."""
    shelf.add("big", [artifact("big.bin", BIG, site.url("/big.bin"))])
    failed, _, _ = on(disk, shelf, "another")
    _, _, message, hint = failed["error"]
    assert re.search(r"[0-9] [kM]B", f"{message} {hint}")
