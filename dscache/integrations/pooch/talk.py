"""Talk: what users of Pooch see and catch: its log, its progress bars, its errors."""

from __future__ import annotations

import sys
from typing import Any

from pooch import get_logger

from dscache.errors import DscacheError, IntegrityError, UsageError
from dscache.events import Advanced, Event, Finished, Started, to_log

#: True for a bar of tqdm; or an object with `total`, `update(n)`, `reset()` and `close()`.
Progressbar = Any


class Talk:
    """Hears the events of one file: Pooch's log says what happens, and its bar is moved.

    Args:
        verb, told: what the log says.

    Raises:
        UsageError: a bar is wanted, and tqdm is missing.
    """

    def __init__(self, verb: str, told: str, progressbar: Progressbar) -> None:
        self._verb = verb
        self._told = told
        self._has_told = False
        self._new_bar = _tqdm() if progressbar is True else None
        self._bar = None if isinstance(progressbar, bool) else progressbar
        self._shown: int | None = None
        self._total = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Started(size=size, done=done):
                self._say()
                self._total = size or 0
                self._show(done)
            case Advanced(done=done):
                self._show(done)
            case Finished(size=size):
                self._total = size
                self._show(size)
            case _:
                to_log(event)

    def done(self) -> None:
        """The file is there, with or without a download: Pooch has one word for both."""
        self._say()

    def close(self) -> None:
        """Whether it went well or not, the bar is done."""
        if self._bar is not None and self._shown is not None:
            self._bar.close()

    def _say(self) -> None:
        if not self._has_told:
            get_logger().info("%s %s", self._verb, self._told)
            self._has_told = True

    def _show(self, done: int) -> None:
        if self._bar is None:
            if self._new_bar is None:
                return
            windows = sys.platform == "win32"  # as Pooch's own downloaders draw it
            self._bar = self._new_bar(
                total=0, ncols=79, ascii=windows, unit="B", unit_scale=True, leave=True
            )
        self._bar.total = self._total
        if self._shown is None or done < self._shown:
            self._bar.reset()
            self._shown = 0
        self._bar.update(done - self._shown)
        self._shown = done


def as_pooch_says(error: DscacheError, name: str, known_hash: str | None) -> DscacheError:
    """The same error, as programs know it that were written for Pooch."""
    if isinstance(error, IntegrityError):
        algorithm = known_hash.split(":")[0] if known_hash and ":" in known_hash else "sha256"
        return IntegrityError(
            f"{algorithm.upper()} hash of downloaded file ({name}) does not match the known hash: "
            f"expected {known_hash}. {error.message}",
            hint=error.hint,
            **error.facts,
        )
    # Late: what imports requests is a failure, or Pooch's own way.
    from dscache.integrations.pooch.failing import DownloadFailed

    return DownloadFailed(error.message, hint=error.hint, **error.facts)


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise UsageError(
            "Missing package 'tqdm' required for progress bars.", hint="pip install tqdm"
        ) from error
    return tqdm
