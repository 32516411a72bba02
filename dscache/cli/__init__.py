"""The command line: a thin face of the library's public names.

stdout is data, stderr is talk. One place, `main`, maps errors to exit codes. Only this package
knows click and rich; commands are imported when they are called, so that `dscache path` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from types import FrameType

import click

import dscache
from dscache.cli import say, streams
from dscache.errors import DscacheError, StorageError

_COMMANDS = {
    "fetch": "datasets",
    "retrieve": "datasets",
    "path": "datasets",
    "import": "datasets",
    "list": "listing",
    "search": "listing",
    "info": "listing",
    "usage": "usage",
    "config": "listing",
    "run": "holding",
    "pin": "holding",
    "unpin": "holding",
    "prune": "pruning",
    "verify": "verifying",
    "doctor": "doctor",
    "add": "projects",
    "remove": "projects",
    "lock": "projects",
    "sync": "projects",
    "registry": "registries",
    "remote": "remote",
    "warm": "warm",
    "completion": "completion",
}
_INTERRUPTED, _TERMINATED = 130, 143
_NO_FOLDER = "the folder in which this was started is not there any more"
#: Set by the script of a shell that wants to know how a line may go on.
_COMPLETING = "_DSCACHE_COMPLETE"


class _Commands(click.Group):
    """Finds each command in its module when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"dscache.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dscache.__version__, prog_name="dscache")
def cli() -> None:
    """One verified copy of every dataset per machine."""


class _Terminated(BaseException):
    """SIGTERM; not an `Exception`, so that nothing on the way takes it for an error."""


def main() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    streams.prepare()
    if _COMPLETING in os.environ:
        import_module("dscache.cli.completion").register()
    try:
        code = _run(as_json="--json" in _own_words(sys.argv))
    except OSError as error:
        code = _unwritten(error)
    if code in (_INTERRUPTED, _TERMINATED) and threading.active_count() > 1:
        _leave(code)
    sys.exit(code)


def _run(*, as_json: bool) -> int:
    """Run the command; its exit code. The one place that maps errors to them."""
    try:
        code = cli.main(standalone_mode=False, complete_var=_COMPLETING)
        return code if isinstance(code, int) else 0
    except DscacheError as error:
        say.failure(error, as_json=as_json)
        return error.code
    except click.ClickException as error:
        return say.wrong_usage(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return say.stopped("interrupted", _INTERRUPTED, as_json=as_json)
    except _Terminated:
        return say.stopped("terminated", _TERMINATED, as_json=as_json)
    except SystemExit:
        if _COMPLETING in os.environ:
            raise
        return 0  # what click makes of a reader of our output that has gone
    except FileNotFoundError:
        if _has_folder():
            raise
        lost = StorageError(_NO_FOLDER, hint="change to one that is there")
        say.failure(lost, as_json=as_json)
        return lost.code


def _own_words(words: list[str]) -> list[str]:
    """Those that are ours: behind a `--` there are names, or a command with options of its own."""
    return words[: words.index("--")] if "--" in words else words


def _has_folder() -> bool:
    """True if the current folder is there, below which relative paths are."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _unwritten(error: OSError) -> int:
    """The exit code where stdout takes no more; any other error is raised again."""
    if not streams.is_lost(sys.stdout):
        raise error
    if isinstance(error, BrokenPipeError):  # whoever read it has what he wants
        unsaid = error.__context__
        return unsaid.code if isinstance(unsaid, DscacheError) else 0
    say.failure(StorageError(f"stdout cannot be written: {error.strerror}"), as_json=False)
    return StorageError.code


def _leave(code: int) -> None:
    """End at once: Python would wait for threads that wait for a server."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated
