"""Draws docs/performance.svg: bars of seconds, one panel for each of the main workloads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from tests.bench.measuring import DSCACHE, FLOOR, Row, Table

_PANELS = ("big", "tls", "small", "small-h2", "each")
_WIDTH, _MARGIN, _LABELS, _VALUES = 860, 24, 270, 60
_LINE, _BAR = 22, 14
_BARS = _WIDTH - 2 * _MARGIN - _LABELS - _VALUES

# It has a background of its own, so that it can be read whatever page it is on.
_STYLE = """
svg { --paper: #ffffff; --ink: #1f2328; --soft: #656d76; --peer: #9aa4b1; --ours: #1f6feb; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #161b22; --ink: #e6edf3; --soft: #9198a1; --peer: #6e7681; --ours: #58a6ff; }
}
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.title { font-size: 17px; font-weight: 600; }
.panel { font-size: 14px; font-weight: 600; }
.soft { fill: var(--soft); }
.ours { fill: var(--ours); stroke: var(--ours); }
.peer { fill: var(--peer); stroke: var(--peer); }
.floor { fill: none; stroke: var(--soft); stroke-dasharray: 3 3; }
.unverified { fill: none; stroke: var(--peer); stroke-width: 1.5; }
"""


def draw(path: Path, tables: Mapping[str, Table]) -> None:
    """Write the picture."""
    canvas = _Canvas()
    canvas.text(_MARGIN, "Seconds to fetch; shorter is better", "title")
    canvas.down(28)
    canvas.legend()
    for key in _PANELS:
        if key in tables:
            _panel(canvas, tables[key])
    path.write_text(canvas.svg(), "utf-8")


def _panel(canvas: _Canvas, table: Table) -> None:
    rows = sorted((row for row in table.rows if row.seconds), key=Row.median)
    if not rows:
        return
    canvas.down(16)
    canvas.text(_MARGIN, table.title, "panel")
    canvas.down(_LINE)
    longest = rows[-1].median()
    for row in rows:
        canvas.bar(row.name, row.median(), _BARS * row.median() / longest, _kind(row))


def _kind(row: Row) -> str:
    if row.role == DSCACHE:
        return "ours"
    if row.role == FLOOR:
        return "floor"
    return "peer" if row.verifies else "unverified"


class _Canvas:
    """Elements from top to bottom."""

    def __init__(self) -> None:
        self._elements: list[str] = []
        self._y = 36

    def down(self, distance: int) -> None:
        """Leave room."""
        self._y += distance

    def text(self, x: float, text: str, kind: str = "") -> None:
        """Write on the current line."""
        self._elements.append(f'<text x="{x:g}" y="{self._y}" class="{kind}">{escape(text)}</text>')

    def bar(self, label: str, seconds: float, width: float, kind: str) -> None:
        """One bar with its name and its value, and on to the next line."""
        x = _MARGIN + _LABELS
        self.text(_MARGIN, label, "" if kind == "ours" else "soft")
        self._box(x, max(width, 1), kind)
        self.text(x + width + 8, f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s")
        self.down(_LINE)

    def legend(self) -> None:
        """What the bars are."""
        x = float(_MARGIN)
        for kind, text in (
            ("ours", "dscache, verified"),
            ("peer", "others, verified"),
            ("unverified", "others, not verified"),
            ("floor", "floors: a part of the work only"),
        ):
            self._box(x, _BAR, kind)
            self.text(x + _BAR + 7, text, "soft")
            x += 40 + 7.2 * len(text)
        self.down(_LINE)

    def svg(self) -> str:
        """The whole picture."""
        size = f'width="{_WIDTH}" height="{self._y}" viewBox="0 0 {_WIDTH} {self._y}"'
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
                "<title>Seconds that dscache and other programs take to fetch</title>",
                f"<style>{_STYLE}</style>",
                f'<rect width="{_WIDTH}" height="{self._y}" rx="8" style="fill: var(--paper)"/>',
                *self._elements,
                "</svg>\n",
            )
        )

    def _box(self, x: float, width: float, kind: str) -> None:
        place = f'x="{x:g}" y="{self._y - _BAR + 3}" width="{width:.1f}" height="{_BAR}"'
        self._elements.append(f'<rect {place} rx="2" class="{kind}"/>')
