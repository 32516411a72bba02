"""`make bench`: prints one table. Contenders run in turn; medians and ratios of medians count."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.contenders import PEAK
from tests.servers import Server, nginx

_RUNS = int(os.environ.get("BENCH_RUNS", "5"))
_BIG = int(os.environ.get("BENCH_BIG", str(2 << 30)))
_SMALL_FILES, _SMALL_SIZE = 5000, 20 << 10
_PROCESSES = 32


@dataclass
class Measured:
    """Wall seconds of each run, and peak memory in MiB where the process told it."""

    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.seconds)


def main() -> None:
    """Run everything that can be run here."""
    with _room() as room:
        (room / "files").mkdir()
        print(f"{_RUNS} runs each, in turn; everything in {room.parent}")
        with nginx(room / "files", room / "nginx") as server:
            _big(room, server)
            _small(room, server)
            _together(room, server)
            _start_up(room)


def _big(room: Path, server: Server) -> None:
    sha256 = _make_big(room / "files" / "big.bin")
    arguments = (f"{server.url}/big.bin", sha256)
    rows = _compare(
        room,
        {
            "dscache": ("dscache_file", *arguments),
            "curl, then hashlib": ("curl_file", *arguments),
            "pooch": ("pooch_file", *arguments),
        },
    )
    _table(f"one file of {_BIG >> 20} MiB", rows)


def _small(room: Path, server: Server) -> None:
    registry = _make_small(room, server)
    manifest = room / "small.json"
    rows = _compare(
        room,
        {
            "dscache": ("dscache_dataset", "small"),
            "pooch": ("pooch_dataset", f"{server.url}/small/", str(manifest)),
        },
        registry,
    )
    _table(f"{_SMALL_FILES} files of {_SMALL_SIZE >> 10} KiB", rows)


def _together(room: Path, server: Server) -> None:
    """Many processes want the big file at once."""
    sha256 = json.loads((room / "big.json").read_text())
    before = len(server.requests())
    command = _command(("dscache_file", f"{server.url}/big.bin", sha256, str(room / "shared")))
    began = time.perf_counter()
    running = [
        subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL)
        for _ in range(_PROCESSES)
    ]
    codes = {process.wait() for process in running}
    seconds = time.perf_counter() - began
    sent = sum(each.sent for each in server.requests(at_least=before + 1)[before:])
    print(
        f"\n{_PROCESSES} processes at once, the same file: {seconds:.1f} s, exit codes {codes}, "
        f"the server sent it {sent / _BIG:.2f} times"
    )
    warm = subprocess.run(
        _command(("dscache_warm", "big", str(room / "shared"))),
        capture_output=True,
        text=True,
        check=True,
        env=_environment(_register_big(room, server, sha256)),
    )
    print(f"warm fetch of the big file: {float(warm.stdout.split()[0]):.0f} µs")


def _start_up(room: Path) -> None:
    shared = str(room / "shared")
    rows: dict[str, Measured] = {}
    commands = {
        "dscache path": [
            sys.executable,
            "-m",
            "dscache",
            "path",
            "big",
            "--cache-dir",
            shared,
        ],
        "import dscache": [sys.executable, "-c", "import dscache"],
        "python": [sys.executable, "-c", "pass"],
    }
    for _ in range(5 * _RUNS):
        for name, command in commands.items():
            _run(rows.setdefault(name, Measured()), command, _environment(room / "registry-of-big"))
    _table("start-up", rows)


def _compare(
    room: Path, contenders: dict[str, Sequence[str]], registry: Path | None = None
) -> dict[str, Measured]:
    rows = {name: Measured() for name in contenders}
    for _ in range(_RUNS):
        for name, words in contenders.items():
            folder = room / "target"
            _run(rows[name], _command((*words, str(folder))), _environment(registry))
            shutil.rmtree(folder)
    return rows


def _run(measured: Measured, command: Sequence[str], environment: dict[str, str]) -> None:
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    measured.seconds.append(time.perf_counter() - began)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    peak = done.stdout.rpartition(PEAK)[2]
    if peak.strip().isdigit():
        measured.memory.append(int(peak) / 1024)


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests.bench.contenders", *words]


def _environment(registry: Path | None = None) -> dict[str, str]:
    found = dict(os.environ)
    found.pop("DSCACHE_REGISTRIES", None)
    return found | ({"DSCACHE_REGISTRIES": str(registry)} if registry else {})


def _table(title: str, rows: dict[str, Measured]) -> None:
    first = next(iter(rows.values())).median
    print(f"\n{title:<28} {'median s':>9} {'least':>8} {'most':>8} {'MiB':>6}  dscache is")
    for name, each in rows.items():
        print(
            f"{name:<28} {each.median:9.3f} {min(each.seconds):8.3f} {max(each.seconds):8.3f} "
            f"{max(each.memory, default=0):6.0f}  {first / each.median:.2f} x"
        )


def _make_big(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(_BIG >> 24):
            chunk = os.urandom(1 << 24)
            hasher.update(chunk)
            file.write(chunk)
    (path.parent.parent / "big.json").write_text(json.dumps(hasher.hexdigest()))
    return hasher.hexdigest()


def _register_big(room: Path, server: Server, sha256: str) -> Path:
    """A registry with the big file in it, since only names have a warm path worth measuring."""
    folder = room / "registry-of-big"
    folder.mkdir()
    (folder / "registry.toml").write_text('format = 1\nname = "big"\n')
    (folder / "big.toml").write_text(
        f'version = "1"\n[[artifacts]]\npath = "big.bin"\nhash = "{sha256}"\nsize = {_BIG}\n'
        f'urls = ["{server.url}/big.bin"]\n'
    )
    return folder


def _make_small(room: Path, server: Server) -> Path:
    folder, registry = room / "files" / "small", room / "registry"
    folder.mkdir()
    registry.mkdir()
    hashes = {}
    lines = ['version = "1"']
    for number in range(_SMALL_FILES):
        data = os.urandom(_SMALL_SIZE)
        name = f"{number:05}.bin"
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
        lines.append(
            f'[[artifacts]]\npath = "{name}"\nsize = {_SMALL_SIZE}\n'
            f'hash = "{hashes[name]}"\nurls = ["{server.url}/small/{name}"]'
        )
    (registry / "registry.toml").write_text('format = 1\nname = "bench"\n')
    (registry / "small.toml").write_text("\n".join(lines))
    (room / "small.json").write_text(json.dumps(hashes))
    return registry


@contextmanager
def _room() -> Iterator[Path]:
    """A folder in memory where there is one, so that the disk does not decide."""
    memory = Path(os.environ.get("BENCH_FOLDER", "/dev/shm"))
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
