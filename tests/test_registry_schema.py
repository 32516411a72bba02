"""The committed schemas are those of the types, and the bundled indexes are up to date."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dscache.registry import author, schema
from dscache.registry.order import bundled, bundled_folder

COMMITTED = Path(__file__).parent.parent / "docs" / "schema"


def test_the_committed_schemas_are_current(tmp_path: Path) -> None:
    schema.write(str(tmp_path / "made"))
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert made == {path.name: path.read_bytes() for path in COMMITTED.iterdir()}, (
        "run `python -m dscache.registry.schema docs/schema`"
    )


@pytest.mark.parametrize("name", [each.name for each in bundled()])
def test_the_bundled_indexes_are_current(name: str, tmp_path: Path) -> None:
    copy = tmp_path / name
    shutil.copytree(f"{bundled_folder()}/{name}", copy)
    assert (copy / "index.json").is_file()
    assert not author.write_index(str(copy)), f"run `dscache registry index registries/{name}`"
