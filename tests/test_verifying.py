"""Verifying finds what is not as it was stored, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import dscache
from dscache.cli import cli
from dscache.errors import NotCached
from dscache.results import Damage
from tests.making import Shelf, artifact, content
from tests.stores import cut, flip, zero
from tests.test_pruning import MEMBERS, TAR

PLAIN = content(2 << 20, 3)


@pytest.fixture
def shelf(shelf: Shelf) -> Shelf:
    for name, data in (("pack.tar", TAR), ("plain.bin", PLAIN)):
        (shelf.folder / name).write_bytes(data)
    shelf.add("pack", [artifact("pack.tar", TAR, "pack.tar", unpack="tar")])
    shelf.add("plain", [artifact("plain.bin", PLAIN, "plain.bin")])
    dscache.fetch_many(["pack", "plain"])
    return shelf


def damages(*names: str, full: bool = False) -> list[Damage]:
    return list(dscache.Cache().verify(names, full=full).corrupt)


@pytest.mark.parametrize("full", [False, True])
def test_what_is_right_is_found_right(shelf: Shelf, full: bool) -> None:
    found = dscache.Cache().verify(full=full)
    assert found.corrupt == ()
    assert found.ok == found.checked == len(MEMBERS) + 2 + 2  # members, blobs, views


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("harm", [flip, cut, zero, os.unlink])
@pytest.mark.parametrize(
    ("name", "where"),
    [("pack", "trees/*/*/files/a/one.bin"), ("pack", "blobs/*/*/*"), ("plain", "blobs/*/*/*")],
)
def test_damage_is_found(
    shelf: Shelf, home: Path, name: str, where: str, harm: Callable[[Path], None], full: bool
) -> None:
    sizes = {"pack": len(TAR), "plain": len(PLAIN)}
    paths = [
        path
        for path in (home / "cache").glob(where)
        if "blobs" not in where or path.stat().st_size == sizes[name]
    ]
    harm(paths[0])
    found = damages(full=full)
    is_archive_gone = harm is os.unlink and name == "pack" and "blobs" in where
    assert bool(found) is not is_archive_gone  # an archive may be dropped
    assert {user for each in found for user in each.datasets} <= {f"shelf/{name}@1"}
    assert is_archive_gone or str(paths[0]) in {each.path for each in found}


def test_a_hard_link_that_was_edited_is_found(shelf: Shelf, home: Path) -> None:
    project = dscache.fetch("pack", into=home / "project", link="hardlink")
    edited = project / "a/one.bin"
    flip(edited)
    found = damages("pack")
    assert any(os.path.samefile(each.path, edited) for each in found)
    assert all(each.digest or "view" in each.problem for each in found)
    assert damages("plain") == []


def test_a_view_that_was_changed_is_found(shelf: Shelf, home: Path) -> None:
    folder = dscache.fetch("pack")
    (folder / "two.bin").unlink()
    assert [each.path for each in damages()] == [str(folder)]


def test_a_tree_that_is_gone_is_found(shelf: Shelf, home: Path) -> None:
    shutil.rmtree(home / "cache/trees")
    (found,) = damages()
    assert "list of its members" in found.problem


def test_a_damaged_list_is_found(shelf: Shelf, home: Path) -> None:
    (path,) = (home / "cache").glob("trees/*/*/members")
    cut(path)
    found = damages()
    assert any("list of its members" in each.problem for each in found)


def test_nothing_is_changed(shelf: Shelf, home: Path) -> None:
    path = next((home / "cache").glob("trees/*/*/files/two.bin"))
    flip(path)
    before = {each: each.stat().st_mtime_ns for each in (home / "cache").rglob("*")}
    damages()
    assert {each: each.stat().st_mtime_ns for each in (home / "cache").rglob("*")} == before


def test_the_command(shelf: Shelf, home: Path) -> None:
    run = CliRunner().invoke
    assert json.loads(run(cli, ["verify", "--json"]).stdout)["corrupt"] == []
    flip(next((home / "cache").glob("trees/*/*/files/two.bin")))
    found = run(cli, ["verify", "pack", "--json"], standalone_mode=False)
    document = json.loads(found.stdout)
    assert document.keys() == {"checked", "ok", "corrupt", "repaired"}
    assert document["corrupt"][0].keys() == {"digest", "path", "datasets", "problem"}
    assert found.return_value == 5
    with pytest.raises(NotCached):
        dscache.Cache().verify(["nothing"])


@pytest.mark.parametrize("where", ["trees/*/*/files/a/one.bin", "blobs/*/*/*"])
def test_the_hint_mends(shelf: Shelf, home: Path, where: str) -> None:
    names = ["pack", "plain"]
    for path in (home / "cache").glob(where):
        flip(path)
    run = CliRunner().invoke
    assert "`dscache verify --repair`" in run(cli, ["verify"]).stderr
    assert run(cli, ["verify", "--repair"], standalone_mode=False).return_value == 0
    assert damages() == []
    assert [each.status for each in dscache.Cache().fetch_all(names)] == ["cached", "cached"]


@pytest.mark.parametrize("where", ["trees/*/*/files/a/one.bin", "blobs/*/*/*"])
def test_who_removes_what_is_damaged_can_fetch_it_again(
    shelf: Shelf, home: Path, where: str
) -> None:
    for path in (home / "cache").glob(where):
        flip(path)
    for each in damages():
        os.unlink(each.path)
    for folder in (home / "cache/datasets/shelf").iterdir():
        shutil.rmtree(folder)
    dscache.fetch_many(["pack", "plain"])
    assert damages() == []
