"""Archives that may go once they are unpacked: when they do, and when they stay."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import dscache
from dscache.cli import cli
from dscache.digest import Digest
from dscache.errors import NotCached
from dscache.store import Store
from tests.making import Shelf, artifact, content
from tests.origin import Site, origin
from tests.stores import overwrite

MEMBERS = {"a/one.bin": content(3000, 1), "two.bin": content(40, 2)}


def packed(members: dict[str, bytes]) -> bytes:
    """A tar archive of these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, data in members.items():
            header = tarfile.TarInfo(path)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return stream.getvalue()


TAR = packed(MEMBERS)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/pack.tar": TAR}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    shelf.add("pack", [artifact("pack.tar", TAR, site.url("/pack.tar"), unpack="tar")])
    shelf.add("as-it-is", [artifact("other.tar", TAR, site.url("/pack.tar"))])
    return shelf


def blobs(home: Path) -> list[Path]:
    return [path for path in (home / "cache/blobs").rglob("*") if path.is_file()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("way", ["argument", "configuration"])
def test_what_is_unpacked_needs_no_archive(shelf: Shelf, site: Site, home: Path, way: str) -> None:
    if way == "configuration":
        (home / "config.toml").write_text("keep_archives = false\n")
    keep = False if way == "argument" else None
    folder = dscache.fetch("pack", keep_archives=keep)
    assert contents(folder) == MEMBERS
    assert blobs(home) == []
    asked = len(site.requests)
    assert dscache.fetch("pack", keep_archives=keep) == folder
    assert dscache.fetch("pack", refresh=True) == folder
    assert len(site.requests) == asked
    assert dscache.Cache().info("pack").archives_dropped


def test_archives_are_kept_unless_asked(shelf: Shelf, home: Path) -> None:
    dscache.fetch("pack")
    assert len(blobs(home)) == 1
    assert not dscache.Cache().info("pack").archives_dropped


def test_a_dropped_archive_comes_again_when_it_is_asked_for(
    shelf: Shelf, site: Site, home: Path
) -> None:
    folder = dscache.fetch("pack", keep_archives=False)
    dscache.fetch("pack", files="pack.tar")
    assert (folder / "pack.tar").read_bytes() == TAR
    assert len(site.requests) == 2


def test_a_dropped_archive_comes_again_when_its_tree_is_damaged(
    shelf: Shelf, site: Site, home: Path
) -> None:
    folder = dscache.fetch("pack", keep_archives=False)
    overwrite(folder / "two.bin", b"edited")
    assert contents(dscache.fetch("pack")) == MEMBERS
    assert len(site.requests) == 2


def test_an_archive_that_is_used_as_it_is_stays(shelf: Shelf, home: Path) -> None:
    dscache.fetch("as-it-is")
    dscache.fetch("pack", keep_archives=False)
    assert len(blobs(home)) == 1
    plan = dscache.Cache().plan_prune(archives=True)
    assert plan.removed == ()
    assert "as-it-is" in plan.kept[0].reason


def test_the_plan_is_what_is_done(shelf: Shelf, home: Path) -> None:
    folder = dscache.fetch("pack")
    cache = dscache.Cache()
    plan = cache.plan_prune(["pack"], archives=True)
    assert [(each.kind, each.bytes) for each in plan.removed] == [("archive", len(TAR))]
    assert plan.freed_bytes >= len(TAR)
    assert len(blobs(home)) == 1  # planning removes nothing
    assert cache.prune(plan) == plan
    assert blobs(home) == []
    assert dscache.fetch("pack") == folder
    assert cache.plan_prune(archives=True).removed == ()


def test_bytes_that_have_another_name_are_not_freed(shelf: Shelf, home: Path) -> None:
    dscache.fetch("pack")
    os.link(blobs(home)[0], home / "mine.tar")
    plan = dscache.Cache().plan_prune(archives=True)
    assert plan.removed[0].bytes == len(TAR)
    assert plan.freed_bytes == 0


def test_an_archive_that_is_at_work_stays(shelf: Shelf, home: Path) -> None:
    dscache.fetch("pack")
    cache = dscache.Cache()
    plan = cache.plan_prune(archives=True)
    with Store(cache.root).leases.new() as lease:
        lease.announce([Digest("sha256", plan.removed[0].target)])
        done = cache.prune(plan)
    assert done.removed == ()
    assert f"process {os.getpid()}" in done.kept[0].reason
    assert "bringing" in done.kept[0].reason
    assert done.freed_bytes == 0
    assert len(blobs(home)) == 1


def test_a_damaged_tree_keeps_its_archive(shelf: Shelf, home: Path) -> None:
    folder = dscache.fetch("pack")
    overwrite(folder / "two.bin", b"shorter")
    plan = dscache.Cache().plan_prune(archives=True)
    assert plan.removed == ()
    assert "damaged" in plan.kept[0].reason


def test_an_unreadable_record_keeps_everything(shelf: Shelf, home: Path) -> None:
    dscache.fetch("pack")
    (home / "cache/records/shelf/torn@1+00000000.json").write_text('{"registry": "sh')
    for names in ([], ["pack"]):
        plan = dscache.Cache().plan_prune(names, archives=True)
        assert plan.removed == ()
        assert any("torn@1" in each.reason for each in plan.kept)
    assert len(blobs(home)) == 1


def test_what_is_not_here_cannot_be_pruned(shelf: Shelf) -> None:
    with pytest.raises(NotCached):
        dscache.Cache().plan_prune(["pack"], archives=True)


def test_the_command(shelf: Shelf, home: Path) -> None:
    dscache.fetch("pack")
    run = CliRunner().invoke
    dry = json.loads(run(cli, ["prune", "--archives", "--dry-run", "--json"]).stdout)
    assert len(blobs(home)) == 1
    done = json.loads(run(cli, ["prune", "--archives", "--json"]).stdout)
    assert blobs(home) == []
    assert done == dry | {"dry_run": False}
    assert dry["dry_run"]
    assert dry["removed"][0].keys() == {"kind", "name", "bytes", "reason", "last_used"}
    info = json.loads(run(cli, ["info", "pack", "--json"]).stdout)
    assert info["cached"]
    assert info["archives_dropped"]


def test_usage_counts_trees_once(shelf: Shelf, home: Path) -> None:
    shelf.add("twin", [artifact("t.tar", TAR, unpack="tar", urls=["https://example.org/t.tar"])])
    dscache.fetch_many(["pack", "twin"])
    unpacked = sum(map(len, MEMBERS.values()))
    usage = dscache.Cache().usage()
    assert usage.bytes == len(TAR) + unpacked
    assert usage.saved_bytes == usage.bytes
    assert [each.shared_bytes for each in usage.datasets] == [usage.bytes] * 2
    dscache.Cache().prune(dscache.Cache().plan_prune(archives=True))
    assert dscache.Cache().usage().bytes == unpacked


def test_a_tree_that_is_lost_is_made_again_for_a_folder_of_the_user(
    shelf: Shelf, home: Path
) -> None:
    dscache.fetch("pack")
    shutil.rmtree(home / "cache/trees")
    assert contents(dscache.fetch("pack", into=home / "mine")) == MEMBERS
