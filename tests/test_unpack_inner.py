"""Archives in an archive: unpacked where the entry says so, and held to the same rules."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

import dscache
from dscache.errors import IntegrityError, InvalidFile, UnsafeError
from dscache.recipes import recipe_for, stem_of
from tests.making import sha256
from tests.test_pruning import packed

ONE, TWO = packed({"a.bin": b"a", "deep/b.bin": b"bb"}), packed({"c.bin": b"ccc"})


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in members.items():
            archive.writestr(path, data)
    return stream.getvalue()


def unpacked(folder: Path, data: bytes, recipe: str) -> dict[str, bytes]:
    """What stands in the dataset for an archive of these bytes."""
    file = folder / "archive"
    file.write_bytes(data)
    found = dscache.retrieve(file.as_uri(), sha256(data), unpack=recipe)
    return {
        str(path.relative_to(found)): path.read_bytes()
        for path in found.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("outer", "pack"), [("tar", packed), ("zip", zipped)])
def test_each_gives_way_to_its_members(home: Path, outer: str, pack: type) -> None:
    data = pack({"one.tar": ONE, "sub/two.tar.gz": gzip.compress(TWO), "x.txt": b"x"})
    assert unpacked(home, data, f"{outer}+tar") == {
        "one/a.bin": b"a",
        "one/deep/b.bin": b"bb",
        "sub/two/c.bin": b"ccc",
        "x.txt": b"x",
    }


def test_zips_in_a_tar(home: Path) -> None:
    data = packed({"one.zip": zipped({"a.bin": b"a"}), "b.tar": TWO})
    assert unpacked(home, data, "tar+zip") == {"one/a.bin": b"a", "b.tar": TWO}


def test_compressed_files_in_an_archive(home: Path) -> None:
    data = zipped({"t/a.csv.gz": gzip.compress(b"1,2"), "b.tar.gz": gzip.compress(TWO)})
    assert unpacked(home, data, "zip+gzip") == {"t/a.csv": b"1,2", "b.tar.gz": gzip.compress(TWO)}


def test_they_stay_packed_otherwise(home: Path) -> None:
    data = packed({"one.tar": ONE, "a.csv.gz": gzip.compress(b"1,2")})
    assert set(unpacked(home, data, "tar")) == {"one.tar", "a.csv.gz"}


def test_one_level_is_unpacked(home: Path) -> None:
    data = packed({"one.tar": packed({"two.tar": TWO})})
    assert unpacked(home, data, "tar+tar") == {"one/two.tar": TWO}


def test_an_empty_one_is_an_empty_folder(home: Path) -> None:
    data = packed({"one.tar": packed({}), "x": b"x"})
    assert unpacked(home, data, "tar+tar") == {"x": b"x"}
    assert [path.name for path in (home / "cache").glob("datasets/*/*/*/one")] == ["one"]


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
def test_members_of_members_are_held_to_the_rules(home: Path, name: str) -> None:
    with pytest.raises(UnsafeError, match="out"):
        unpacked(home, packed({"one.tar": packed({name: b"x"})}), "tar+tar")
    assert list((home / "cache").glob("parts/*.tree")) == []


def test_they_may_not_take_the_place_of_others(home: Path) -> None:
    data = packed({"one/a.bin": b"first", "one.tar": ONE})
    with pytest.raises(UnsafeError, match=r"one/a\.bin"):
        unpacked(home, data, "tar+tar")


def test_damage_is_said_of_the_one_that_has_it(home: Path) -> None:
    with pytest.raises(IntegrityError, match=r"archive: one\.tar is damaged"):
        unpacked(home, packed({"one.tar": ONE[:700], "two.tar": TWO}), "tar+tar")


def test_limits_count_all_of_them_together(home: Path) -> None:
    (home / "config.toml").write_text("[unpack]\nmax_members = 3\n")
    with pytest.raises(UnsafeError, match="3"):
        unpacked(home, packed({"one.tar": ONE, "two.tar": TWO}), "tar+tar")


@pytest.mark.parametrize(
    "recipe", ["tar+", "+tar", "gzip+tar", "tar+7z", "tar+tar+tar", "auto+tar"]
)
def test_recipes_that_make_no_sense(home: Path, recipe: str) -> None:
    with pytest.raises(InvalidFile):
        unpacked(home, TWO, recipe)


@pytest.mark.parametrize(
    ("path", "recipe", "stem"),
    [
        ("a/b.tar", "tar", "a/b"),
        ("b.tar.gz", "tar", "b"),
        ("b.TGZ", "tar", "b"),
        ("b.zip", "zip", "b"),
        ("b.csv.xz", "xz", "b.csv"),
        (".gz", "gzip", ".gz"),
    ],
)
def test_stems(path: str, recipe: str, stem: str) -> None:
    assert recipe_for(path, "auto") == recipe
    assert stem_of(path, recipe) == stem
