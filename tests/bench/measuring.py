"""Contenders in turn, each a process of its own, and the figures of each.

Fair means: A B C A B C, after an untimed round; the same files, in the page cache; an empty target
folder for each; and what the one before has left is removed at the last moment, so that the memory
it takes is as fresh for one as for the other. A contender that cannot run says why in its row.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

DSCACHE, PEER, FLOOR = "dscache", "peer", "floor"

_ROOT = Path(__file__).parents[2]
_TIMING = str(Path(__file__).with_name("timing.py"))
_TIMEOUT = 300.0
_FOLDERS = re.compile(r"(?<![\w:/])/(?:[^\s/'\"]+/)+")
#: Debian's packages, where they are not named like the program.
_PACKAGES = {"aria2c": "aria2", "xz": "xz-utils"}


@dataclass(frozen=True)
class Contender:
    """A program and its arguments; `{target}` in them is the folder it may fill.

    Attributes:
        role: dscache itself, somebody else, or a floor: what no program of the kind can beat.
        verifies: it compares the bytes with a known hash.
        needs: a module of Python without which it cannot run.
        calls: another program without which it cannot.
        until: it is done as soon as this file is there.
        leaves: it leaves the files behind, to be checked.
    """

    name: str
    command: tuple[str, ...]
    role: str = PEER
    verifies: bool = True
    needs: str = ""
    calls: str = ""
    until: str = ""
    leaves: bool = True

    @property
    def missing(self) -> str:
        """Why it cannot run here, or nothing."""
        for program in filter(None, (self.command[0], self.calls)):
            if shutil.which(program) is None:
                package = _PACKAGES.get(program, program)
                return f"{program} is not installed (apt-get install {package})"
        if self.needs and find_spec(self.needs) is None:
            return f"{self.needs} is not installed (pip install {self.needs})"
        return ""


@dataclass
class Row:
    """The figures of one contender, of each run: seconds, CPU seconds, peak MiB.

    `said` is what the last run printed, not to be published; `skipped` is why there are no figures.
    """

    name: str
    role: str = PEER
    verifies: bool = True
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    said: str = ""
    skipped: str = ""

    def add(self, sample: Sample) -> None:
        """Take in the figures of one more run."""
        self.seconds.append(round(sample.seconds, 4))
        self.cpu.append(round(sample.cpu, 4))
        self.memory.append(round(sample.memory, 1))
        self.said = sample.said

    def median(self, figure: str = "seconds") -> float:
        """The median of "seconds" or "cpu"; the most of "memory"."""
        values: list[float] = getattr(self, figure)
        return max(values) if figure == "memory" else statistics.median(values)


@dataclass
class Table:
    """What one workload has given: rows, facts in words, and figures by name that are no rows'."""

    key: str
    title: str
    rows: list[Row] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def row(self, name: str) -> Row | None:
        """The row of that name, if it has figures."""
        return next((row for row in self.rows if row.name == name and row.seconds), None)


@dataclass(frozen=True)
class Sample:
    """One run; `said` is what it printed."""

    seconds: float
    cpu: float
    memory: float
    said: str


@dataclass(frozen=True)
class Course:
    """The conditions under which contenders run.

    Attributes:
        target: the folder that each may fill.
        count, size: the files that must be there afterwards; so many, of so many bytes.
        environment: variables for all.
        runs: timed runs of each at most.
        patience: no run begins for a contender that has had so many seconds.
        warm_up: with an untimed round.
        keeps: names in the target that are not removed between runs.
    """

    target: Path
    count: int
    size: int
    environment: Mapping[str, str]
    runs: int
    patience: float = 10.0
    warm_up: bool = True
    keeps: frozenset[str] = frozenset()


def compare(course: Course, contenders: Sequence[Contender]) -> list[Row]:
    """The rows of the contenders, in their order."""
    rows = [Row(each.name, each.role, each.verifies, skipped=each.missing) for each in contenders]
    for number in range(-course.warm_up, course.runs):
        for contender, row in zip(contenders, rows, strict=True):
            if row.skipped or sum(row.seconds) >= course.patience:
                continue
            try:
                sample = _run(course, contender)
            except RuntimeError as error:
                row.skipped = f"failed: {error}"
                continue
            if number >= 0:
                row.add(sample)
    _clear(course)
    return rows


def start(
    contender: Contender, target: Path, environment: Mapping[str, str]
) -> Callable[[], Sample]:
    """Start a contender; the function that is returned waits for it.

    Raises:
        RuntimeError: from that function: it failed, and what it said.
    """
    words = [word.replace("{target}", str(target)) for word in contender.command]
    until = ["--until", contender.until.replace("{target}", str(target))] if contender.until else []
    # -I and -S: next to nothing is imported, see `timing`.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", _TIMING, *until, *words],
        env={**environment, "PYTHONPATH": str(_ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return lambda: _finished(process)


def _finished(process: subprocess.Popen[str]) -> Sample:
    try:
        output, errors = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {_TIMEOUT:.0f} s") from None
    finally:
        _end(process)
    if process.returncode:
        raise RuntimeError(_last_line(errors))
    said, _, figures = output.strip().rpartition("\n")
    found = json.loads(figures)
    if found["code"]:
        raise RuntimeError(_last_line(errors) or f"exit code {found['code']}")
    return Sample(found["seconds"], found["cpu"], found["memory"], said.strip())


def _end(process: subprocess.Popen[str]) -> None:
    """Whatever is left of it, and what it has started: after a timeout, and on Ctrl-C."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _last_line(text: str) -> str:
    """The last line, without the folders of this machine in it: rows are published."""
    return _FOLDERS.sub("…/", text.strip().rpartition("\n")[2])[:200]


def _run(course: Course, contender: Contender) -> Sample:
    _clear(course)
    if contender.role != DSCACHE:
        course.target.mkdir(exist_ok=True)
    sample = start(contender, course.target, course.environment)()
    if contender.leaves and (found := _count(course.target, course.size)) < course.count:
        raise RuntimeError(f"{found} files of {course.size} bytes instead of {course.count}")
    return sample


def _clear(course: Course) -> None:
    if not course.keeps and course.target.exists():
        shutil.rmtree(course.target)
    elif course.keeps:
        for entry in os.scandir(course.target):
            if entry.is_dir(follow_symlinks=False) and entry.name not in course.keeps:
                shutil.rmtree(entry)
            elif entry.name not in course.keeps:
                os.unlink(entry)


def _count(folder: Path, size: int) -> int:
    """Files of that size, each counted once however many names it has."""
    found = set()
    for parent, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(parent, name))
            if status.st_size == size:
                found.add(status.st_ino)
    return len(found)
