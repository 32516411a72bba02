"""Writing registries: what is written is read back, and what a version holds never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dscache import settings
from dscache.call import Call
from dscache.errors import DscacheError, InvalidFile, NotFound, StorageError, UsageError
from dscache.model import Dataset, Reference
from dscache.registry import author
from dscache.registry.author import Draft
from dscache.registry.check import check
from dscache.registry.rendering import with_key
from dscache.registry.tables import load_toml

WORDS = {"license": "MIT", "homepage": "https://example.org", "summary": 'Some "words".'}


@pytest.fixture
def folder(home: Path) -> Path:
    """A new registry, in the user's configuration."""
    author.init(str(home / "team"), "team", "The team's")
    (home / "config.toml").write_text(f'[registries]\nteam = "{home / "team"}"')
    return home / "team"


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "a b.csv"
    path.write_bytes(b"some bytes")
    return path


def nothing(url: str) -> tuple[str, int, str]:
    raise AssertionError(f"{url} must not be fetched")


def new(folder: Path, draft: Draft, *sources: object) -> str:
    return author.new(str(folder), draft, [str(source) for source in sources], nothing)


def find(reference: str) -> Dataset:
    with Call(settings.load(), lambda event: None) as call:
        return call.lookup.find(Reference.parse(reference))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def blobs(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


def test_a_new_registry(folder: Path) -> None:
    text = (folder / "registry.toml").read_text()
    assert text == 'format = 1\nname = "team"\ntitle = "The team\'s"\n'
    with pytest.raises(StorageError):
        author.init(str(folder), "other")
    assert (folder / "registry.toml").read_text() == text
    with pytest.raises(UsageError):
        author.init(str(folder / "x"), "No Name")
    assert check(str(folder)).errors == ()


def test_a_local_file_is_taken_in(folder: Path, file: Path) -> None:
    assert new(folder, Draft("crops", **WORDS), file) == "crops.toml"
    digest = hashlib.sha256(b"some bytes").hexdigest()
    assert (folder / "crops.toml").read_text() == (
        'version = "1"\nsummary = "Some \\"words\\"."\nlicense = "MIT"\n'
        'homepage = "https://example.org"\n\n[[artifacts]]\npath = "a b.csv"\nsize = 10\n'
        f'hash = "sha256:{digest}"\nblob = true\n'
    )
    blob = folder / "blobs" / "sha256" / digest[:2] / digest[2:]
    assert blob.read_bytes() == b"some bytes"
    assert blobs(folder) == [blob]
    assert file.read_bytes() == b"some bytes"
    assert check(str(folder)) == check(str(folder)).__class__((), ())
    assert find("crops").artifacts[0].urls == (blob.as_uri(),)


@pytest.mark.parametrize("base", ["https://h/data", "https://h/data/", "https://h/get?file="])
def test_a_local_file_that_is_elsewhere(folder: Path, file: Path, base: str) -> None:
    new(folder, Draft("crops", base_url=base, unpack="zip"), file)
    (artifact,) = find("crops").artifacts
    slash = "/" if base == "https://h/data" else ""
    assert artifact.urls == (f"{base}{slash}a%20b.csv",)
    assert (artifact.size, artifact.unpack) == (10, "zip")
    assert not (folder / "blobs").exists()


def test_a_url_is_fetched_for_its_hash(folder: Path) -> None:
    asked = []

    def fetch(url: str) -> tuple[str, int, str]:
        asked.append(url)
        return "/somewhere", 7, "ab" * 32

    url = "https://h/x/a%20b.csv?version=2"
    author.new(str(folder), Draft("crops", version="2012"), [url], fetch)
    assert asked == [url]
    (artifact,) = find("crops@2012").artifacts
    assert (artifact.path, artifact.size, artifact.urls) == ("a b.csv", 7, (url,))
    assert str(artifact.hash) == "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("https://u:p@h/a", InvalidFile),
        ("https://h/a?sig=x", InvalidFile),
        ("gopher://h/a", InvalidFile),
        ("https://h/", UsageError),
        ("nothing.csv", UsageError),
        (".", UsageError),
    ],
)
def test_sources_that_are_refused(folder: Path, source: str, error: type[DscacheError]) -> None:
    with pytest.raises(error):
        new(folder, Draft("crops"), source)
    assert names(folder) == ["registry.toml"]


def test_wrong_names() -> None:
    for name, version in (("No", "1"), ("con", ""), ("a", "b c"), ("", "")):
        with pytest.raises(UsageError):
            Draft(name, version)


def test_a_folder_that_is_no_registry(home: Path, file: Path) -> None:
    with pytest.raises(InvalidFile, match=r"registry\.toml"):
        new(home, Draft("crops"), file)


def test_a_version_keeps_its_content(folder: Path, file: Path) -> None:
    new(folder, Draft("crops", **WORDS), file)
    before = (folder / "crops.toml").read_bytes()
    new(folder, Draft("crops"), file)
    assert (folder / "crops.toml").read_bytes() == before
    new(folder, Draft("crops", version="1", summary="Better.", base_url="https://h/"), file)
    found = find("crops")
    assert (found.summary, found.license) == ("Better.", "MIT")
    assert found.artifacts[0].urls[1:] == ("https://h/a%20b.csv",)
    after = (folder / "crops.toml").read_bytes()
    file.write_bytes(b"other bytes")
    for version in ("", "1"):
        with pytest.raises(InvalidFile, match=r"crops@1 .*other content") as failure:
            new(folder, Draft("crops", version=version), file)
        assert "--version" in failure.value.hint
    assert (folder / "crops.toml").read_bytes() == after
    assert len(blobs(folder)) == 1  # what was copied for nothing is gone again


