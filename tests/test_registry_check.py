"""`registry check`: each rule finds its breach, in the right file and key, and hides no other."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import NotFound
from dscache.registry.author import write_index
from dscache.registry.check import Finding, Report, check
from dscache.registry.order import bundled, bundled_folder
from tests.making import Shelf, artifact, md5, sha256

URL = "https://data.example.org/a.csv"
GOOD = {"license": "MIT", "homepage": "https://example.org"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A registry in which nothing is to be found."""
    shelf = Shelf(tmp_path / "shelf")
    add(shelf, "good")
    return shelf


def add(shelf: Shelf, name: str, *artifacts: dict[str, Any], **keys: Any) -> None:
    shelf.add(name, artifacts or [artifact("a.csv", b"a", URL)], **(GOOD | keys))


def put(shelf: Shelf, data: bytes) -> Path:
    """Bytes of the registry's own."""
    digest = hashlib.sha256(data).hexdigest()
    path = shelf.folder / "blobs" / "sha256" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(shelf: Shelf) -> Report:
    return check(str(shelf.folder))


def keys(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(each.file, each.key) for each in findings]


def test_nothing_to_find(shelf: Shelf) -> None:
    add(shelf, "held", artifact("a", b"bytes", blob=True))
    put(shelf, b"bytes")
    add(shelf, "held", artifact("a", b"a", URL), file="held@0.toml", version="0")
    shelf.write("alias.toml", {"see": "held"})
    (shelf.folder / "data").mkdir()
    (shelf.folder / "data" / "own file.csv").write_text("x")
    (shelf.folder / "README.md").write_text("# Shelf")
    add(shelf, "own", artifact("a", b"x", "data/own%20file.csv"))
    write_index(str(shelf.folder))
    assert found(shelf) == Report((), ())


@pytest.mark.parametrize("name", [each.name for each in bundled()])
def test_the_bundled_registries_have_no_errors(name: str) -> None:
    report = check(f"{bundled_folder()}/{name}")
    assert report.errors == ()
    assert not [finding for finding in report.warnings if finding.file == "index.json"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        check(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ""),
        ("name = 'x'", ""),
        ("format = 2\nname = 'x'", "format"),
        ("format = 1\nname = 'X'", "name"),
        ("format = 1\nname = 'x'\ntitle = 3", "title"),
        ("format = 1\nname = 'x'\ncolour = 'red'", "colour"),
        ("format = ", ""),
    ],
)
def test_the_header(shelf: Shelf, text: str, key: str) -> None:
    (shelf.folder / "registry.toml").write_text(text)
    assert keys(found(shelf).errors) == [("registry.toml", key)]
    (shelf.folder / "registry.toml").unlink()
    assert keys(found(shelf).errors) == [("registry.toml", "")]


@pytest.mark.parametrize("file", ["Good.toml", "con.toml", "a@.toml", "index.toml", "a b.toml"])
def test_names_of_files(shelf: Shelf, file: str) -> None:
    add(shelf, "good", file=file)
    assert keys(found(shelf).errors) == [(file, "")]


def test_one_broken_file_hides_nothing(shelf: Shelf) -> None:
    (shelf.folder / "broken.toml").write_text("version = ")
    (shelf.folder / "binary.toml").write_bytes(b"\xff\xfe")
    (shelf.folder / "folder.toml").mkdir()
    with (shelf.folder / "huge.toml").open("wb") as file:
        file.truncate(1 << 30)
    os.mkfifo(shelf.folder / "pipe.toml")
    (shelf.folder / "link.toml").symlink_to("nowhere")
    shelf.write("alias.toml", {"see": "broken"})
    add(shelf, "last", artifact("../a", b"", URL), artifact("b", b"", URL, unpack="7z"))
    report = found(shelf)
    assert keys(report.errors) == [
        ("binary.toml", ""),
        ("broken.toml", ""),
        ("folder.toml", ""),
        ("huge.toml", ""),
        ("last.toml", "artifacts[0].path"),
        ("last.toml", "artifacts[1].unpack"),
        ("link.toml", ""),
        ("pipe.toml", ""),
    ]
    assert "7z" in report.errors[5].message
    assert "longer than" in report.errors[3].message


