"""The files of a dataset by name: what is told before they are here is what stands there later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dscache.errors import NotCached, NotFound
from tests.archives import File, Folder, Link, packed
from tests.downloads import Desk
from tests.making import artifact, content, sha256
from tests.origin import origin

DATA = {f"part/{n:02}.bin": content(100 + n, n) for n in range(12)} | {"readme.txt": b"Read me.\n"}


def paths(desk: Desk, name: str, *files: str) -> list[str]:
    return [each.path for each in desk.cache.files(name, files=files or None).files]


def test_what_a_registry_lists_needs_no_file(tmp_path: Path) -> None:
    with origin({f"/{name}": data for name, data in DATA.items()}) as site:
        desk = Desk(tmp_path)
        desk.offer(
            "case", *(artifact(name, data, site.url("/" + name)) for name, data in DATA.items())
        )
        found = desk.cache.files("case")
        assert site.requests == []
        assert (found.registry, found.name, found.version) == ("shelf", "case", "1")
        assert found.folder is None
        assert [(each.path, each.size) for each in found.files] == sorted(
            (name, len(data)) for name, data in DATA.items()
        )
        assert paths(desk, "case", "*.txt", "part/1*") == [
            "part/10.bin",
            "part/11.bin",
            "readme.txt",
        ]
        folder = desk.cache.fetch("case", files="part/*")
        assert desk.cache.files("case", files="part/0*").folder == folder
        assert desk.cache.files("case").folder is None
        desk.cache.fetch("case")
        assert desk.cache.files("case") == type(found)("case", "1", "shelf", folder, found.files)


def test_of_a_manifest_that_alone_is_fetched(tmp_path: Path) -> None:
    lines = [{"path": name, "size": len(data), "hash": sha256(data)} for name, data in DATA.items()]
    listed = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with origin({f"/{name}": data for name, data in DATA.items()} | {"/list": listed}) as site:
        desk = Desk(tmp_path)
        desk.shelf.write(
            "case.toml",
            {
                "version": "1",
                "manifest": {
                    "hash": sha256(listed),
                    "size": len(listed),
                    "urls": [site.url("/list")],
                    "base_urls": [site.url("/")],
                },
            },
        )
        assert paths(desk, "case") == sorted(DATA)
        assert paths(desk, "case", "part/0*") == sorted(DATA)[:10]
        assert [seen.path for seen in site.requests] == ["/list"]
        assert desk.cache.cached() == []
        desk.cache.fetch("case", files="*.txt")
        assert paths(desk, "case", "*.txt") == ["readme.txt"]
        assert paths(desk, "case") == sorted(DATA)


def test_what_an_archive_holds_is_known_once_it_is_here(tmp_path: Path) -> None:
    data = packed("tar", Folder("a"), File("a/b", b"bb"), Link("c", "a/b"), Link("d", "a"))
    with origin({"/x.tar": data, "/y.bin": b"y"}) as site:
        desk = Desk(tmp_path)
        desk.offer(
            "case",
            artifact("x.tar", data, site.url("/x.tar"), unpack="tar", unpack_to="x"),
            artifact("y.bin", b"y", site.url("/y.bin")),
        )
        with pytest.raises(NotCached, match="nobody knows what it holds"):
            desk.cache.files("case")
        assert paths(desk, "case", "y.*") == ["y.bin"]
        assert paths(desk, "case", "x.tar") == ["x.tar"]
        desk.cache.fetch("case", files="x.tar")
        desk.cache.fetch("case")
        found = desk.cache.files("case")
        # The archive stands there for those who have asked for it, and is no file of the dataset.
        assert [(each.path, each.size) for each in found.files] == [
            ("x/a/b", 2),
            ("x/c", 2),
            ("y.bin", 1),
        ]
        assert paths(desk, "case", "x.tar") == ["x.tar"]
        assert paths(desk, "case", "x/c") == ["x/c"]  # what it leads to was not asked for


@pytest.mark.parametrize("is_here", [False, True])
def test_a_pattern_that_matches_nothing(tmp_path: Path, is_here: bool) -> None:
    with origin({"/y.bin": b"y"}) as site:
        desk = Desk(tmp_path)
        desk.offer("case", artifact("y.bin", b"y", site.url("/y.bin")))
        if is_here:
            desk.cache.fetch("case")
        with pytest.raises(NotFound, match=r"matches \*\.txt"):
            desk.cache.files("case", files="*.txt")
