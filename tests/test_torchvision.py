"""torchvision's datasets through the cache: what stands where, what is asked of the origin."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "torchvision.datasets", reason="torchvision is not installed (`make test-torch`)"
)

from torchvision.datasets import CIFAR10, MNIST, Flowers102, ImageNet, OxfordIIITPet, utils

from dscache import Cache
from dscache.errors import IntegrityError, NotCached, TransferError
from dscache.integrations import torchvision as cached
from dscache.integrations.torchvision import patching
from tests import vision
from tests.archives import File, Folder, packed
from tests.origin import origin
from tests.servers import Server, nginx
from tests.vision import TRAIN, VAL, WNIDS, Wing

GUIDE = Path(__file__).parents[1] / "docs/guide/torchvision.md"

MAKE: dict[str, Callable[[Path], Any]] = {
    "MNIST": lambda root: MNIST(root, download=True),
    "CIFAR10": lambda root: CIFAR10(root, download=True),
    "Flowers102": lambda root: Flowers102(root, download=True),
    "OxfordIIITPet": lambda root: OxfordIIITPet(root, target_types="segmentation", download=True),
}
SIZES = {"MNIST": 20, "CIFAR10": 100, "Flowers102": 10, "OxfordIIITPet": 20}
FILES = {"MNIST": 4, "CIFAR10": 1, "Flowers102": 3, "OxfordIIITPet": 2}


@pytest.fixture(scope="module")
def wing(tmp_path_factory: pytest.TempPathFactory) -> Wing:
    return vision.build(tmp_path_factory.mktemp("wing"))


@pytest.fixture
def server(wing: Wing, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The origin of everything; the classes expect what it serves."""
    for owner, name, value in wing.expected():
        monkeypatch.setattr(owner, name, value)
    with nginx(wing.files, home / "server") as server:
        wing.configure(server.url, home / "config.toml")
        yield server


@pytest.fixture
def on() -> Iterator[Cache]:
    """torchvision goes through the cache of the test."""
    with cached.enabled():
        yield Cache()


def intact(cache: Cache) -> bool:
    """True if every byte of the cache is right."""
    return not cache.verify(full=True).corrupt


def linked(path: Path) -> bool:
    """True if the file has a name in the cache as well."""
    return path.is_symlink() or path.stat().st_nlink > 1


# --- downloads


