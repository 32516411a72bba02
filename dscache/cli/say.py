"""What the command line says: documents on stdout, talk and errors on stderr."""

from __future__ import annotations

from typing import Any

import click

from dscache.cli import streams
from dscache.errors import DscacheError
from dscache.events import Event, Notice, Waiting


def document(value: Any) -> None:
    """One JSON document on stdout."""
    import json

    # In ASCII, which every encoding of a stream has, and paths that are no text have a form in.
    click.echo(json.dumps(value, indent=2, default=str))


def talk(text: str) -> None:
    """A line for people, on stderr, if anybody is there."""
    with streams.talk():
        click.echo(text, err=True)


def notices(event: Event) -> None:
    """The events that are said even where no progress is shown."""
    match event:
        case Notice(message):
            talk(f"note: {message}")
        case Waiting(what, holder):
            talk(f"waiting for {what}: {holder} has the lock")
        case _:
            pass


def failure(error: DscacheError, *, as_json: bool) -> None:
    """An error: what happened, and what to do."""
    if as_json:
        document({"error": error_facts(error)})
        return
    talk(f"{click.style('error:', fg='red', bold=True)} {error.message}")
    if error.hint:
        talk(f"{click.style('hint:', fg='cyan')} {error.hint}")


def error_facts(error: DscacheError) -> dict[str, Any]:
    """An error as it stands in documents."""
    return {
        "code": error.code,
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        **error.facts,
    }


def wrong_usage(error: click.ClickException, *, as_json: bool) -> int:
    """What click has to say on options and arguments."""
    if as_json:
        facts = {"code": 2, "type": "UsageError", "message": error.format_message(), "hint": ""}
        document({"error": facts})
    else:
        with streams.talk():
            error.show()
    return 2


def stopped(how: str, code: int, *, as_json: bool) -> int:
    """The user or the system has stopped the command."""
    message = f"{how}; what has arrived is kept, and the same command goes on from there"
    if as_json:
        kind = how.capitalize()
        document({"error": {"code": code, "type": kind, "message": message, "hint": ""}})
    else:
        talk(message)
    return code


def when(seconds: float) -> str:
    """A time as documents have it: ISO 8601 in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
