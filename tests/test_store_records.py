"""Records: the commit point of a fetch, read back as written or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from dscache.digest import Digest
from dscache.errors import StorageError
from dscache.model import Artifact, Dataset, content_of
from dscache.store import File, Record, Store
from dscache.store.owner import Boot, this_boot
from tests.children import unprivileged
from tests.stores import boot, damaged, overwrite, steps

FILES = tuple(File(f"folder/{n:04}.bin", f"{n:064x}", n, f"{n:032x}") for n in range(100))


def dataset(seed: str = "0", name: str = "data", version: str = "1") -> Dataset:
    artifacts = (Artifact("a", Digest("sha256", seed * 64)),)
    return Dataset("shelf", name, version, content_of(artifacts), artifacts)


def record(of: Dataset, **changes: object) -> Record:
    made = Record(
        registry=of.registry,
        name=of.name,
        version=of.version,
        content=of.content,
        complete=True,
        files=FILES,
        boot=this_boot(),
        durable=False,
        created="2024-01-01T00:00:00+00:00",
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def store(home: Path) -> Store:
    made = Store(f"{home}/cache")
    made.prepare()
    return made


def test_what_is_put_is_got(store: Store) -> None:
    assert store.records.get(dataset()) is None
    store.records.put(record(dataset()))
    found = store.records.get(dataset())
    assert found == record(dataset())
    assert found
    assert found.size == sum(range(100))


def test_other_content_is_another_record(store: Store) -> None:
    one, two = dataset("1"), dataset("2")
    store.records.put(record(one))
    assert store.records.get(two) is None
    store.records.put(record(two))
    assert store.records.get(one) == record(one)
    assert store.records.contents(one) == {one.content[:8], two.content[:8]}


def test_a_record_of_other_content_under_that_name_is_none(store: Store) -> None:
    """Two contents may begin with the same 8 digits."""
    one, two = dataset("1"), dataset("2")
    store.records.put(record(one))
    os.rename(store.records.path(one), store.records.path(two))
    assert store.records.get(two) is None


def test_a_torn_record_is_none(store: Store) -> None:
    store.records.put(record(dataset(), files=FILES[:3]))
    path = Path(store.records.path(dataset()))
    for torn in damaged(path.read_bytes()):
        overwrite(path, torn)
        assert store.records.get(dataset()) is None
        assert list(store.records.all()) == []
    store.records.put(record(dataset()))
    assert store.records.get(dataset()) == record(dataset())


def test_a_record_with_pages_of_zeros_is_none(store: Store) -> None:
    store.records.put(record(dataset()))
    path = Path(store.records.path(dataset()))
    whole = path.read_bytes()
    assert len(whole) > 8192
    for start in range(0, len(whole), 4096):
        page = whole[start : start + 4096]
        overwrite(path, whole[:start] + bytes(len(page)) + whole[start + len(page) :])
        assert store.records.get(dataset()) is None


def test_a_record_that_cannot_be_read_is_an_error_of_storage(store: Store) -> None:
    store.records.put(record(dataset()))
    os.chmod(store.records.path(dataset()), 0)

    def get() -> None:
        for read in (lambda: store.records.get(dataset()), lambda: list(store.records.all())):
            with pytest.raises(StorageError, match="Permission denied") as found:
                read()
            assert found.value.code == 6

    unprivileged(get)


def test_a_record_that_cannot_be_written_is_an_error_of_storage(store: Store) -> None:
    os.makedirs(f"{store.layout.records}/shelf", 0o555)

    def put() -> None:
        with pytest.raises(StorageError, match="record of data cannot be written"):
            store.records.put(record(dataset()))

    unprivileged(put)


def test_what_proves_bytes(store: Store) -> None:
    of = dataset()
    assert record(of).proven
    assert record(of, boot=None, durable=True).proven
    assert not record(of, boot=None).proven
    assert not record(of, boot=Boot("elsewhere", "0")).proven
    with boot("another"):
        assert record(of).proven
    assert not record(of, boot=Boot("elsewhere", "0")).proven
    here = record(of)
    with boot("another"):
        assert not here.proven
        assert msgspec.structs.replace(here, durable=True).proven
    with boot(""):
        assert not record(of).proven


def test_a_use_is_noted_once_a_minute(store: Store) -> None:
    store.records.put(record(dataset()))
    path = store.records.path(dataset())
    now = time.time()
    for before, noted in ((now - 30, False), (now - 90, True), (now + 90, True)):
        os.utime(path, (before, before))
        assert store.records.get(dataset())
        store.records.use(dataset())
        used = store.records.last_used(record(dataset()))
        assert (abs(used - before) > 1) is noted
        assert store.records.get(dataset()) == record(dataset())


def test_a_hit_looks_at_its_record_once(store: Store) -> None:
    store.records.put(record(dataset()))
    os.utime(store.records.path(dataset()), (time.time() - 30,) * 2)
    assert store.records.get(dataset())
    with steps() as taken:
        store.records.use(dataset())
    assert taken == []
    os.unlink(store.records.path(dataset()))
    store.records.use(dataset())


def test_a_use_that_cannot_be_noted_is_fine(store: Store) -> None:
    store.records.use(dataset())  # pruned meanwhile
    store.records.put(record(dataset()))
    path = store.records.path(dataset())
    os.utime(path, (1, 1))
    os.chmod(path, 0o444)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    unprivileged(lambda: store.records.use(dataset()))


def test_all_records_come_by_registry_and_name(store: Store) -> None:
    assert list(store.records.all()) == []
    made = [dataset(name=name) for name in ("b", "a", "c")]
    for each in made:
        store.records.put(record(each))
    Path(store.layout.records, "notes.txt").touch()
    Path(store.layout.records, "shelf/notes.txt").touch()
    Path(store.records.path(made[0]) + ".0123.tmp").touch()
    assert [each.name for each in store.records.all()] == ["a", "b", "c"]


def test_contents_are_those_of_the_very_version(store: Store) -> None:
    plain = dataset()
    assert store.records.contents(plain) == set()
    for each in (dataset(version="1+2"), dataset(version="11"), dataset(name="data1")):
        store.records.put(record(each))
    Path(store.records.path(plain) + ".0123abcd.tmp").touch()
    assert store.records.contents(plain) == set()
    store.records.put(record(plain))
    assert store.records.contents(plain) == {plain.content[:8]}
