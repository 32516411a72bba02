"""People for tests: forked children who are users of their own, in one group, around one folder.

    with gathered() as people:
        path = people.anne(lambda: people.desk.fetch("one"))
        assert people.bert(lambda: people.desk.fetch("one")) == path

Their users exist as numbers only. Only root can be somebody else; elsewhere the test is skipped.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

import dscache
from dscache.cache import Cache
from tests.children import forked
from tests.downloads import Desk

Result = TypeVar("Result")

GROUP, ANNE, BERT = 7000, 7001, 7002


class People:
    """Anne and Bert, and the folder that their group works in.

    Attributes:
        folder: everybody of the group may write to it.
        desk: a cache and a registry there; its registry belongs to nobody of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.desk = Desk(folder, retries=0)

    def anne(self, act: Callable[[], Result], umask: int = 0o002) -> Result:
        """What Anne gets."""
        return self._be(ANNE, umask, act)

    def bert(self, act: Callable[[], Result], umask: int = 0o002) -> Result:
        """What Bert gets."""
        return self._be(BERT, umask, act)

    def rehearse(self, *names: str) -> None:
        """Fetch these datasets in another place: all that is imported on the way is here then."""
        with tempfile.TemporaryDirectory() as folder:
            cache = Cache(settings=self.desk.settings.override(cache_dir=f"{folder}/cache"))
            for _ in range(2):
                for found in cache.fetch_all(names, into=f"{folder}/mine", keep_archives=False):
                    found.unwrap()

    def _be(self, number: int, umask: int, act: Callable[[], Result]) -> Result:
        def child() -> Result:
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(number)
            os.umask(umask)
            os.chdir(self.folder)
            return act()

        return forked(child)

    def owners(self, pattern: str) -> set[int]:
        """Who owns what matches in the cache."""
        return {path.lstat().st_uid for path in self.desk.root.glob(pattern)}


@contextmanager
def gathered() -> Iterator[People]:
    """Anne and Bert around a folder of their group, whose inner folders belong to the group too."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can be two users, and only on Linux as is expected here")
    _import_all()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
        yield People(folder)


@cache
def _import_all() -> None:
    """Import what dscache imports anywhere: they may not be able to read this interpreter."""
    for path in Path(dscache.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                with suppress(ImportError):  # of another platform
                    importlib.import_module(name)


def hard_links_are_protected() -> bool:
    """True where nobody may link a read-only file of somebody else."""
    try:
        return Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"
    except OSError:
        return False