def test_versions_follow_one_another(folder: Path, file: Path) -> None:
    new(folder, Draft("crops", **WORDS), file)
    (folder / "crops.toml").write_text("# by hand\n" + (folder / "crops.toml").read_text())
    first = (folder / "crops.toml").read_bytes()
    file.write_bytes(b"other bytes")
    assert new(folder, Draft("crops", version="2", **WORDS), file) == "crops.toml"
    assert (folder / "crops@1.toml").read_bytes() == first
    assert find("crops").version == "2"
    assert find("crops@1").content != find("crops@2").content
    assert check(str(folder)).errors == ()
    with pytest.raises(InvalidFile):
        new(folder, Draft("crops", version="1"), file)
    file.write_bytes(b"some bytes")
    assert new(folder, Draft("crops", version="1", summary="Old."), file) == "crops@1.toml"
    assert find("crops@1").summary == "Old."
    assert find("crops").version == "2"


def test_a_name_that_is_an_alias(folder: Path, file: Path) -> None:
    (folder / "crops.toml").write_text('see = "plants"')
    with pytest.raises(InvalidFile, match="plants"):
        new(folder, Draft("crops"), file)
    assert blobs(folder) == []


def test_files_of_one_name_collide(folder: Path, file: Path, home: Path) -> None:
    (home / "x").mkdir()
    other = home / "x" / "A B.csv"
    other.write_bytes(b"other")
    with pytest.raises(InvalidFile, match="cannot both be stored"):
        new(folder, Draft("crops"), file, other)
    assert blobs(folder) == []


def test_yank(folder: Path, file: Path) -> None:
    new(folder, Draft("crops", **WORDS), file)
    (folder / "crops.toml").write_text("# by hand\n" + (folder / "crops.toml").read_text())
    assert author.yank(str(folder), "crops", "1", 'wrong "labels"') == ["crops.toml"]
    assert find("crops").yanked == 'wrong "labels"'
    assert (folder / "crops.toml").read_text().startswith("# by hand\nversion")
    author.yank(str(folder), "crops", "1", "still")
    assert find("crops").yanked == "still"
    for name, version in (("crops", "2"), ("corps", "1")):
        with pytest.raises(NotFound):
            author.yank(str(folder), name, version, "x")


@pytest.mark.parametrize("reason", ["", " ", "a \x1b[31m red one", "no \udcff text"])
def test_nothing_is_written_that_could_not_be_read(folder: Path, file: Path, reason: str) -> None:
    new(folder, Draft("crops", **WORDS), file)
    with pytest.raises(UsageError):
        author.yank(str(folder), "crops", "1", reason)
    assert find("crops").yanked == ""
    if reason.strip():
        with pytest.raises(UsageError):
            author.init(str(folder / "other"), "other", reason)
        with pytest.raises(InvalidFile):
            new(folder, Draft("other", summary=reason), file)
    assert not check(str(folder)).errors


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'version = "1"\nyanked = "no" # why\n', b'version = "1"\nyanked = "yes"\n'),
        (b'version = "1" # x\n[[a]]\n', b'version = "1" # x\nyanked = "yes"\n[[a]]\n'),
        (b'yanked = """\nyanked = 3\n"""\n', None),
        (b'x = """\nversion = "1"\n"""\n', None),
        (b'"version" = "1"\n', None),
        (b'[x]\nversion = "1"\n', None),
    ],
)
def test_one_text_is_changed_or_none(before: bytes, after: bytes | None) -> None:
    found = with_key(before, "yanked", "yes")
    assert found == after
    if after:
        assert load_toml(after)["yanked"] == "yes"


def index(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "index.json").read_bytes())
    return found


def test_the_index(folder: Path, file: Path) -> None:
    new(folder, Draft("crops", **WORDS), file)
    (folder / "plants.toml").write_text('see = "crops"')
    assert author.write_index(str(folder))
    digest = find("crops").content
    assert index(folder) == {
        "format": 1,
        "serial": 1,
        "datasets": {
            "crops": {
                "version": "1",
                "versions": ["1"],
                "size": 10,
                "summary": 'Some "words".',
                "aliases": ["plants"],
                "digest": f"sha256:{digest}",
            }
        },
    }
    before = (folder / "index.json").stat()
    assert not author.write_index(str(folder))
    assert (folder / "index.json").stat() == before
    file.write_bytes(b"other bytes")
    new(folder, Draft("crops", version="2"), file)
    assert author.write_index(str(folder))
    assert index(folder)["serial"] == 2
    assert index(folder)["datasets"]["crops"]["versions"] == ["1", "2"]  # type: ignore[index]


def test_a_text_of_several_lines_does_not_move_the_serial(folder: Path, file: Path) -> None:
    new(folder, Draft("crops", summary="One\nand two."), file)
    assert find("crops").summary == "One\nand two."
    assert author.write_index(str(folder))
    assert not author.write_index(str(folder))


def spoil_entry(folder: Path) -> None:
    (folder / "bad.toml").write_text("version = ")


def spoil_index(folder: Path) -> None:
    (folder / "index.json").write_text("{")


@pytest.mark.parametrize("spoil", [spoil_entry, spoil_index])
def test_no_index_of_what_is_broken(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    with pytest.raises(InvalidFile):
        author.write_index(str(folder))
