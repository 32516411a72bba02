"""Completion: what a real shell makes of a Tab, driven through a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dscache import Cache
from dscache.cli import cli
from dscache.cli.completion import SHELLS
from tests.downloads import PATIENCE
from tests.making import Shelf, artifact, content
from tests.origin import origin

DATA = content(1000, 5)
_PROGRAMS = Path(sys.executable).parent
_START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
_SET_UP = {
    "bash": 'eval "$(dscache completion bash)"',
    "zsh": 'eval "$(dscache completion zsh)"',
    "fish": "dscache completion fish | source",
}


class Shell:
    """An interactive shell on a terminal. The line that it runs is one `printf`, so that what the
    Tab has made of the words is seen as the shell understands them.
    """

    def __init__(self, name: str, home: Path) -> None:
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")
        self._pid, self._screen = pty.fork()
        if not self._pid:
            os.environ |= {
                "PATH": f"{_PROGRAMS}:{os.environ['PATH']}",
                "TERM": "xterm",
                "HOME": str(home),
                "HISTFILE": str(home / "history"),
                "XDG_CONFIG_HOME": str(home),
                "XDG_DATA_HOME": str(home),
            }
            os.execvp(_START[name][0], _START[name])
        self._name = name
        self.shown = b""
        self.type(f"{_SET_UP[name]}; printf '%s-%s\\n' set up\n")
        self.wait_for("set-up")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._screen, text.encode())

    def completed(self, line: str) -> list[str]:
        """The words that a line has, as the shell understands them, after a Tab at its end."""
        self.shown = b""
        self.type(f"{line}\t\x01printf '<%s>' \x05; printf '%s-%s\\n' the end\n")
        shown = self.wait_for("the-end")
        return re.findall("<([^<>]*?)/?>", shown[shown.rindex("<dscache>") :])

    def wait_for(self, text: str) -> str:
        """Read the screen until it shows a text; all that it has shown."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.shown:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._screen], [], [], left)
            assert ready, f"{self._name} never showed {text!r}, but {self.shown!r}"
            answer = os.read(self._screen, 65536)
            if b"\x1b[c" in answer or b"\x1b[0c" in answer:  # fish asks what its terminal can do
                os.write(self._screen, b"\x1b[?62;c")
            self.shown += answer
        return self.shown.decode(errors="replace")

    def close(self) -> None:
        """End the shell."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._screen)


@pytest.fixture(params=list(_START))
def shell(request: pytest.FixtureRequest, shelf: Shelf, home: Path) -> Iterator[Shell]:
    made = Shell(request.param, home)
    yield made
    made.close()


@pytest.fixture
def shelf(shelf: Shelf, home: Path) -> Shelf:
    (home / "a.bin").write_bytes(DATA)
    for name in ("crops-large", "stones"):
        shelf.add(name, [artifact("a.bin", DATA, str(home / "a.bin"))], summary="stones; $(exit)")
    shelf.add(
        "stones",
        [artifact("a.bin", DATA, str(home / "a.bin"))],
        version="2026.1",
        file="stones@2026.1.toml",
    )
    return shelf


LINES = {
    "dscache fet": ["fetch"],
    "dscache fetch crops-l": ["fetch", "crops-large"],
    "dscache fetch shelf/crops-l": ["fetch", "shelf/crops-large"],
    "dscache fetch stones@20": ["fetch", "stones@2026.1"],
    "dscache fetch shelf/stones@20": ["fetch", "shelf/stones@2026.1"],
    "dscache fetch --link=sym": ["fetch", "--link=symlink"],
    "dscache fetch --into sub-f": ["fetch", "--into", "sub-folder"],
}


def test_a_tab_completes(shell: Shell, home: Path) -> None:
    (home / "sub-folder").mkdir()
    assert {line: shell.completed(line) for line in LINES} == {
        line: ["dscache", *words] for line, words in LINES.items()
    }


def test_a_broken_configuration_says_nothing(shell: Shell, home: Path) -> None:
    (home / "config.toml").write_text("jobs = nonsense")
    assert shell.completed("dscache fetch crops-l") == ["dscache", "fetch", "crops-l"]
    assert b"nonsense" not in shell.shown
    assert b"Traceback" not in shell.shown


def offered(*words: str) -> list[str]:
    """What may follow on a line, by the program itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_WORDS", " ".join(words))
        lines = SHELLS["zsh"](cli, {}, "dscache", "").complete().splitlines()
    return [line.split("\t")[1] for line in lines]


@pytest.mark.usefixtures("shelf")
def test_each_command_is_offered_names_of_its_kind() -> None:
    cache = Cache()
    with cache.hold("stones@2026.1"), cache.hold("crops-large"):
        cache.pin("crops-large")
    for command in ("path", "pin", "verify", "prune", "remote push"):
        assert offered("dscache", command, "") == ["crops-large", "stones"]
        assert offered("dscache", command, "st") == ["stones"]
        assert offered("dscache", command, "shelf/st") == ["shelf/stones"]
        assert offered("dscache", command, "stones@") == ["stones@2026.1"]
    assert offered("dscache", "unpin", "") == ["crops-large"]
    for command in ("fetch", "info", "add", "run"):
        assert offered("dscache", command, "stones@") == ["stones@1", "stones@2026.1"]
        assert "penguins" in offered("dscache", command, "")
        assert offered("dscache", command, "shel") == ["shelf/crops-large", "shelf/stones"]
    assert offered("dscache", "run stones --", "a") == ["a"]


def test_the_project_is_offered_what_it_asks_for(home: Path) -> None:
    (home / "dscache.toml").write_text('[datasets]\nmnist = "*"\n')
    assert offered("dscache", "remove", "") == ["mnist"]


def test_the_cache_of_the_line_is_looked_into(home: Path, shelf: Shelf) -> None:
    Cache(home / "other").fetch("stones")
    assert offered("dscache", "path --cache-dir", str(home / "other"), "") == ["stones"]
    assert offered("dscache", "path", "") == []


def test_a_file_that_is_no_record_is_not_offered(home: Path) -> None:
    folder = home / "cache/records/shelf"
    folder.mkdir(parents=True)
    for name in ("$(rm -rf x)@1+12345678", "a b@1+12345678", "\x1b[31m@1+12345678", "x"):
        (folder / f"{name}.json").write_text("{}")
    assert offered("dscache", "path", "") == []


def test_no_registry_is_asked(home: Path, shelf: Shelf) -> None:
    with origin({}) as site:
        (home / "config.toml").write_text(f'[registries]\nfar = "{site.url("/")}"\n')
        assert offered("dscache", "fetch", "crops") == ["crops-large"]
        assert not site.requests


def test_the_script_is_a_document_as_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dscache", "completion", "fish", "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["shell"] == "fish"
