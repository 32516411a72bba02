"""Digests: Pooch's grammar, the lengths, and the same values as hashlib and Pooch compute."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.digest import HEX_LENGTH, Digest, Sums, hasher, sums_of
from dscache.errors import UsageError
from tests.making import content

ALGORITHMS = st.sampled_from(sorted(HEX_LENGTH))


@st.composite
def digests(draw: st.DrawFn) -> Digest:
    algorithm = draw(ALGORITHMS)
    length = HEX_LENGTH[algorithm]
    return Digest(algorithm, draw(st.text("0123456789abcdef", min_size=length, max_size=length)))


@given(digests())
def test_digests_are_read_as_they_are_written(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert Digest.parse(f" {str(digest).upper()}\n") == digest


def test_sha256_needs_no_name() -> None:
    assert Digest.parse("AB" * 32) == Digest("sha256", "ab" * 32)


@given(st.text() | st.tuples(ALGORITHMS, st.text("0123456789abcdefgG ")).map(":".join))
def test_what_is_taken_for_a_digest_is_one(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except UsageError:
        return
    assert len(bytes.fromhex(digest.hex)) * 2 == HEX_LENGTH[digest.algorithm]
    assert str(digest).endswith(text.strip().lower())


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:abc", "crc32:00000000", "md5:" + "g" * 32, "sha256:é" + "0" * 63],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(UsageError):
        Digest.parse(text)


@pytest.mark.parametrize("algorithm", sorted(HEX_LENGTH))
def test_lengths_are_those_of_the_hashers(algorithm: str) -> None:
    assert len(hasher(algorithm).hexdigest()) == HEX_LENGTH[algorithm]


def test_pooch_computes_the_same(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content(100_000))
    algorithms = ["md5", "sha1", "sha512", "blake2b", "xxh128", "xxh64"]
    sums = sums_of(str(file), algorithms)
    for algorithm in ["sha256", *algorithms]:
        assert sums[algorithm] == pooch.file_hash(str(file), alg=algorithm)


def test_strong_and_weak() -> None:
    weak = {name for name, length in HEX_LENGTH.items() if Digest(name, "0" * length).weak}
    assert weak == {"md5", "sha1", *(name for name in HEX_LENGTH if name.startswith("xxh"))}


def test_the_first_hash_that_does_not_match_is_told() -> None:
    sums = Sums(["md5"])
    sums.update(b"ab")
    sums.update(memoryview(b"c"))
    right = Digest("sha256", hashlib.sha256(b"abc").hexdigest())
    wrong = Digest("md5", "0" * 32)
    assert sums.mismatch([right]) is None
    assert sums.mismatch([right, wrong]) == wrong


def test_a_large_file_and_an_empty_one(tmp_path: Path) -> None:
    for size in (0, 1, (1 << 20) + 1):
        file = tmp_path / "file"
        file.write_bytes(content(size))
        assert sums_of(str(file))["sha256"] == hashlib.sha256(content(size)).hexdigest()
