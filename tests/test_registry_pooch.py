"""Pooch's registry files, in both directions, by the word of Pooch itself."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache import settings
from dscache.call import Call
from dscache.digest import Digest
from dscache.errors import DscacheError, InvalidFile, NotFound
from dscache.model import Artifact, Dataset, Reference, check_path
from dscache.registry import author
from dscache.registry import pooch as pooch_files
from dscache.registry.author import Draft
from tests.making import content, sha256
from tests.origin import origin

SHA256 = "ab" * 32
MD5 = "md5:" + "cd" * 16


def write(folder: Path, text: str) -> str:
    path = folder / "registry.txt"
    path.write_text(text, "utf-8")
    return str(path)


def test_a_pooch_registry(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"# comment\n\na.csv {SHA256}\n'x/b c.csv' {MD5.upper()} https://h/b c.csv\n"
        f"d.csv sha512:{'0' * 128} doi:10.5281/zenodo.1/d#1.csv\n".replace("b c.csv\n", "b.csv\n"),
    )
    found = pooch_files.read(file, "https://data.example.org/v1", unpack="zip")
    assert [(each.path, each.hash, each.urls) for each in found] == [
        ("a.csv", SHA256, ["https://data.example.org/v1/a.csv"]),
        ("x/b c.csv", MD5, ["https://h/b.csv"]),
        ("d.csv", "sha512:" + "0" * 128, ["doi:10.5281/zenodo.1/d%231.csv"]),
    ]
    assert {each.unpack for each in found} == {"zip"}


@pytest.mark.parametrize("text", ["a.csv\n", "a b c d\n", "'a b\n", "\xff"])
def test_what_is_no_pooch_registry(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registry.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidFile):
        pooch_files.read(str(path), "https://h/")
    with pytest.raises(NotFound):
        pooch_files.read(str(tmp_path / "nothing"), "https://h/")


@pytest.mark.parametrize("line", [f"../a {SHA256}", "a crc32:00", "a abc", f"a {MD5} http://h/a"])
def test_what_pooch_takes_and_we_do_not(home: Path, line: str) -> None:
    author.init(str(home / "team"), "team")
    with pytest.raises(DscacheError) as failure:
        author.new_from_pooch(
            str(home / "team"), Draft("x", base_url="https://h/"), write(home, line)
        )
    assert failure.value.code in (7, 8)
    assert not (home / "team" / "x.toml").exists()


def test_without_a_base_url_each_file_needs_its_own(home: Path) -> None:
    author.init(str(home / "team"), "team")
    with pytest.raises(InvalidFile, match="no source"):
        author.new_from_pooch(str(home / "team"), Draft("x"), write(home, f"a {SHA256}"))


def test_what_pooch_wrote_pooch_reads_again_and_fetches(home: Path) -> None:
    """From files on a server to Pooch's registry, to ours, to Pooch's again, to the same files."""
    source = home / "source"
    for number, name in enumerate(["a.csv", "deep/er/b.csv", "c's.txt"]):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(100, number))
    served = {f"/{path.relative_to(source)}": path.read_bytes() for path in source.rglob("*.*")}
    with origin(served) as site:
        listed = [f'"{name[1:]}" {sha256(data)}\n' for name, data in served.items()]
        draft = Draft("crops", version="3", base_url=site.url("/"))
        author.init(str(home / "team"), "team")
        author.new_from_pooch(str(home / "team"), draft, write(home, "".join(listed)))
        (home / "config.toml").write_text(f'[registries]\nteam = "{home / "team"}"')
        with Call(settings.load(), lambda event: None) as call:
            dataset = call.lookup.find(Reference("crops"))
        text = pooch_files.export(dataset)
        assert text.startswith("# team/crops@3\n")
        reader = pooch.create(path=home / "pooch", base_url="https://unused.invalid/")
        reader.load_registry(write(home, text))
        assert sorted(reader.registry_files) == sorted(name[1:] for name in served)
        for name in reader.registry_files:
            assert Path(reader.fetch(name)).read_bytes() == served[f"/{name}"]
    shutil.rmtree(home / "pooch")


def test_urls_that_pooch_cannot_use_are_left_out() -> None:
    sha = Digest.parse(SHA256)
    artifacts = (
        Artifact("a", sha, urls=("file:///r/blobs/x", "https://h/a")),
        Artifact("b", sha, urls=("file:///r/blobs/x",)),
        Artifact("c", sha, manual="Ask."),
        Artifact("d", sha, urls=("doi:10.5281/zenodo.1/d%20e",)),
        Artifact("e", Digest.parse(MD5), checksums=(sha,), urls=("ftp://h/e%23",)),
    )
    text = pooch_files.export(Dataset("r", "n", "1", "", artifacts))
    assert text.splitlines()[1:] == [
        f"a sha256:{SHA256} https://h/a",
        f"b sha256:{SHA256}",
        f"c sha256:{SHA256}",
        f"d sha256:{SHA256} 'doi:10.5281/zenodo.1/d e'",
        f"e sha256:{SHA256} 'ftp://h/e#'",
    ]
    assert pooch_files.export(Dataset("r", "n", "1", ""), artifacts) == text


def is_path(text: str) -> bool:
    try:
        check_path(text)
    except DscacheError:
        return False
    return True


PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(is_path)


@given(st.lists(PATHS, min_size=1, max_size=5, unique=True))
def test_any_path_goes_through_pooch(paths: list[str]) -> None:
    digest = Digest.parse(SHA256)
    dataset = Dataset("r", "n", "1", "", tuple(Artifact(path, digest) for path in paths))
    reader = pooch.create(path=".", base_url="")
    reader.load_registry(io.StringIO(pooch_files.export(dataset)))
    assert reader.registry == dict.fromkeys(paths, f"sha256:{SHA256}")
