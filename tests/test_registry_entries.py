"""Entries: what is taken, what is refused as malformed or unsafe, and what comes out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.digest import Digest
from dscache.errors import DscacheError, InvalidFile, UnsafeError
from dscache.model import Artifact, Dataset
from dscache.registry.entries import Document, decode_header
from dscache.registry.rendering import toml
from dscache.registry.tables import MAX_ENTRY, load_toml

SHA256 = "sha256:" + "ab" * 32
MD5 = "md5:" + "cd" * 16
URL = "https://data.example.org/a.csv"
BASE = "https://registry.example.org/team/"


def entry(*artifacts: dict[str, Any], **keys: Any) -> bytes:
    """An entry of artifacts that are right but for the keys given."""
    right = {"path": "a.csv", "hash": SHA256, "urls": [URL]}
    tables = [{**right, **each} for each in artifacts or ({},)]
    return toml({"version": "1", **keys, "artifacts": tables}).encode()


def made(data: bytes, *, local: bool = False, base: str = BASE) -> Dataset:
    """The dataset of an entry that must have no problems."""
    document = Document(data, local=local)
    assert document.problems == ()
    return document.dataset("crops", "team", base)


def refused(data: bytes, *, local: bool = False) -> DscacheError:
    """The first error of an entry."""
    try:
        document = Document(data, local=local)
    except DscacheError as error:
        return error
    return document.problems[0].located("crops.toml")


def test_an_entry_with_every_key() -> None:
    found = made(
        entry(
            {
                "path": "x/a.tar",
                "size": 5,
                "checksums": [MD5],
                "urls": [URL, "data/a%20b.tar"],
                "blob": True,
                "manual": "Ask\nnicely.",
                "unpack": "tar",
                "unpack_to": "y",
                "note": "from the authors",
            },
            version="1.0",
            summary="s",
            license="MIT",
            homepage="h",
            citation="c",
            yanked="wrong labels",
        )
    )
    assert found.artifacts == (
        Artifact(
            path="x/a.tar",
            hash=Digest.parse(SHA256),
            size=5,
            checksums=(Digest.parse(MD5),),
            urls=(f"{BASE}blobs/sha256/ab/{'ab' * 31}", URL, f"{BASE}data/a%20b.tar"),
            manual="Ask\nnicely.",
            unpack="tar",
            unpack_to="y",
        ),
    )
    assert (found.version, found.summary, found.license) == ("1.0", "s", "MIT")
    assert (found.homepage, found.citation, found.yanked) == ("h", "c", "wrong labels")
    assert str(found.reference) == "team/crops@1.0"
    assert found.size == 5


def test_the_blob_may_have_its_sha256_among_the_checksums() -> None:
    found = made(entry({"hash": MD5, "checksums": [SHA256], "urls": [], "blob": True}))
    assert found.artifacts[0].urls == (f"{BASE}blobs/sha256/ab/{'ab' * 31}",)


def test_a_manifest() -> None:
    text = f"""
        version = "1"
        [manifest]
        hash = "{SHA256}"
        size = 7
        urls = ["lists/all.jsonl.gz"]
        base_urls = ["https://data.example.org/files/", "files/"]
    """
    manifest = made(text.encode()).manifest
    assert manifest
    assert manifest.file.urls == (f"{BASE}lists/all.jsonl.gz",)
    assert manifest.base_urls == ("https://data.example.org/files/", f"{BASE}files/")


def test_unknown_keys_are_told_and_ignored() -> None:
    document = Document(entry({"colour": 3}, authors=["me"]), local=False)
    assert document.unknown == ("authors", "artifacts[0].colour")
    assert document.problems == ()


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b", "..\\a", "C:\\a"])
@pytest.mark.parametrize("key", ["path", "unpack_to"])
def test_escaping_paths_are_unsafe(key: str, path: str) -> None:
    assert isinstance(refused(entry({"unpack": "tar", key: path})), UnsafeError)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "FILE:///x", "C:\\x", "c:/x"])
def test_local_files_are_unsafe_in_a_remote_registry(url: str) -> None:
    assert isinstance(refused(entry({"urls": [url]})), UnsafeError)


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("file:///data/a%20b", "file:///data/a%20b"),
        ("/data/a b#1?%41", "file:///data/a%20b%231%3F%2541"),
        ("C:\\data\\a", "file:///C:/data/a"),
        ("a", "file:///registry/a"),
    ],
)
def test_local_files_in_a_local_registry(url: str, absolute: str) -> None:
    found = made(entry({"urls": [url]}), local=True, base="file:///registry/")
    assert found.artifacts[0].urls == (absolute,)


@pytest.mark.parametrize(
    "url",
    ["../a", "a/../../b", "%2e%2e/a", "a/%2E%2E/%2e./b", "..\\a", "//other.org/a", "a/..%5cb"],
)
@pytest.mark.parametrize("local", [True, False])
def test_relative_urls_stay_inside(url: str, local: bool) -> None:
    assert isinstance(refused(entry({"urls": [url]}), local=local), UnsafeError)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@data.example.org/a",
        "https://secret@data.example.org/a",
        "https://data.example.org/a?X-Amz-Signature=secret",
        "https://data.example.org/a?sig=secret&se=2030",
        "https://data.example.org/a?x=1&access_token=secret",
        "https://data.example.org/a?token=",
        "ftp://user:secret@data.example.org/a",
        "data/a?signature=secret",
        "https://us\u2100er:secret@data.example.org/a",
        "https://user:secret@[data.example.org/a",
    ],
)
def test_credentials_are_refused_and_not_shown(url: str) -> None:
    error = refused(entry({"urls": [url]}))
    assert isinstance(error, InvalidFile)
    assert "secret" not in f"{error} {error.hint} {error.facts}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gopher://x/a",
        "https:///a",
        "https://",
        "https://x:port/a",
        "https://x/a b",
        "ftp:a",
        "https://x/a\nb",
        "https://x/\x7f",
        "file://host/x",
        "file:x",
        "javascript:alert(1)",
        "a\\b",
    ],
)
def test_what_is_no_url(url: str) -> None:
    assert isinstance(refused(entry({"urls": [url]}), local=True), InvalidFile)


@pytest.mark.parametrize(
    "url",
    [
        "https://x/a?file=1&key=2",
        "https://[::1]:8080/a",
        "http://x/a",
        "ftp://x/a",
        "sftp://x/a",
        "doi:10.5281/zenodo.4924875/a.csv",
        "HTTPS://x/a",
        "https://x/ä",
    ],
)
def test_urls(url: str) -> None:
    assert made(entry({"urls": [url]})).artifacts[0].urls == (url,)


def test_plain_http_needs_a_strong_hash() -> None:
    weak = {"hash": MD5, "urls": ["http://data.example.org/a"]}
    assert isinstance(refused(entry(weak)), InvalidFile)
    made(entry({**weak, "checksums": [SHA256]}))
    made(entry({**weak, "urls": ["http://127.0.0.1:8080/a", "https://data.example.org/a"]}))


@pytest.mark.parametrize(
    ("artifact", "key"),
    [
        ({"hash": "sha256:abc"}, "artifacts[0].hash"),
        ({"hash": ""}, "artifacts[0].hash"),
        ({"checksums": ["crc:00"]}, "artifacts[0].checksums[0]"),
        ({"size": -1}, "artifacts[0].size"),
        ({"size": 2**63}, "artifacts[0].size"),
        ({"size": "5"}, "artifacts[0].size"),
        ({"urls": []}, "artifacts[0]"),
        ({"urls": "https://x/a"}, "artifacts[0].urls"),
        ({"hash": MD5, "blob": True}, "artifacts[0].blob"),
        ({"unpack": "7z"}, "artifacts[0].unpack"),
        ({"unpack": "rar"}, "artifacts[0].unpack"),
        ({"unpack": "auto", "path": "a.7z"}, "artifacts[0].unpack"),
        ({"path": "CON"}, "artifacts[0].path"),
        ({"path": "a\x1bb"}, "artifacts[0].path"),
        ({"manual": "\x1b[2J"}, "artifacts[0].manual"),
    ],
)
def test_malformed_artifacts(artifact: dict[str, Any], key: str) -> None:
    error = refused(entry(artifact))
    assert isinstance(error, InvalidFile)
    assert error.facts["key"] == key
    assert key in str(error)


def test_unknown_recipes_say_what_to_do() -> None:
    assert "7z" in refused(entry({"unpack": "7z"})).hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"version = ",
        b"version = 1",
        b"version = 2012-01-01",
        b'version = "1"',
        b'version = "a b"\n' + entry()[len(b'version = "1"\n') :],
        b'version = "1"\nartifacts = 3',
        b'version = "1"\nartifacts = [3]',
        b'version = "1"\nmanifest = []',
        entry() + b'\n[manifest]\nhash = "' + SHA256.encode() + b'"\nurls = ["x"]\n',
        b'version = "1"\n[manifest]\nhash = "' + SHA256.encode() + b'"\n',
        b'see = "../../secret"',
        b'see = "a/b"',
        b"see = 3",
        b"<!DOCTYPE html><html></html>",
        b"a = " + b"[" * 100_000,
        b"size = " + b"1" * 5000,
        b"a" + b".a" * 100_000 + b" = 1",
        b"[" + b'"a" . ' * 100_000 + b"a]",
        entry(summary="\x07"),
    ],
)
def test_malformed_files(data: bytes) -> None:
    assert isinstance(refused(data), InvalidFile)


def test_a_web_page_is_called_one() -> None:
    assert "web page" in refused(b" <html>").hint


def test_hostile_text_costs_little() -> None:
    for data in (b"a" + b".a" * (MAX_ENTRY // 2 - 3) + b"=1", b"#" * (MAX_ENTRY + 1), b'"' * 10**6):
        began = time.perf_counter()
        assert isinstance(refused(data), InvalidFile)
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    "artifacts",
    [
        [{"path": "a"}, {"path": "a"}],
        [{"path": "a"}, {"path": "A"}],
        [{"path": "a"}, {"path": "a/b"}],
        [{"path": "a.csv"}, {"path": "a.csv.gz", "unpack": "gzip"}],
        [{"path": "x/a.gz", "unpack": "gzip"}, {"path": "X/A"}],
        [{"path": "x/a.gz", "unpack": "gzip", "unpack_to": "y"}, {"path": "y/a"}],
        [{"path": "train"}, {"path": "a.zip", "unpack": "zip", "unpack_to": "train"}],
        [{"path": "train"}, {"path": "a.zip", "unpack": "zip", "unpack_to": "Train/x"}],
        [{"path": "a.zip", "unpack": "zip", "unpack_to": "a.zip"}],
    ],
)
def test_artifacts_that_would_collide(artifacts: list[dict[str, Any]]) -> None:
    assert "cannot both be stored" in str(refused(entry(*artifacts)))


def test_artifacts_that_would_not() -> None:
    made(
        entry(
            {"path": "a.tar", "unpack": "tar"},
            {"path": "b.tar", "unpack": "tar"},
            {"path": "c.zip", "unpack": "zip", "unpack_to": "x"},
            {"path": "x/d.csv"},
            {"path": "e.zip", "unpack": "zip", "unpack_to": "x"},
            {"path": "train/a.gz", "unpack": "gzip"},
            {"path": "test/a.gz", "unpack": "gzip"},
            {"path": "plain", "unpack": "xz"},
        )
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'name = "x"',
        b"format = 1",
        b'format = 2\nname = "x"\nmore = 3',
        b'format = "1"\nname = "x"',
        b'format = 1\nname = "X"',
        b'format = 1\nname = "registry"',
        b'format = 1\nname = "x"\ntitle = "\\u001b"',
    ],
)
def test_malformed_headers(data: bytes) -> None:
    with pytest.raises(InvalidFile):
        decode_header(data)


def test_a_header() -> None:
    assert decode_header(b'format = 1\nname = "x"\ntitle = "X"').title == "X"


SCRAP = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.sampled_from(
        ["../x", "/x", "file:///x", "CON", "https://a@b/", "http://h/\\", "7z", "md5:x"]
    ),
)
KEYS = ["version", "summary", "license", "homepage", "citation", "yanked", "see", "manifest", "x"]
ARTIFACT_KEYS = [
    "path",
    "hash",
    "size",
    "checksums",
    "urls",
    "blob",
    "manual",
    "unpack",
    "unpack_to",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid entry of which some keys were replaced, and perhaps some bytes."""
    right: dict[str, Any] = {"path": "a.csv", "hash": SHA256, "urls": [URL]}
    tables = [
        {**right, **draw(st.dictionaries(st.sampled_from(ARTIFACT_KEYS), SCRAP, max_size=3))}
        for _ in range(draw(st.integers(0, 3)))
    ]
    keys = draw(st.dictionaries(st.sampled_from(KEYS), SCRAP, max_size=3))
    data = bytearray(toml({"version": "1", **keys, "artifacts": tables}).encode("utf-8", "replace"))
    for place, byte in draw(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)):
        data[place % len(data)] = byte
    return bytes(data)


