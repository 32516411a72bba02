"""A face in a notebook: HTML below the cell, which is replaced by display id. No widgets.

Frontends that show only text get one line. Whatever comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from uuid import uuid4

from dscache.progress.tally import Bar, Tally

#: Files and notices that are shown; of more only the number.
_FILES, _NOTICES = 10, 20

_CELL = "padding:1px 8px 1px 0;text-align:left;border:0"
_ROW = (
    '<tr style="background:none">'
    f'<td style="{_CELL};max-width:28em;overflow-wrap:anywhere">{{label}}</td>'
    f'<td style="{_CELL}">'
    '<progress{state} style="width:14em;vertical-align:middle"></progress></td>'
    f'<td style="{_CELL};white-space:pre-wrap;font-variant-numeric:tabular-nums">{{text}}</td></tr>'
)


class Cell:
    """The output of the cell that runs now."""

    def __init__(self) -> None:
        self._id = ""

    def draw(self, tally: Tally, notices: list[str]) -> None:
        """Show how it stands."""
        self._show(_picture(tally) + _noted(notices), _plain([tally.summary()], notices))

    def end(self, line: str, notices: list[str]) -> None:
        """Leave one line."""
        if not self._id and not line and not notices:
            return
        shown = f'<div style="opacity:.75">{escape(line)}</div>' if line else ""
        self._show(shown + _noted(notices), _plain([line] if line else [], notices))

    def _show(self, html: str, text: str) -> None:
        from IPython.display import display, update_display

        bundle = {"text/html": f"<div>{html}</div>", "text/plain": text}
        if self._id:
            update_display(bundle, display_id=self._id, raw=True)  # type: ignore[no-untyped-call]
        else:
            self._id = f"dscache-{uuid4().hex}"
            display(bundle, display_id=self._id, raw=True)  # type: ignore[no-untyped-call]


def _picture(tally: Tally) -> str:
    rows = "".join(map(_row, tally.bars(_FILES)))
    more = tally.more - _FILES
    below = f"and {more:,} more" if more > 0 else ""
    words = "".join(f"<div>{escape(each)}</div>" for each in (below, tally.note) if each)
    return f'<table style="border-collapse:collapse;margin:0;color:inherit">{rows}</table>{words}'


def _row(bar: Bar) -> str:
    known = f' value="{min(bar.done, bar.of)}" max="{bar.of}"' if bar.of else ""
    return _ROW.format(label=escape(bar.label), state=known, text=escape(bar.text))


def _noted(notices: Sequence[str]) -> str:
    return "".join(f"<div>{escape(each)}</div>" for each in _lines(notices))


def _plain(lines: Sequence[str], notices: Sequence[str]) -> str:
    return "\n".join([*lines, *_lines(notices)])


def _lines(notices: Sequence[str]) -> list[str]:
    lines = [f"note: {each}" for each in notices[:_NOTICES]]
    more = len(notices) - _NOTICES
    return [*lines, f"and {more:,} more notes"] if more > 0 else lines