def test_unknown_keys(shelf: Shelf) -> None:
    add(shelf, "good", artifact("a", b"", URL, colour="red"), author="me")
    shelf.write("alias.toml", {"see": "good", "version": "1"})
    assert keys(found(shelf).errors) == [
        ("alias.toml", "version"),
        ("good.toml", "author"),
        ("good.toml", "artifacts[0].colour"),
    ]


def test_every_problem_of_an_entry(shelf: Shelf) -> None:
    add(
        shelf,
        "bad",
        artifact("a", b"", "https://u:p@h/a", hash="md5:12"),
        artifact("A", b"", "gopher://h/a", "../a", unpack="rar"),
        artifact("c", b"", size=None),
        artifact("d", b"", "http://h/d", hash=md5(b"")),
        version="no version",
    )
    assert keys(found(shelf).errors) == [
        ("bad.toml", "version"),
        ("bad.toml", "artifacts[0].hash"),
        ("bad.toml", "artifacts[0].urls[0]"),
        ("bad.toml", "artifacts[1].unpack"),
        ("bad.toml", "artifacts[1].urls[0]"),
        ("bad.toml", "artifacts[1].urls[1]"),
        ("bad.toml", "artifacts[2]"),
        ("bad.toml", "artifacts[3].urls[0]"),
        ("bad.toml", "artifacts[1]"),
    ]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"license": ""}, "license"),
        ({"homepage": ""}, "homepage"),
        ({"artifacts": [artifact("a", b"", URL, size=None)]}, "artifacts[0].size"),
        ({"artifacts": [artifact("a", b"", URL, hash=md5(b""))]}, "artifacts[0].hash"),
        ({"artifacts": [artifact("a", b"", URL, "http://h/a")]}, "artifacts[0].urls[1]"),
        ({"artifacts": [artifact("a", b"", "file:///a")]}, "artifacts[0].urls[0]"),
        ({"artifacts": [artifact("a", b"", "/data/a")]}, "artifacts[0].urls[0]"),
        ({"artifacts": [artifact("a", b"", "data/a")]}, "artifacts[0].urls[0]"),
        ({"artifacts": [artifact("a?", b"", URL)]}, "artifacts[0].path"),
        ({"artifacts": [artifact("a./b", b"", URL)]}, "artifacts[0].path"),
    ],
)
def test_what_is_unwise(shelf: Shelf, change: dict[str, Any], key: str) -> None:
    shelf.add("odd", **({"artifacts": [artifact("a", b"", URL)]} | GOOD | change))
    report = found(shelf)
    assert report.errors == ()
    assert keys(report.warnings) == [("odd.toml", key)]


def test_plain_http_to_this_machine_is_fine(shelf: Shelf) -> None:
    add(shelf, "here", artifact("a", b"", "http://127.0.0.1:8000/a", "http://localhost/a"))
    assert found(shelf) == Report((), ())


def test_aliases(shelf: Shelf) -> None:
    shelf.write("a.toml", {"see": "nothing"})
    shelf.write("b.toml", {"see": "a"})
    shelf.write("c.toml", {"see": "c"})
    shelf.write("d.toml", {"see": "../x"})
    shelf.write("e.toml", {"see": "good"})
    shelf.write("good@2.toml", {"see": "good"})
    add(shelf, "e", file="e@1.toml")
    assert keys(found(shelf).errors) == [
        ("a.toml", "see"),
        ("b.toml", "see"),
        ("c.toml", "see"),
        ("d.toml", "see"),
        ("e.toml", "see"),
        ("good@2.toml", "see"),
    ]


