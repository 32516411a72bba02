"""The glance that lets most artifacts through lets none through that breaks a rule."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dscache.registry import rules
from dscache.registry.tables import ArtifactEntry

_HEX = "0123456789abcdef"
_PARTS = (
    "a",
    "b-c.bin",
    "..",
    ".",
    "",
    "con",
    "NUL.txt",
    "com1",
    "é",
    "a b",
    "x" * 256,
    "\\",
    "C:",
)
_PATHS = [
    "/".join(parts) for count in (1, 2, 3) for parts in itertools.product(_PARTS, repeat=count)
]
_HASHES = [
    prefix + value
    for prefix in ("", "sha256:", "SHA256:", "md5:", "crc32:")
    for value in (_HEX * 4, _HEX.upper() * 4, _HEX * 2, "g" * 64, "a" * 63, "a" * 64 + "\n", "")
]
_URLS = [
    "".join(parts)
    for parts in itertools.product(
        ("https://", "http://", "HTTPS://", "ftp://", "file://", "gopher://", "//", ""),
        ("host", "user@host", "u:p@host", "", "127.0.0.1", "[::1]", "ho st", "host:x"),
        ("", ":", ":0", ":080", ":59999", ":60000", ":65535", ":65536", ":99999"),
        ("", "/", "/a/b.bin", "/a/../b", "/a?token=1", "/a b", "/a\n", "/a\\b", "/%2e%2e", "/é"),
    )
]


def entry(**keys: Any) -> ArtifactEntry:
    """An artifact that breaks no rule, but for `keys`."""
    good: dict[str, Any] = {"path": "a.bin", "hash": "a" * 64, "urls": ["https://example.org/a"]}
    return ArtifactEntry(**(good | keys))


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("path", _PATHS),
        ("hash", _HASHES),
        ("urls", [[], *([url] for url in _URLS)]),
        ("checksums", [[text] for text in _HASHES]),
        ("unpack", ["tar", "rar"]),
        ("unpack_to", ["folder", ".."]),
        ("manual", ["ask", "\x1b"]),
        ("note", ["said so", "\x00"]),
    ],
)
def test_what_a_glance_lets_through_breaks_no_rule(
    key: str, values: list[Any], local: bool
) -> None:
    for value in values:
        each = entry(**{key: value})
        if rules._is_plain(each):
            assert list(rules._artifact_problems(each, "artifacts[0]", local)) == [], value


@pytest.mark.parametrize("only_weak", [True, False])
@pytest.mark.parametrize("local", [True, False])
def test_a_plain_url_is_judged_as_one_that_is_not(local: bool, only_weak: bool) -> None:
    for url in _URLS:
        if url and "?" not in url:
            at_a_glance = rules.url_error(url, local=local, only_weak=only_weak)
            at_length = rules.url_error(f"{url}?a", local=local, only_weak=only_weak)
            assert (at_a_glance is None) == (at_length is None), url


def test_what_most_entries_hold_is_told_by_a_glance() -> None:
    assert rules._is_plain(entry(path="train/0001.png", urls=["http://127.0.0.1:35127/a/1.png"]))
    assert rules._is_plain(entry(hash=f"sha256:{_HEX * 4}", blob=True))
