"""A real FTP server for the tests, from pyftpdlib; without it the test is skipped, aloud."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def ftp_server(root: Path) -> Iterator[int]:
    """A real FTP server for anonymous readers; the port on which it listens."""
    authorizers = pytest.importorskip("pyftpdlib.authorizers", reason="ftp: no pyftpdlib")
    from pyftpdlib.handlers import FTPHandler  # type: ignore[import-untyped, unused-ignore]
    from pyftpdlib.servers import FTPServer  # type: ignore[import-untyped, unused-ignore]

    class Handler(FTPHandler):  # type: ignore[misc, unused-ignore]
        authorizer = authorizers.DummyAuthorizer()
        auth_failed_timeout = 0

    Handler.authorizer.add_anonymous(str(root))
    server: Any = FTPServer(("127.0.0.1", 0), Handler)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.01, blocking=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        stop.set()
        thread.join()
