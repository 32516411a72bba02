"""Progress for people: what `progress=True` shows, in a notebook or on a terminal.

One set of numbers (`tally`) stands behind every face: HTML in a notebook (`cell`), one line on a
terminal (`line`), and the bars of the command line, which are its own. Without a notebook or a
terminal nothing is shown. No thread draws: events do, at most ten times a second.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

from dscache.events import Emit, to_log
from dscache.progress.display import Display


def bars() -> AbstractContextManager[Emit]:
    """One display for several calls, as a context manager.

        with dscache.bars() as progress:
            for name in names:
                dscache.fetch(name, progress=progress)

    For one call `progress=True` does the same. In a notebook the display is HTML below the cell, on
    a terminal a line on standard error; elsewhere notices are logged, as without it. At the end one
    line is left, or nothing if nothing was to be done.
    """
    return _display() or nullcontext(to_log)


def _display() -> Display | None:
    """For where this program runs; None where nobody would see it."""
    if _is_notebook():
        from dscache.progress.cell import Cell

        return Display(Cell())
    if sys.stderr is not None and sys.stderr.isatty():
        from dscache.progress.line import Line

        return Display(Line(sys.stderr))
    return None


def _is_notebook() -> bool:
    """True where IPython runs, and shows more than text."""
    if "IPython" not in sys.modules:  # who has not imported it is not run by it
        return False
    from IPython import get_ipython

    shell = get_ipython()
    kinds = [kind.__name__ for kind in type(shell).__mro__]
    return shell is not None and "TerminalInteractiveShell" not in kinds
