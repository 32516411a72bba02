"""The contract of depots, run on a folder and on a real object store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dscache.depots import Depot, Stored, open_depot
from dscache.depots.uploading import Upload, upload_all
from dscache.errors import IntegrityError, InvalidFile, StorageError, TransferError, UsageError
from tests.making import content
from tests.weed import Weed

_MIB = 1 << 20


def _data(found: Stored | None) -> bytes | None:
    return found.data if found else None


@pytest.fixture(params=["folder", "bucket"])
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    if request.param == "folder":
        return open_depot(str(tmp_path / "depot"))
    store: Weed = request.getfixturevalue("store")
    return open_depot(f"{store.bucket()}/some/prefix")


def test_what_is_not_there(depot: Depot) -> None:
    assert depot.read("a/b.toml", 10) is None
    assert depot.size("a/b.toml") is None
    assert list(depot.list("")) == []
    depot.remove(["a/b.toml"])


@pytest.mark.parametrize("key", ["a.toml", "a@1.0+x.toml", "deep/er/a b.toml", "ä.toml"])
def test_what_was_created_is_read(depot: Depot, key: str) -> None:
    assert depot.create(key, b"one")
    found = depot.read(key, 3)
    assert found is not None
    assert (found.data, depot.size(key)) == (b"one", 3)
    assert [(each.key, each.size) for each in depot.list("")] == [(key, 3)]


def test_nothing_is_created_twice(depot: Depot) -> None:
    assert depot.create("a", b"one")
    assert not depot.create("a", b"two")
    assert _data(depot.read("a", 9)) == b"one"


def test_only_who_saw_the_last_version_replaces_it(depot: Depot) -> None:
    depot.create("a", b"one")
    first = depot.read("a", 9)
    assert first is not None
    assert depot.replace("a", b"two", first.version)
    assert not depot.replace("a", b"three", first.version)
    assert _data(depot.read("a", 9)) == b"two"


def test_to_replace_nothing_is_to_create(depot: Depot) -> None:
    assert depot.replace("a", b"one", "")
    assert not depot.replace("a", b"two", "")
    assert not depot.replace("b", b"two", "what never was")


def test_of_many_who_create_one_does(depot: Depot) -> None:
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return depot.create("a", b"%d" % number)

    with ThreadPoolExecutor(8) as executor:
        outcomes = list(executor.map(create, range(8)))
    assert outcomes.count(True) == 1
    found = depot.read("a", 9)
    assert found is not None
    assert found.data == b"%d" % outcomes.index(True)


def test_of_many_who_count_none_is_lost(depot: Depot) -> None:
    depot.create("count", b"0")

    def add(_number: int) -> None:
        while True:
            seen = depot.read("count", 9)
            assert seen is not None
            if depot.replace("count", b"%d" % (int(seen.data) + 1), seen.version):
                return

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(add, range(12)))
    assert _data(depot.read("count", 9)) == b"12"


@pytest.mark.parametrize("size", [0, 5, 9 * _MIB, 40 * _MIB])
def test_what_was_uploaded_is_the_same(depot: Depot, size: int) -> None:
    data = content(size, size)
    chunks = [data[start : start + _MIB] for start in range(0, size, _MIB)]
    depot.upload("blobs/x", iter(chunks), size)
    assert depot.size("blobs/x") == size
    assert _data(depot.read("blobs/x", size)) == data


def test_an_upload_takes_the_place_of_another(depot: Depot) -> None:
    for text in (b"one", b"other"):
        depot.upload("x", [text], len(text))
    assert _data(depot.read("x", 9)) == b"other"


@pytest.mark.parametrize("size", [2 * _MIB, 40 * _MIB])
def test_of_an_upload_that_breaks_off_nothing_is_there(depot: Depot, size: int) -> None:
    def broken() -> Iterator[bytes]:
        yield content(size // 2, 1)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        depot.upload("x", broken(), size)
    assert depot.size("x") is None
    assert list(depot.list("")) == []


def _upload(path: Path, data: bytes) -> Upload:
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Upload(f"blobs/{sha256}", str(path), len(data), sha256)


def test_many_files_are_uploaded_once(depot: Depot, tmp_path: Path) -> None:
    sizes = (0, 10, 3 * _MIB, 20 * _MIB, *range(100, 130))
    uploads = [_upload(tmp_path / str(size), content(size, size)) for size in sizes]
    assert sorted(upload_all(depot, uploads), key=str) == sorted(
        ((each, True) for each in uploads), key=str
    )
    assert {each.key: each.size for each in depot.list("blobs/")} == {
        each.key: each.size for each in uploads
    }
    assert not any(is_new for _, is_new in upload_all(depot, uploads))


@pytest.mark.parametrize("size", [10, 40 * _MIB])
@pytest.mark.parametrize("how", ["flipped", "cut", "grown", "removed"])
def test_what_has_rotted_is_not_uploaded(depot: Depot, tmp_path: Path, size: int, how: str) -> None:
    upload = _upload(tmp_path / "file", data := content(size, size))
    rotten = {"flipped": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "grown": data + b"x"}
    if how == "removed":
        (tmp_path / "file").unlink()
    else:
        (tmp_path / "file").write_bytes(rotten[how])
    with pytest.raises(StorageError if how == "removed" else IntegrityError, match="file"):
        list(upload_all(depot, [upload]))
    assert list(depot.list("")) == []


def test_who_stops_an_upload_does_not_wait_for_its_end(depot: Depot, tmp_path: Path) -> None:
    uploads = [_upload(tmp_path / str(n), content(_MIB, n)) for n in range(40)]
    uploading = upload_all(depot, uploads, jobs=2)
    next(uploading)
    uploading.close()
    assert 1 <= len(list(depot.list(""))) < len(uploads)


def test_nothing_longer_than_asked_for_is_read(depot: Depot) -> None:
    depot.create("a", b"long")
    with pytest.raises(InvalidFile, match="longer than 3"):
        depot.read("a", 3)


def test_lists_are_of_one_prefix(depot: Depot) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "4"):
        depot.create(key, b"x")
    assert sorted(each.key for each in depot.list("a/")) == ["a/1", "a/b/2"]
    depot.remove(["a/1", "nothing"])
    assert sorted(each.key for each in depot.list("")) == ["4", "a/b/2", "ab/3"]


def test_a_wrong_secret_is_refused_and_not_shown(
    store: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    depot = open_depot(store.bucket())
    attempts: list[Callable[[], object]] = [
        lambda: depot.create("a", b"x"),
        lambda: depot.read("a", 1),
        lambda: depot.size("a"),
        lambda: list(depot.list("")),
    ]
    for attempt in attempts:
        with pytest.raises(TransferError, match="access denied") as caught:
            attempt()
        assert caught.value.facts["status"] == 403
        assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
        assert "not-the-secret" not in f"{caught.value} {caught.value.facts}"


def test_one_who_may_only_read(store: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.bucket()
    open_depot(url).create("a", b"x")
    for name, value in store.environment(reader=True).items():
        monkeypatch.setenv(name, value)
    depot = open_depot(url)
    assert _data(depot.read("a", 1)) == b"x"
    with pytest.raises(TransferError, match="access denied"):
        depot.create("b", b"x")


def test_a_bucket_that_is_not_there(store: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.environment(reader=True).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TransferError):
        open_depot("s3://no-such-bucket").create("a", b"x")


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, store: Weed) -> None:
    from tests.servers import free_port

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransferError):
        open_depot("s3://bucket").size("a")


@pytest.mark.parametrize("url", ["https://example.org/x", "ftp://example.org/x"])
def test_where_nothing_can_be_put(url: str) -> None:
    with pytest.raises(UsageError, match="nothing can be put"):
        open_depot(url)
