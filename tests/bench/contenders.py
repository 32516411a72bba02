"""The programs that are measured, each run as a process of its own: `… NAME ARGUMENTS`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

#: What stands before the peak memory in the output.
PEAK = "peak KiB: "


def dscache_file(url: str, sha256: str, folder: str) -> None:
    """One file with dscache: verified, stored, recorded."""
    from dscache import Cache

    Cache(folder).retrieve(url, sha256)


def dscache_dataset(name: str, folder: str) -> None:
    """A dataset with dscache; its registry is in DSCACHE_REGISTRIES."""
    from dscache import Cache

    Cache(folder).fetch(name)


def dscache_warm(name: str, folder: str) -> None:
    """Print microseconds of a warm fetch, the median of a thousand."""
    from dscache import Cache

    cache = Cache(folder)
    cache.fetch(name)
    time.sleep(0.1)  # what was written this very moment is read again, to be safe
    cache.fetch(name)
    times = []
    for _ in range(1000):
        began = time.perf_counter()
        cache.fetch(name)
        times.append(time.perf_counter() - began)
    print(sorted(times)[500] * 1e6)


def pooch_file(url: str, sha256: str, folder: str) -> None:
    """One file with plain Pooch."""
    import pooch

    pooch.retrieve(url, f"sha256:{sha256}", path=folder)


def pooch_dataset(base: str, manifest: str, folder: str) -> None:
    """Many files with plain Pooch, one after the other."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    registry = json.loads(Path(manifest).read_text())
    target = pooch.create(folder, base, registry=registry)
    for name in registry:
        target.fetch(name)


def curl_file(url: str, sha256: str, folder: str) -> None:
    """One file with curl, then a pass of hashlib over it."""
    Path(folder).mkdir(parents=True)
    target = f"{folder}/file"
    subprocess.run(["curl", "-sS", "-f", "-o", target, url], check=True)
    with open(target, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        sys.exit("wrong bytes")


def _peak() -> str:
    """Peak memory of this process in KiB; unlike getrusage's it does not count the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print(f"{PEAK}{_peak()}")
