"""Names, references and paths: the grammar of `docs`, and what a folder can hold."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.digest import Digest
from dscache.errors import InvalidFile, UnsafeError, UsageError
from dscache.model import (
    Artifact,
    Manifest,
    Reference,
    check_path,
    collisions,
    content_of,
    is_name,
    is_version,
    version_order,
)
from dscache.recipes import unpacked_path

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,99}", fullmatch=True).filter(is_name)
VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True)
DIGEST = Digest("sha256", "0" * 64)


@pytest.mark.parametrize("name", ["mnist", "0", "a.b-c_d", "a" * 100, "con-1", "com10", "blobs2"])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "-a",
        ".a",
        "a.",
        "a" * 101,
        "a b",
        "a/b",
        "a@1",
        "ä",
        "a\n",
        "..",
        "con",
        "nul.txt",
        "com1",
        "lpt9.x",
        "registry",
        "index",
        "blobs",
        "٣",
    ],
)
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("version", ["1", "2012", "v1.0-rc.1+build", "1.", "latest", "A" * 64])
def test_versions(version: str) -> None:
    assert is_version(version)


@pytest.mark.parametrize("version", ["", ".1", "-1", "1/2", "1 ", "1\n", "A" * 65, "é", "1@2"])
def test_what_is_no_version(version: str) -> None:
    assert not is_version(version)


@given(st.none() | NAMES, NAMES, st.none() | VERSIONS)
def test_references_are_read_as_they_are_written(
    registry: str | None, name: str, version: str | None
) -> None:
    reference = Reference(name, registry, version)
    assert Reference.parse(str(reference)) == reference


@given(st.text())
def test_what_is_taken_for_a_reference_is_one(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert str(reference) == text
    assert is_name(reference.name)


@pytest.mark.parametrize(
    "text", ["", "a@", "/a", "a/", "a/b/c", "a@1@2", "A", "a b", "../a", "a@."]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError):
        Reference.parse(text)


def test_versions_are_sorted_as_people_count() -> None:
    versions = ["1.10", "2012", "1.9", "beta", "1.0"]
    assert sorted(versions, key=version_order) == ["beta", "1.0", "1.9", "1.10", "2012"]


@given(VERSIONS, VERSIONS)
def test_any_two_versions_can_be_sorted(one: str, other: str) -> None:
    assert sorted([one, other], key=version_order)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b.txt",
        ".hidden",
        "a b/c d",
        "ä/é.csv",
        "x" * 255,
        "con-fig",
        "a..b",
        "...",
        "ab:c",
        "data/common",
        "auxiliary/a",
        "a~1",
        "日本語",
    ],
)
def test_paths(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    ["/a", "\\a", "C:a", "c:/a", "..", "../a", "a/..", "a/../b", "..\\a", "a\\..\\b", "//h/s"],
)
def test_paths_that_lead_out_are_unsafe(path: str) -> None:
    with pytest.raises(UnsafeError):
        check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a//b",
        "a/",
        "./a",
        "a/.",
        "a\\b",
        "a\nb",
        "a\x00",
        "a\x7f",
        "a\x9f",
        "CON",
        "a/con.txt",
        "nul",
        "x/LPT1",
        "com\xb9",
        "prn .txt",
        "x" * 256,
        "ä" * 128,
        unicodedata.normalize("NFD", "é"),
    ],
)
def test_paths_that_some_platform_refuses(path: str) -> None:
    with pytest.raises(InvalidFile):
        check_path(path)


PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "con", "Com1.txt", "a", "A", "é", "\\", "C:", "x\ny", "..."]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)


@given(st.lists(PARTS, min_size=1, max_size=4).map("/".join))
def test_a_path_that_passes_stays_inside(path: str) -> None:
    try:
        check_path(path)
    except (InvalidFile, UnsafeError):
        return
    root = Path("/root")
    inside = os.path.normpath(f"{root}/{path}")
    assert inside == f"{root}/{path}"
    assert Path(inside).is_relative_to(root)
    assert unicodedata.normalize("NFC", path) == path
    assert not any(ord(char) < 32 for char in path)
    assert "\\" not in path


WORDS = [
    "con",
    "Aux",
    "com1",
    "LPT9",
    "nul",
    "prn",
    "console",
    "com",
    "com10",
    "x",
    "a-b",
    "_",
    "7",
]
ENDS = ["", ".", ".txt", ".tar.gz", "-1", "=", "1", ".con", "/", "/con", "//", "/x"]


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(ENDS)), min_size=1, max_size=3))
def test_device_names_are_found_in_every_part(pieces: list[tuple[str, str]]) -> None:
    path = "".join(word + end for word, end in pieces)
    devices = {"con", "prn", "aux", "nul"} | {
        f"{kind}{n}" for kind in ("com", "lpt") for n in range(10)
    }
    parts = path.split("/")
    wrong = "" in parts or any(part.split(".")[0].lower() in devices for part in parts)
    if wrong:
        with pytest.raises(InvalidFile):
            check_path(path)
    else:
        check_path(path)


def naive_collisions(paths: list[str]) -> bool:
    """An oracle: the names that a folder without case would be asked to hold, one by one."""
    files: set[str] = set()
    folders: set[str] = set()
    for path in (path.casefold() for path in paths):
        parents = {path[:end] for end in range(len(path)) if path[end] == "/"}
        if path in files | folders or parents & files:
            return True
        files.add(path)
        folders |= parents
    return False


@given(st.lists(st.text("aAb/", min_size=1, max_size=5).filter(lambda path: "//" not in path)))
def test_collisions_are_found(paths: list[str]) -> None:
    clean = [path.strip("/") for path in paths if path.strip("/")]
    assert bool(list(collisions(clean))) == naive_collisions(clean)


def test_a_collision_names_both() -> None:
    assert list(collisions(["a/b", "c", "A/B", "c/d", "a"])) == [
        ("A/B", "a/b"),
        ("c/d", "c"),
        ("a", "a/b"),
    ]


@pytest.mark.parametrize(
    ("path", "recipe", "folder", "found"),
    [
        ("a.csv.gz", "gzip", "", "a.csv"),
        ("d/a.csv.BZ2", "bzip2", "", "d/a.csv"),
        ("d/a.csv.xz", "xz", "x/y", "x/y/a.csv"),
        ("a.zst", "auto", "", "a"),
        ("images", "gzip", "", "images"),
        ("a.gz", "xz", "", "a.gz"),
        (".gz", "gzip", "", ".gz"),
        ("a.tar.gz", "auto", "", None),
        ("a.tgz", "auto", "", None),
        ("a.tar.gz", "gzip", "", "a.tar"),
        ("a.zip", "zip", "x", None),
        ("a.gz", "tar", "", None),
    ],
)
def test_where_a_compressed_file_is_unpacked(
    path: str, recipe: str, folder: str, found: str | None
) -> None:
    assert unpacked_path(path, recipe, folder) == found


def test_the_content_identity_is_of_what_a_version_holds() -> None:
    one, two = Artifact("a", DIGEST), Artifact("b", DIGEST, unpack="tar", unpack_to="x")
    content = content_of([one, two])
    assert content == content_of([two, one])
    assert content == content_of([Artifact("a", DIGEST, 5, (DIGEST,), ("https://x/a",)), two])
    assert content != content_of([one])
    assert content != content_of([one, Artifact("b", DIGEST, unpack="tar")])
    assert content != content_of([one, Artifact("b", DIGEST, unpack="zip", unpack_to="x")])
    assert content != content_of([one, Artifact("c", DIGEST, unpack="tar", unpack_to="x")])


def test_a_manifest_has_the_identity_of_its_own_hash() -> None:
    manifest = Manifest(Artifact("m", DIGEST), ("https://x/",))
    elsewhere = Manifest(Artifact("other", DIGEST), ("https://y/",))
    assert content_of([], manifest) == content_of([], elsewhere)
    assert content_of([], manifest) != content_of([])


def test_the_best_hash_is_the_identity() -> None:
    md5, sha512 = Digest("md5", "0" * 32), Digest("sha512", "0" * 128)
    assert Artifact("a", md5, checksums=(sha512, DIGEST)).identity == DIGEST
    assert Artifact("a", md5, checksums=(sha512,)).identity == sha512
    assert Artifact("a", md5).identity == md5
    assert Artifact("a", None).identity is None
