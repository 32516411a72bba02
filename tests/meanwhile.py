"""What happens beside a download: something is done once, when so many bytes are here.

    with meanwhile(desk, 20 << 20, server.restart):
        found = desk.fetch("big")

The action runs in a thread of its own, so that it does not hold up the download that it disturbs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dscache.events import Advanced, Event
from tests.downloads import PATIENCE, Desk


@contextmanager
def meanwhile(desk: Desk, after: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something when `after` bytes of a file are here; that this never happens is a failure."""
    is_time = threading.Event()
    errors: list[BaseException] = []
    hear = desk.hear

    def told(event: Event) -> None:
        hear(event)
        if isinstance(event, Advanced) and event.done >= after:
            is_time.set()

    def act() -> None:
        try:
            if not is_time.wait(PATIENCE):
                raise TimeoutError(f"{after} bytes never came")
            action()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    desk.hear = told
    try:
        yield
        thread.join()
    finally:
        desk.hear = hear
        is_time.set()
        thread.join()
    if errors:
        raise errors[0]