def test_versions(shelf: Shelf) -> None:
    add(shelf, "good", file="good@2.toml", version="3")
    add(shelf, "x", artifact("a", b"one", URL))
    add(shelf, "x", artifact("a", b"two", URL), file="x@1.toml")
    add(shelf, "y")
    add(shelf, "y", file="y@1.toml", summary="other words are fine")
    report = found(shelf)
    assert keys(report.errors) == [("good@2.toml", "version"), ("x@1.toml", "version")]
    assert report.warnings == ()


def test_versions_without_a_current_one_and_alike(shelf: Shelf) -> None:
    add(shelf, "x", file="x@1a.toml", version="1a")
    add(shelf, "good", file="good@0a.toml", version="0a")
    add(shelf, "good", file="good@0A.toml", version="0A")
    assert keys(found(shelf).warnings) == [("good@0a.toml", "version"), ("x@1a.toml", "")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"bytes and more"), "14 bytes, not 5"),
        (lambda path: path.write_bytes(b"BYTES"), "is not sha256"),
    ],
)
def test_blobs(shelf: Shelf, spoil: Callable[[Path], object], message: str) -> None:
    add(shelf, "held", artifact("a", b"bytes", blob=True))
    spoil(put(shelf, b"bytes"))
    (error,) = found(shelf).errors
    assert (error.file, error.key) == ("held.toml", "artifacts[0].blob")
    assert message in error.message


def test_the_other_hashes_of_a_blob(shelf: Shelf) -> None:
    add(shelf, "held", artifact("a", b"bytes", blob=True, checksums=[md5(b"other")]))
    put(shelf, b"bytes")
    (error,) = found(shelf).errors
    assert error.message.endswith(f"is not {md5(b'other')}")


def test_strays(shelf: Shelf) -> None:
    stray = put(shelf, b"nobody's").relative_to(shelf.folder)
    (shelf.folder / "blobs" / "note.txt").write_text("x")
    report = found(shelf)
    assert report.errors == ()
    assert keys(report.warnings) == [("blobs/note.txt", ""), (stray.as_posix(), "")]
    (shelf.folder / "good.toml").write_text("broken")
    assert found(shelf).warnings == ()  # they may be the ones that it means


def manifest(shelf: Shelf, *lines: dict[str, Any], **keys: Any) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    data = gzip.compress(text.encode(), mtime=0)
    table = {"hash": sha256(data), "size": len(data), "blob": True} | keys
    put(shelf, data)
    shelf.write("many.toml", {"version": "1", **GOOD, "manifest": table})


def test_manifests(shelf: Shelf) -> None:
    line = {"path": "a", "size": 1, "hash": sha256(b"a")}
    manifest(shelf, line, base_urls=["https://h/"])
    assert found(shelf) == Report((), ())
    manifest(shelf, line, line | {"path": "A"}, base_urls=["https://h/"])
    (error,) = found(shelf).errors
    assert (error.file, error.key) == ("many.toml", "manifest")
    assert "line 2" in error.message


def test_what_is_unwise_in_a_manifest(shelf: Shelf) -> None:
    lines = [{"path": f"{number}", "hash": md5(b"")} for number in range(3)]
    manifest(
        shelf,
        *lines,
        {"path": "x", "hash": sha256(b""), "urls": ["http://h/x"]},
        base_urls=["https://h"],
    )
    report = found(shelf)
    assert report.errors == ()
    warnings = [each for each in report.warnings if each.file == "many.toml"]
    assert [(each.key, each.message.partition(":")[0]) for each in warnings] == [
        ("manifest.base_urls[0]", "paths are appended as they are"),
        ("manifest", "4 lines with no size"),
        ("manifest", "3 lines with only a weak hash"),
        ("manifest", "1 lines with http"),
    ]


def test_the_index(shelf: Shelf) -> None:
    write_index(str(shelf.folder))
    assert found(shelf) == Report((), ())
    add(shelf, "more")
    assert keys(found(shelf).warnings) == [("index.json", "")]
    (shelf.folder / "index.json").write_text("{")
    assert keys(found(shelf).errors) == [("index.json", "")]
