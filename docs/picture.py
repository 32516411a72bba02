"""Draws docs/terminal.svg: a real session on a real terminal, as it looked when it ran.

Run it with the environment of `make demo`. It starts the demo's own server, types commands into a
pseudo-terminal, and keeps one frame of the progress and the last words of each command.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

import skimage
from demo import nginx, shipped
from rich.console import Console
from rich.text import Text

_WIDTH = 96
_FILES = 6  # lines that a frame worth showing has
_REDRAWN = "\r\x1b[2K"


def main() -> None:
    """Write the picture beside this file."""
    target = Path(__file__).parent / "terminal.svg"
    console = Console(record=True, width=_WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        data = Path(skimage.__file__).parent / "data"
        with nginx(data, room / "nginx", rate="300k") as (url, prefix):
            (room / "config.toml").write_text(f'[rewrite]\n"{prefix}" = "{url}/"\n')
            files = [word for path in shipped(data) for word in ("--files", path)]
            for shown, words in (
                ("dscache fetch scikit-image --files …", ["fetch", "scikit-image", *files]),
                (
                    "dscache fetch scikit-image --files … --into images",
                    ["fetch", "scikit-image", *files, "--into", "images"],
                ),
                ("dscache usage", ["usage"]),
            ):
                console.print(Text(f"$ {shown}", style="bold"))
                for line in _session(room, words).splitlines():
                    console.print(Text.from_ansi(line.replace(str(room), "~")))
    console.save_svg(str(target), title="dscache")
    print(f"{target} is drawn")


def _session(room: Path, words: list[str]) -> str:
    """What the terminal shows: a frame from the middle of the progress, then what stayed."""
    screen, end = pty.openpty()
    environment = os.environ | {
        "DSCACHE_DIR": str(room / "cache"),
        "DSCACHE_CONFIG": str(room / "config.toml"),
        "TERM": "xterm-256color",
        "COLUMNS": str(_WIDTH),
        "LINES": "14",
    }
    command = [sys.executable, "-m", "dscache", *words]
    process = subprocess.Popen(command, stdout=end, stderr=end, env=environment, cwd=room)
    os.close(end)
    seen = b""
    while chunk := _read(screen):
        seen += chunk
    process.wait()
    frames = seen.decode().replace("\r\n", "\n").split(_REDRAWN)
    full = [frame for frame in frames[:-1] if frame.count("\n") >= _FILES]
    drawn = f"{full[len(full) // 2]}\n" if full else ""
    return drawn + frames[-1].rpartition("\x1b[2K")[2]


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # the other end is closed
        return b""


if __name__ == "__main__":
    main()
