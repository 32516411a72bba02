"""fsspec's own tests of filesystems, of which those of reading are ours.

Of `fsspec.tests.abstract` all of `AbstractGetTests` is run, but for one test that writes first.
`AbstractOpenTests`, `AbstractPipeTests`, `AbstractPutTests` and `AbstractCopyTests` write to the
filesystem in all of their tests: they are not for one that is read-only.

The scenarios are made as archives of a registry, since these can hold empty files and any name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.tests.abstract import AbstractFixtures
from fsspec.tests.abstract.get import AbstractGetTests

from tests.archives import File, packed
from tests.making import Shelf, artifact

_NESTED = ("subfile1", "subfile2", "nesteddir/nestedfile")
BULK = ("file1", "file2", *(f"subdir/{name}" for name in _NESTED))
EDGE = ("file1", "file2", *(f"subdir{number}/{name}" for number in (0, 1) for name in _NESTED))
PREFIX = ("subdir.txt", "subdir/subfile.txt")
HASHED = {f"{md5(str(number).encode()).hexdigest()}.txt": f"{number}" for number in range(10)}


class TestGet(AbstractFixtures, AbstractGetTests):
    """`get` in all its forms."""

    @pytest.fixture
    def fs(self) -> Any:
        return fsspec.filesystem("dscache", skip_instance_cache=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return posixpath.join

    @pytest.fixture
    def fs_path(self) -> str:
        return "scenario"

    @pytest.fixture
    def scenario(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
        """Makes a dataset of these files."""
        shelf = Shelf(home / "shelf")
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))

        def make(*files: str, **filled: str) -> str:
            entries = [File(name) for name in files]
            entries += [File(name, text.encode()) for name, text in filled.items()]
            data = packed("tar", *entries)
            (shelf.folder / "all.tar").write_bytes(data)
            tar = artifact("all.tar", data, "all.tar", unpack="tar", unpack_to="source")
            shelf.add("scenario", [tar])
            return "scenario/source"

        return make

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, scenario: Callable[..., str]) -> str:
        return scenario(*BULK)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, scenario: Callable[..., str]) -> str:
        return scenario(*EDGE)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, scenario: Callable[..., str]) -> str:
        return scenario(*PREFIX)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, scenario: Callable[..., str]) -> str:
        return scenario(**HASHED)

    # It makes what it reads by writing to the filesystem; `test_fsspec` has the same without.
    test_get_directory_recursive = None