@given(mutated(), st.booleans())
def test_whatever_an_entry_holds_it_is_taken_or_refused(data: bytes, local: bool) -> None:
    try:
        document = Document(data, local=local)
    except InvalidFile:
        return
    if document.problems:
        assert all(problem.located("x").code in (7, 8) for problem in document.problems)
    elif not document.unknown and b"see" not in data:
        found = document.dataset("x", "r", BASE)
        for artifact in found.artifacts:
            assert Path("/root", artifact.path).is_relative_to("/root")
            assert all(":" in url for url in artifact.urls)
            assert local or not any(url.startswith("file:") for url in artifact.urls)


VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4),
)
TABLES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=5)


@given(TABLES, st.lists(TABLES, min_size=1, max_size=3), TABLES)
def test_what_is_written_is_read_back(
    table: dict[str, Any], artifacts: list[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    whole = {**table, "artifacts": artifacts, "manifest": manifest}
    assert load_toml(toml(whole).encode()) == whole


def test_written_files_are_good_to_read() -> None:
    text = entry(
        {"manual": 'Ask "them".\nThen "wait"\\.\n', "urls": ["https://a/" + "x" * 60, URL]}
    ).decode()
    assert 'version = "1"\n\n[[artifacts]]\npath = "a.csv"\n' in text
    assert 'manual = """\nAsk "them".\nThen "wait"\\\\.\n"""' in text
    assert f'urls = [\n    "https://a/{"x" * 60}",\n    "{URL}",\n]\n' in text