@pytest.mark.parametrize("name", MAKE)
def test_a_second_root_is_linked_and_nothing_is_asked_for(
    name: str, server: Server, on: Cache, tmp_path: Path
) -> None:
    dataset = MAKE[name](tmp_path / "a")
    asked = len(server.requests(at_least=FILES[name]))
    again = MAKE[name](tmp_path / "b")
    assert len(dataset) == len(again) == SIZES[name]
    assert dataset[0][1] == again[0][1] or name == "OxfordIIITPet"  # which gives images
    assert asked == len(server.requests()) == FILES[name]
    files = [path for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert files
    assert all(map(linked, files))
    assert intact(on)


@pytest.mark.parametrize("name", MAKE)
def test_the_same_files_stand_as_without_the_cache(
    name: str, server: Server, wing: Wing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def served(url: str, filename: str, *_: object) -> None:
        origin = next(each for each in vision.ORIGINS if url.startswith(each))
        shutil.copy(wing.files / vision.ORIGINS[origin] / url.removeprefix(origin), filename)

    with cached.enabled():
        MAKE[name](tmp_path / "ours")
    monkeypatch.setattr(utils, "_urlretrieve", served)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    MAKE[name](tmp_path / "theirs")

    def contents(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def _make(names: Sequence[str], root: Path, start: Any) -> None:
    cached.enable()
    start.wait()
    for name in names:
        assert len(MAKE[name](root / name)) == SIZES[name], name


@pytest.mark.parametrize("shared", [False, True], ids=["own-roots", "one-root"])
def test_eight_processes_at_once_download_once(
    server: Server, wing: Wing, tmp_path: Path, shared: bool
) -> None:
    # In one root OxfordIIITPet takes a folder that is there for one that is complete.
    names = [name for name in MAKE if not (shared and name == "OxfordIIITPet")]
    # Forked, since torch takes seconds to import.
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(8)
    roots = [tmp_path / ("shared" if shared else str(number)) for number in range(8)]
    children = [fork.Process(target=_make, args=(names, root, start)) for root in roots]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 8
    files = sum(FILES[name] for name in names)
    seen = [request.path for request in server.requests(at_least=files)]
    assert len(seen) == len(set(seen)) == files
    assert intact(Cache())


def test_a_file_with_the_right_md5_is_not_downloaded(
    server: Server, on: Cache, wing: Wing, tmp_path: Path
) -> None:
    shutil.copy(wing.files / "cifar" / CIFAR10.filename, tmp_path)
    assert len(CIFAR10(tmp_path, download=True)) == SIZES["CIFAR10"]
    assert server.requests() == []


def test_a_file_with_another_md5_is_replaced(
    server: Server, on: Cache, wing: Wing, tmp_path: Path
) -> None:
    (tmp_path / CIFAR10.filename).write_bytes(b"half of it")
    assert len(CIFAR10(tmp_path, download=True)) == SIZES["CIFAR10"]
    archive = tmp_path / CIFAR10.filename
    assert archive.read_bytes() == (wing.files / "cifar" / CIFAR10.filename).read_bytes()


def test_a_member_that_was_changed_is_replaced(server: Server, on: Cache, tmp_path: Path) -> None:
    CIFAR10(tmp_path, download=True)
    batch = tmp_path / CIFAR10.base_folder / "test_batch"
    batch.unlink()
    batch.write_bytes(b"mine")
    with pytest.raises(RuntimeError, match="not found or corrupted"):
        CIFAR10(tmp_path)
    assert len(CIFAR10(tmp_path, train=False, download=True)) == 20
    assert intact(on)


def test_without_an_md5_what_stands_there_is_used(
    server: Server, on: Cache, tmp_path: Path
) -> None:
    url = next(iter(vision.ORIGINS)) + CIFAR10.filename
    (tmp_path / "here").write_bytes(b"mine")
    utils.download_url(url, tmp_path, "here")
    assert (tmp_path / "here").read_bytes() == b"mine"
    (tmp_path / "mine.gz").write_bytes(gzip.compress(b"mine"))
    utils.download_and_extract_archive(url, tmp_path, filename="mine.gz")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    utils.download_and_extract_archive(url, tmp_path / "a", remove_finished=True)
    utils.download_and_extract_archive(url, tmp_path / "b", tmp_path / "c")
    assert os.listdir(tmp_path / "a") == [CIFAR10.base_folder]
    assert os.listdir(tmp_path / "b") == [CIFAR10.filename]
    assert linked(tmp_path / "c" / CIFAR10.base_folder / "test_batch")
    assert len(server.requests(at_least=1)) == 1


@pytest.mark.parametrize("kind", ["zip-deflated", "tar", "tar.xz", "tar.bz2"])
def test_other_archives_are_linked_from_one_tree(kind: str, on: Cache, tmp_path: Path) -> None:
    data = packed(kind, File("a/b", b"one"), Folder("c"), File("d", b"two", 0o755))
    name = f"some.{kind.partition('-')[0]}"
    with origin({f"/{name}": data}) as site:
        for root in ("x", "y"):
            utils.download_and_extract_archive(
                site.url(f"/{name}"), tmp_path / root, md5=hashlib.md5(data).hexdigest()
            )
        assert len(site.requests) == 1
    assert sorted(os.listdir(tmp_path / "y")) == ["a", "c", "d", name]
    assert os.path.samefile(tmp_path / "x/a/b", tmp_path / "y/a/b")
    assert (tmp_path / "y/d").read_bytes() == b"two"


def test_a_link_that_leads_nowhere_gives_way(server: Server, on: Cache, tmp_path: Path) -> None:
    (tmp_path / CIFAR10.filename).symlink_to(tmp_path / "gone")
    assert len(CIFAR10(tmp_path, download=True)) == SIZES["CIFAR10"]
    assert linked(tmp_path / CIFAR10.filename)


def test_archives_are_removed_where_torchvision_removes_them(
    server: Server, on: Cache, wing: Wing, tmp_path: Path
) -> None:
    url, md5 = CIFAR10.url, CIFAR10.tgz_md5
    for _ in range(2):  # of the second nothing is new
        utils.download_and_extract_archive(url, tmp_path, md5=md5, remove_finished=True)
        assert os.listdir(tmp_path) == [CIFAR10.base_folder]
    shutil.copy(wing.files / "cifar" / CIFAR10.filename, tmp_path)
    utils.download_and_extract_archive(url, tmp_path, md5=md5, remove_finished=True)
    assert os.listdir(tmp_path) == [CIFAR10.base_folder]
    assert intact(on)


def test_with_archives_not_kept_nothing_is_downloaded_twice(
    server: Server, on: Cache, home: Path, tmp_path: Path
) -> None:
    configuration = (home / "config.toml").read_text()
    (home / "config.toml").write_text(f"keep_archives = false\n{configuration}")
    CIFAR10(tmp_path / "a", download=True)
    CIFAR10(tmp_path / "b", download=True)
    assert len(server.requests(at_least=1)) == 1


# --- errors


def test_wrong_bytes_are_an_error_of_torchvision_and_of_the_cache(
    server: Server, on: Cache, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught:
        utils.download_url(CIFAR10.url, tmp_path, md5="0" * 32)
    assert isinstance(caught.value, IntegrityError)
    assert os.listdir(tmp_path) == []


def test_mnist_goes_on_to_its_next_mirror(
    server: Server, on: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.url}/nowhere/", *MNIST.mirrors])
    assert len(MNIST(tmp_path, download=True)) == SIZES["MNIST"]
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.url}/nowhere/"])
    monkeypatch.setattr(MNIST, "resources", [("train-images-idx3-ubyte.gz", "0" * 32)])
    with pytest.raises(RuntimeError, match=r"Tried .*/nowhere/"):
        MNIST(tmp_path / "other", download=True)


def test_what_cannot_be_had_is_an_error_of_urllib(
    server: Server, on: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    with pytest.raises(URLError) as caught:
        utils.download_url(f"{server.url}/nowhere", tmp_path, md5="0" * 32)
    assert isinstance(caught.value, TransferError)
    monkeypatch.setenv("DSCACHE_OFFLINE", "1")
    with pytest.raises(URLError) as offline:
        utils.download_url(CIFAR10.url, tmp_path, md5=CIFAR10.tgz_md5)
    assert isinstance(offline.value, NotCached)


# --- torchvision's own way


def test_google_drive_is_not_for_the_cache(
    on: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(
        utils,
        "download_file_from_google_drive",
        lambda file_id, root, filename, md5: asked.append(file_id),
    )
    utils.download_url("https://drive.google.com/file/d/abc/view", tmp_path, "a.zip", "0" * 32)
    assert asked == ["abc"]


def test_what_did_not_come_through_the_cache_is_unpacked_by_torchvision(
    server: Server, on: Cache, wing: Wing, tmp_path: Path
) -> None:
    shutil.copy(wing.files / "cifar" / CIFAR10.filename, tmp_path)
    root = utils.extract_archive(str(tmp_path / CIFAR10.filename))
    batch = tmp_path / CIFAR10.base_folder / "test_batch"
    assert root == str(tmp_path)
    assert not linked(batch)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_torchvision_never_writes_through_a_link_into_the_cache(
    server: Server, on: Cache, tmp_path: Path
) -> None:
    MNIST(tmp_path, download=True)
    raw = tmp_path / "MNIST" / "raw"
    name = "train-labels-idx1-ubyte"
    here = raw / name
    before = here.stat().st_ino
    with cached.enabled():  # which does not know where the archive came from
        assert utils.extract_archive(raw / f"{name}.gz", raw) == here
    assert here.stat().st_ino != before
    assert not linked(here)
    assert intact(on)


def test_a_single_file_without_an_md5_is_not_for_the_cache(
    server: Server, on: Cache, tmp_path: Path
) -> None:
    utils.download_url(f"{server.url}/mnist/train-labels-idx1-ubyte.gz", tmp_path)
    assert not linked(tmp_path / "train-labels-idx1-ubyte.gz")
    assert on.usage().datasets == ()


def test_a_suffix_within_a_name_goes_as_torchvision_has_it(
    server: Server, on: Cache, wing: Wing, tmp_path: Path
) -> None:
    url, name = next(iter(vision.ORIGINS)), "a.gz.b.gz"
    data = (wing.files / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes()
    (wing.files / "cifar" / name).write_bytes(data)
    utils.download_and_extract_archive(url + name, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.b", name]


# --- ImageNet


@pytest.fixture
def imagenet(server: Server, wing: Wing, home: Path, tmp_path: Path) -> Path:
    """A root with the archives that a person has put there."""
    root = tmp_path / "imagenet"
    shutil.copytree(wing.manual, root)
    return root


def _import(cache: Cache, wing: Wing) -> None:
    for path in wing.manual.iterdir():
        cache.retrieve(str(path), f"md5:{wing.md5[path.name]}", fname=path.name)


def test_imagenet_from_archives_in_its_root(imagenet: Path, on: Cache) -> None:
    dataset = ImageNet(imagenet, split="val")
    assert len(dataset) == vision.COUNT
    assert sorted(os.listdir(imagenet / "val")) == list(WNIDS)
    assert len(ImageNet(imagenet, split="train")) == len(WNIDS)
    assert on.usage().datasets == ()  # what a person has put there is not copied


def test_imagenet_from_archives_that_the_cache_has(
    server: Server, wing: Wing, on: Cache, tmp_path: Path
) -> None:
    _import(on, wing)
    for name in ("a", "b"):
        root = tmp_path / name
        root.mkdir()
        assert len(ImageNet(root, split="val")) == vision.COUNT
        assert linked(root / VAL)
        images = list((root / "val").rglob("*.JPEG"))
        assert len(images) == vision.COUNT
        assert all(map(linked, images))
        assert len(ImageNet(root, split="train")) == len(WNIDS)
        assert all(map(linked, (root / "train").rglob("*.JPEG")))
        assert not (root / TRAIN).exists()
    assert intact(on)


def test_imagenet_without_archives_says_what_torchvision_says(
    server: Server, on: Cache, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="You need to download it externally"):
        ImageNet(tmp_path, split="val")


def test_imagenet_where_its_root_is_on_another_filesystem(
    server: Server, wing: Wing, on: Cache, tmp_path: Path
) -> None:
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other filesystem to write to")
    import tempfile

    _import(on, wing)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert len(ImageNet(folder, split="val")) == vision.COUNT
        images = list(Path(folder, "val").rglob("*.JPEG"))
        assert all(path.is_symlink() for path in images)
    assert intact(on)


def test_the_examples_of_the_guide(server: Server, wing: Wing, home: Path) -> None:
    cache, names = Cache(), dict[str, Any]()
    _import(cache, wing)
    Path("project-d/imagenet").mkdir(parents=True)
    examples = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)
    try:
        for example in examples:
            exec(compile(example, GUIDE, "exec"), names)
    finally:
        cached.disable()
    assert len(names["train"]) == SIZES["MNIST"]
    assert len(names["test"]) == SIZES["MNIST"] // 2
    assert len(names["pictures"]) == SIZES["CIFAR10"]
    assert len(names["validation"]) == vision.COUNT
    assert intact(cache)


# --- what is looked at again


def test_what_has_proven_its_md5_is_not_read_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    own = utils.calculate_md5

    def calculate(path: str) -> Any:
        read.append(os.path.basename(path))
        return own(path)

    monkeypatch.setattr(utils, "calculate_md5", calculate)
    monkeypatch.setattr(patching, "check", lambda: None)  # which would refuse that one
    with cached.enabled():
        CIFAR10(tmp_path / "a", download=True)
        CIFAR10(tmp_path / "a", train=False)
        CIFAR10(tmp_path / "b", download=True)
        names = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]
        assert sorted(read) == sorted([*names, "batches.meta"])  # each once, and no archive
        assert utils.check_integrity(tmp_path / "a" / CIFAR10.filename, CIFAR10.tgz_md5)
        assert not utils.check_integrity(tmp_path / "a" / CIFAR10.filename, "0" * 32)
        batch = tmp_path / "a" / CIFAR10.base_folder / "test_batch"
        assert utils.check_integrity(batch, CIFAR10.test_list[0][1])
        assert not utils.check_integrity(batch, "0" * 32)


def test_another_file_at_its_place_is_read(server: Server, on: Cache, tmp_path: Path) -> None:
    CIFAR10(tmp_path, download=True)
    archive = tmp_path / CIFAR10.filename
    archive.unlink()
    archive.write_bytes(b"mine")
    assert not utils.check_integrity(archive, CIFAR10.tgz_md5)
