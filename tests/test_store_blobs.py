"""Blobs: what is found is right, whatever happened to the disk; what is published is whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from dscache import filesystem
from dscache.digest import Digest
from dscache.errors import IntegrityError, StorageError
from dscache.store import SMALL, Store, key_of
from tests.children import unprivileged
from tests.making import content
from tests.stores import (
    boot,
    damaged,
    digest_of,
    faults_of,
    files_below,
    overwrite,
    publish,
    steps,
    sums_by,
)

LITTLE, LARGE = content(3000, 1), content(SMALL + 1, 2)
WRONG = content(SMALL + 1, 3)


@pytest.fixture
def store(home: Path) -> Store:
    made = Store(f"{home}/cache")
    made.prepare()
    return made


def proof_of(store: Store, data: bytes) -> Path:
    return Path(store.layout.proof(digest_of(data).hex))


@pytest.mark.parametrize("data", [b"", LITTLE, LARGE[:SMALL], LARGE], ids=len)
def test_what_is_published_is_found(store: Store, data: bytes) -> None:
    blob = publish(store, data)
    sha256 = digest_of(data)
    assert blob.path == f"{store.layout.root}/blobs/sha256/{sha256.hex[:2]}/{sha256.hex[2:]}"
    assert Path(blob.path).read_bytes() == data
    assert (blob.sha256, blob.size) == (sha256.hex, len(data))
    assert store.blobs.find([sha256]) == blob
    assert faults_of(store.layout.root) == []
    assert files_below(store.layout.parts) == []


def test_nothing_is_found_in_an_empty_store(store: Store) -> None:
    assert store.blobs.find([digest_of(LITTLE)]) is None
    assert store.blobs.find([digest_of(LITTLE, "md5")]) is None
    assert store.blobs.find([]) is None


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512", "xxh128", "blake2b"])
@pytest.mark.parametrize("data", [LITTLE, LARGE], ids=["small", "large"])
def test_a_blob_is_found_by_its_other_hash(store: Store, data: bytes, algorithm: str) -> None:
    other = digest_of(data, algorithm)
    assert store.blobs.find([other]) is None
    blob = publish(store, data, other)
    assert store.blobs.find([other]) == blob
    assert store.blobs.where(other)


def test_another_hash_is_learnt_when_it_is_asked_for_with_the_sha256(store: Store) -> None:
    blob = publish(store, LARGE)
    md5 = digest_of(LARGE, "md5")
    assert store.blobs.find([md5]) is None
    assert store.blobs.find([digest_of(LARGE), md5]) == blob
    assert store.blobs.find([md5]) == blob


def test_an_entry_with_sha256_never_trusts_an_alias(store: Store) -> None:
    md5 = digest_of(LITTLE, "md5")
    publish(store, LITTLE)
    other = publish(store, LARGE)
    filesystem.publish_bytes(f"{other.sha256}\n".encode(), store.layout.alias(md5))
    found = store.blobs.find([digest_of(LITTLE), md5])
    assert found is not None
    assert found.sha256 == digest_of(LITTLE).hex
    assert store.blobs.find([md5]) == found  # the alias was put right


def test_hashes_that_contradict_each_other_are_an_error(store: Store) -> None:
    publish(store, LITTLE)
    with pytest.raises(IntegrityError, match="md5") as found:
        store.blobs.find([digest_of(LITTLE), digest_of(LARGE, "md5")])
    assert found.value.code == 5
    assert store.blobs.find([digest_of(LITTLE)]) is not None


@pytest.mark.parametrize("data", [LITTLE, LARGE], ids=["small", "large"])
def test_a_torn_alias_is_as_good_as_none(store: Store, data: bytes) -> None:
    md5 = digest_of(data, "md5")
    publish(store, data, md5)
    alias = Path(store.layout.alias(md5))
    whole = alias.read_bytes()
    for torn in damaged(whole):
        if torn.strip() != whole.strip():
            overwrite(alias, torn)
            assert store.blobs.find([md5]) is None
    assert store.blobs.find([digest_of(data), md5]) is not None
    assert alias.read_bytes() == whole


def test_a_torn_proof_means_hashing(store: Store) -> None:
    blob = publish(store, LARGE)
    proof = proof_of(store, LARGE)
    for torn in damaged(proof.read_bytes()):
        overwrite(proof, torn)
        assert store.blobs.find([digest_of(LARGE)]) == blob
        assert json.loads(proof.read_bytes())["durable"]
    for torn in damaged(proof.read_bytes()):
        overwrite(proof, torn)
        overwrite(blob.path, WRONG)
        assert store.blobs.find([digest_of(LARGE)]) is None
        overwrite(blob.path, LARGE)


def test_a_large_blob_is_believed_while_its_boot_lasts(store: Store) -> None:
    blob = publish(store, LARGE)
    overwrite(blob.path, WRONG)  # nobody can see that without hashing, so it was not hashed
    assert store.blobs.find([digest_of(LARGE)]) == blob
    with boot("another"):
        assert store.blobs.find([digest_of(LARGE)]) is None


def test_after_a_restart_a_large_blob_is_hashed_once(store: Store) -> None:
    blob = publish(store, LARGE)
    with boot("another"):
        assert store.blobs.find([digest_of(LARGE)]) == blob
        assert json.loads(proof_of(store, LARGE).read_bytes())["durable"]
    overwrite(blob.path, WRONG)
    with boot("a third"):  # believed by the mark alone
        assert store.blobs.find([digest_of(LARGE)]) == blob


def test_a_blob_that_was_written_to_is_hashed(store: Store) -> None:
    blob = publish(store, LARGE)
    overwrite(blob.path, WRONG)
    os.utime(blob.path)
    assert store.blobs.find([digest_of(LARGE)]) is None
    overwrite(blob.path, LARGE[:-1])
    assert store.blobs.find([digest_of(LARGE)]) is None


def test_a_small_blob_is_always_hashed(store: Store) -> None:
    blob = publish(store, LITTLE)
    for torn in (b"", LITTLE[:-1], LITTLE + b"x", bytes(len(LITTLE))):
        overwrite(blob.path, torn)
        assert store.blobs.find([digest_of(LITTLE)]) is None


@pytest.mark.parametrize("data", [LITTLE, LARGE], ids=["small", "large"])
def test_a_damaged_blob_is_replaced_by_the_right_one(store: Store, data: bytes) -> None:
    blob = publish(store, data)
    overwrite(blob.path, bytes(len(data)))
    os.utime(blob.path)
    assert store.blobs.find([digest_of(data)]) is None
    assert publish(store, data) == blob
    assert store.blobs.find([digest_of(data)]) == blob
    assert faults_of(store.layout.root) == []


def test_the_rename_is_the_last_step(store: Store) -> None:
    with steps() as taken:
        publish(store, LARGE, digest_of(LARGE, "md5"))
    targets = [Path(arguments[1]) for name, arguments in taken if name == "rename"]
    kinds = [target.relative_to(store.layout.root).parts[0] for target in targets]
    assert list(dict.fromkeys(kinds)) == ["parts", "aliases", "proofs", "blobs"]


def test_a_small_blob_takes_three_steps(store: Store) -> None:
    publish(store, LITTLE)
    Path(store.layout.blob(digest_of(LITTLE).hex)).unlink()
    with steps() as taken:
        publish(store, LITTLE)
    assert [name for name, _ in taken] == ["create", "write", "rename"]


def test_durable_means_synced_before_and_after_the_rename(home: Path) -> None:
    store = Store(f"{home}/cache", durability="sync")
    store.prepare()
    for data in (LITTLE, LARGE):
        with steps() as taken:
            blob = publish(store, data)
        names = [name for name, _ in taken]
        moved = max(number for number, (name, _) in enumerate(taken) if name == "rename")
        assert taken[moved][1][1] == blob.path
        assert {"sync", "sync_path"} & set(names[:moved])
        assert taken[moved + 1 :][0] == ("sync_path", (os.path.dirname(blob.path),))
    with boot("another"):
        overwrite(Path(store.layout.blob(digest_of(LARGE).hex)), WRONG)
        assert store.blobs.find([digest_of(LARGE)]) is not None  # durable: believed


def test_where_boots_have_no_names_everything_is_synced(home: Path) -> None:
    with boot(""):
        store = Store(f"{home}/cache")
        assert store.durable
        store.prepare()
        blob = publish(store, LARGE)
        assert store.blobs.find([digest_of(LARGE)]) == blob


@pytest.mark.parametrize("data", [LITTLE, LARGE], ids=["small", "large"])
def test_a_rename_that_fails_publishes_nothing(
    store: Store, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = filesystem.rename

    def full(source: str, target: str) -> None:
        if "/blobs/" in target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(filesystem, "rename", full)
    with pytest.raises(OSError, match="space"):
        publish(store, data, digest_of(data, "md5"))
    monkeypatch.undo()
    assert store.blobs.find([digest_of(data)]) is None
    assert store.blobs.find([digest_of(data, "md5")]) is None
    assert publish(store, data) == store.blobs.find([digest_of(data)])


def test_syncing_again_is_not_needed(store: Store) -> None:
    blob = publish(store, LARGE)
    with steps() as first:
        store.blobs.sync(blob)
    with steps() as second:
        store.blobs.sync(blob)
    assert ("sync_path", (blob.path,)) in first
    assert second == []


def test_verify_looks_at_every_byte(store: Store) -> None:
    blob = publish(store, LARGE)
    told = blob.sha256, blob.size, blob.xxh3_128
    assert store.blobs.verify(*told) == blob
    overwrite(blob.path, LARGE[:-1] + bytes([LARGE[-1] ^ 1]))
    assert store.blobs.verify(*told) is None
    overwrite(blob.path, LARGE[:-1])
    assert store.blobs.verify(*told) is None
    Path(blob.path).unlink()
    assert store.blobs.verify(*told) is None


def test_a_cache_that_cannot_be_written_is_read_all_the_same(store: Store) -> None:
    blob = publish(store, LARGE)
    proof_of(store, LARGE).unlink()
    folders = [store.layout.root, *(str(each) for each in Path(store.layout.root).rglob("*"))]
    for folder in folders:
        if os.path.isdir(folder):
            os.chmod(folder, 0o555)
    try:
        wanted = [digest_of(LARGE), digest_of(LARGE, "md5")]
        assert unprivileged(lambda: store.blobs.find(wanted)) == blob
    finally:
        for folder in folders:
            if os.path.isdir(folder):
                os.chmod(folder, 0o755)
    assert not proof_of(store, LARGE).exists()


def test_a_blob_that_cannot_be_read_is_an_error_of_storage(store: Store) -> None:
    blob = publish(store, LITTLE)
    os.chmod(blob.path, 0)

    def find() -> None:
        with pytest.raises(StorageError, match="Permission denied"):
            store.blobs.find([digest_of(LITTLE)])
        with pytest.raises(StorageError, match="Permission denied"):
            store.blobs.verify(blob.sha256, blob.size, blob.xxh3_128)

    unprivileged(find)


def test_publishing_twice_at_once_ends_in_one_right_file(store: Store) -> None:
    key = key_of(digest_of(LARGE))
    first, second = store.parts().begin(key, len(LARGE)), store.parts().begin(key, len(LARGE))
    for part in (first, second):
        part.write([LARGE])
        part.close()
    sums = sums_by(LARGE)
    blob = store.blobs.publish_file(first.path, first.size, sums)
    assert store.blobs.publish_file(second.path, second.size, sums) == blob
    assert store.blobs.find([digest_of(LARGE)]) == blob
    assert faults_of(store.layout.root) == []


def test_xxh128_is_another_name_of_xxh3_128(store: Store) -> None:
    blob = publish(store, LITTLE)
    with steps() as taken:
        both = [Digest("xxh128", blob.xxh3_128), Digest("xxh3_128", blob.xxh3_128)]
        assert store.blobs.find([digest_of(LITTLE), *both]) == blob
    assert taken == []
