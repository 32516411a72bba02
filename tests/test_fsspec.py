"""Datasets by name through fsspec: what is listed, what is brought for it, what is opened."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.utils import can_be_local

import dscache
from dscache import Cache
from dscache.errors import TransferError, UsageError
from dscache.integrations.fsspec import DscacheFileSystem
from tests.archives import File, Link, compressed, packed
from tests.children import forked, running
from tests.making import Shelf, artifact, content, sha256
from tests.origin import Site, origin

ONE, BIG, CSV = content(20_000, 1), content(1 << 20, 2), b"a,b\n1,2\n"
TAR = packed(
    "tar", File("train/a.txt", b"a"), File("train/deep/b.txt", b"bb"), Link("latest", "train")
)
GZ = compressed("gzip", CSV)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin(
        {"/one.bin": ONE, "/big.bin": BIG, "/all.tar": TAR, "/a.csv.gz": GZ, "/a[1].csv": CSV}
    ) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    """`two` files, an archive beside a file, a compressed file, and a name with magic in it."""
    one = artifact("one.bin", ONE, site.url("/one.bin"))
    shelf.add("two", [one, artifact("deep/big.bin", BIG, site.url("/big.bin"))])
    tar = artifact("all.tar", TAR, site.url("/all.tar"), unpack="tar")
    shelf.add("packed", [tar])
    shelf.add("mixed", [one, {**tar, "unpack_to": "in"}])
    shelf.add("table", [artifact("a.csv.gz", GZ, site.url("/a.csv.gz"), unpack="gzip")])
    shelf.add("magic", [artifact("a[1].csv", CSV, site.url("/a[1].csv"))])
    return shelf


@pytest.fixture
def fs(shelf: Shelf) -> Any:
    return fsspec.filesystem("dscache", skip_instance_cache=True)


# --- Opening --------------------------------------------------------------------------------------


def test_a_name_opens_without_an_import_of_ours() -> None:
    code = """
import fsspec
with fsspec.open("dscache://penguins/penguins.csv", "rt") as file:
    print(file.readline(), end="")
"""
    with running(code) as process:
        said, _ = process.communicate(timeout=60)
    assert said.startswith("species,island")


def test_opening_a_file_brings_that_one_alone(fs: Any, site: Site) -> None:
    with fs.open("dscache://two/one.bin") as file:
        assert file.read() == ONE
    assert site.sent("/big.bin") == 0
    assert fs.open("shelf/two@1/deep/big.bin").read() == BIG


def test_what_is_open_is_a_plain_local_file(fs: Any, home: Path) -> None:
    with fs.open("two/one.bin") as file:
        assert Path(file.name).is_relative_to(home / "cache")
        assert file.fileno() > 0
        assert file.size == len(ONE)
        assert not file.writable()
        file.seek(-3, io.SEEK_END)
        assert file.read() == ONE[-3:]
        buffer = bytearray(4)
        file.seek(10)
        assert file.readinto(buffer) == 4
        assert buffer == ONE[10:14]
    assert fsspec.open_local("dscache://two/one.bin") == file.name
    assert not can_be_local("dscache://two/one.bin"), "no path of it is a local one by itself"


def test_a_warm_open_asks_nobody(fs: Any, site: Site) -> None:
    fs.open("two/one.bin").close()
    seen = len(site.requests)
    other = fsspec.filesystem("dscache", skip_instance_cache=True)
    assert fs.cat_file("two/one.bin") == other.cat_file("two/one.bin") == ONE
    assert len(site.requests) == seen


def test_text_and_compression_are_those_of_fsspec(fs: Any) -> None:
    assert fs.read_text("table/a.csv") == CSV.decode()
    with fsspec.open("dscache://table/a.csv", "rt", newline="") as file:
        assert file.readlines() == ["a,b\n", "1,2\n"]
    assert fs.open("table/a.csv.gz", compression="infer").read() == CSV


def test_a_name_with_magic_characters_is_a_name(fs: Any) -> None:
    assert fs.ls("magic", detail=False) == ["magic/a[1].csv"]
    assert fs.open("magic/a[1].csv").read() == CSV


def test_several_files_come_in_one_call(
    fs: Any, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches, fetch = [], Cache.fetch

    def noted(*words: Any, **keys: Any) -> Path:
        fetches.append(words)
        return fetch(*words, **keys)

    monkeypatch.setattr(Cache, "fetch", noted)
    with fsspec.open_files(["dscache://two/one.bin", "dscache://two/deep/big.bin"]) as files:
        assert [file.read() for file in files] == [ONE, BIG]
    assert len(fetches) == 1


def test_ranges_of_files(fs: Any) -> None:
    paths = ["two/one.bin", "two/one.bin", "two/deep/big.bin", "two/none"]
    *found, error = fs.cat_ranges(paths, [0, 5, -9, 0], [4, 9, None, 1])
    assert found == [ONE[:4], ONE[5:9], BIG[-9:]]
    assert isinstance(error, FileNotFoundError)


def test_the_events_loops_of_others(fs: Any) -> None:
    wrapped = AsyncFileSystemWrapper(fs)
    assert wrapped.cat_ranges(["two/one.bin"] * 3, [0, 1, 2], [1, 2, 3]) == [
        ONE[:1],
        ONE[1:2],
        ONE[2:3],
    ]


def test_files_are_copied_out(fs: Any, home: Path) -> None:
    fs.get("dscache://two", str(home / "out"), recursive=True)
    fs.get("dscache://two/deep/", str(home / "out"), recursive=True)
    fs.get("dscache://two/deep", str(home / "out/new"), recursive=True)
    for path in ("out/deep/big.bin", "out/big.bin", "out/new/big.bin"):
        assert (home / path).read_bytes() == BIG
    (home / "out/one.bin").write_bytes(b"mine")
    assert fs.cat_file("two/one.bin") == ONE


# --- Listing --------------------------------------------------------------------------------------


def test_listing_downloads_nothing(fs: Any, site: Site) -> None:
    assert fs.ls("dscache://two") == [
        {"name": "two/deep", "size": 0, "type": "directory"},
        {"name": "two/one.bin", "size": len(ONE), "type": "file"},
    ]
    assert fs.info("two/deep/big.bin") == fs.ls("two/deep")[0]
    assert fs.info("shelf/two@1")["type"] == "directory"
    assert fs.find("two") == ["two/deep/big.bin", "two/one.bin"]
    assert fs.glob("dscache://two/**/*.bin") == ["two/deep/big.bin", "two/one.bin"]
    assert list(fs.walk("two"))[1] == ("two/deep", [], ["big.bin"])
    assert fs.du("two") == len(ONE) + len(BIG)
    assert fs.exists("two/one.bin")
    assert fs.isfile("two/one.bin")
    assert fs.isdir("two/deep")
    assert fs.ukey("two/one.bin") != fs.ukey("two/deep/big.bin")
    assert fs.checksum("two/one.bin") == fs.checksum("shelf/two/one.bin")
    assert fs.isdir("packed")
    assert fs.isdir("mixed/in")
    assert fs.ls("mixed", detail=False) == ["mixed/in", "mixed/one.bin"]
    assert fs.ls("table") == [{"name": "table/a.csv", "size": None, "type": "file"}]
    assert not site.requests


def test_what_only_a_download_tells_is_found_out_when_it_is_asked_for(fs: Any, site: Site) -> None:
    assert fs.info("table/a.csv")["size"] == len(CSV)
    assert fs.size("mixed/in/train/a.txt") == 1
    assert site.sent("/one.bin") == 0
    assert fs.ls("table")[0]["size"] == len(CSV)


@pytest.mark.parametrize("name", ["packed", "mixed/in"])
def test_members_of_an_archive_are_listed(fs: Any, site: Site, name: str) -> None:
    assert fs.glob(f"{name}/*/*.txt") == [f"{name}/train/a.txt"]
    assert fs.find(name) == [f"{name}/train/a.txt", f"{name}/train/deep/b.txt"]
    assert fs.cat_file(f"{name}/train/deep/b.txt") == b"bb"
    assert not fs.exists(f"{name}/train/none")
    assert site.sent("/all.tar") == len(TAR), "once"


def test_a_link_to_a_folder_is_one(fs: Any) -> None:
    fs.ls("packed")
    assert fs.isdir("packed/latest")
    assert fs.ls("packed/latest", detail=False) == ["packed/latest/a.txt", "packed/latest/deep"]
    assert fs.cat_file("packed/latest/a.txt") == b"a"


def test_an_archive_itself_can_be_opened(fs: Any) -> None:
    assert fs.info("packed/all.tar") == {
        "name": "packed/all.tar",
        "size": len(TAR),
        "type": "file",
    }
    assert fs.cat_file("packed/all.tar") == TAR


def test_a_manifest_is_all_that_a_listing_brings(fs: Any, shelf: Shelf, site: Site) -> None:
    rows = [("one.bin", ONE), ("deep/big.bin", BIG)]
    lines = "".join(
        json.dumps({"path": path, "size": len(data), "hash": sha256(data)}) + "\n"
        for path, data in rows
    ).encode()
    (shelf.folder / "listed.jsonl").write_bytes(lines)
    keys = {
        "hash": sha256(lines),
        "size": len(lines),
        "urls": ["listed.jsonl"],
        "base_urls": [site.url("/")],
    }
    shelf.write("listed.toml", {"version": "1", "manifest": keys})
    assert fs.find("listed", detail=True)["listed/deep/big.bin"]["size"] == len(BIG)
    assert not site.requests
    assert fs.cat_file("listed/one.bin") == ONE
    assert site.sent("/one.bin") == len(ONE)


def test_the_root_lists_datasets_and_a_registry_its_own(fs: Any, shelf: Shelf) -> None:
    assert {"two", "penguins"} <= set(fs.ls("dscache://", detail=False))
    assert fs.ls("dscache://shelf", detail=False) == [
        f"shelf/{name}" for name in ("magic", "mixed", "packed", "table", "two")
    ]
    assert fs.glob("dscache://shelf/t*") == ["shelf/table", "shelf/two"]
    assert fs.info("shelf") == {"name": "shelf", "size": 0, "type": "directory"}


def test_a_first_part_that_names_a_registry_is_one(fs: Any, shelf: Shelf, site: Site) -> None:
    one = artifact("one.bin", ONE, site.url("/one.bin"))
    shelf.add("shelf", [one])
    shelf.add("samples", [one])
    assert fs.isdir("samples/penguins")
    assert "shelf/shelf" in fs.ls("shelf", detail=False)
    assert not {"samples", "shelf"} & set(fs.ls("", detail=False))
    assert fs.cat_file("shelf/samples/one.bin") == ONE
    with pytest.raises(FileNotFoundError):
        fs.open("shelf/one.bin")


@pytest.mark.parametrize(
    "search",
    [lambda fs: fs.find(""), lambda fs: fs.glob("*/*.csv"), lambda fs: fs.find("shelf")],
)
def test_nothing_goes_into_every_dataset(fs: Any, search: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError, match="all of its datasets"):
        search(fs)


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["pengins/penguins.csv", "penguins/none", "shelf/none/x", "two/deep/none", "two@9/one.bin"],
)
def test_what_is_not_there_is_a_missing_file(fs: Any, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        fs.open(path)
    with pytest.raises(FileNotFoundError):
        fs.info(path)
    assert not fs.exists(path)
    assert fs.glob(path) == []


def test_the_message_and_the_hint_are_kept(fs: Any) -> None:
    with pytest.raises(FileNotFoundError, match="did you mean penguins"):
        fs.open("pengins/penguins.csv")
    with pytest.raises(FileNotFoundError, match="its files are"):
        fs.open("two/none")


@pytest.mark.parametrize("path", ["two/../two/one.bin", "two//one.bin", "two/./one.bin", "../x"])
def test_no_path_leads_out_of_a_dataset(fs: Any, path: str) -> None:
    fs.cat_file("two/one.bin")
    with pytest.raises(FileNotFoundError):
        fs.open(path)


@pytest.mark.parametrize("path", ["", "shelf", "two", "two/deep", "packed/train", "packed/latest"])
def test_a_folder_is_not_opened(fs: Any, path: str) -> None:
    fs.ls("packed")
    with pytest.raises(IsADirectoryError):
        fs.open(path)


def test_a_malformed_name_is_wrong_usage(fs: Any) -> None:
    with pytest.raises(UsageError) as caught:
        fs.open("Penguins/penguins.csv")
    assert "lower case" in caught.value.hint
    assert not fs.exists("Penguins/penguins.csv")


@pytest.mark.parametrize(
    "read",
    [
        lambda fs: fs.open("two/one.bin"),
        lambda fs: fs.get_mapper("two")["one.bin"],
        lambda fs: fs.glob("packed/*"),
    ],
)
def test_what_offline_mode_keeps_away_is_not_missing(
    fs: Any, monkeypatch: pytest.MonkeyPatch, read: Callable[[Any], Any]
) -> None:
    monkeypatch.setenv("DSCACHE_OFFLINE", "1")
    assert fs.exists("two/one.bin")
    with pytest.raises(TransferError):
        read(fs)


def test_a_server_that_is_down_is_no_empty_folder(fs: Any, site: Site, shelf: Shelf) -> None:
    gone = artifact("all.tar", TAR, site.url("/none.tar"), unpack="tar")
    shelf.add("broken", [gone])
    for read in (fs.ls, fs.exists, fs.find):
        with pytest.raises(TransferError, match="404"):
            read("broken/none")


@pytest.mark.parametrize(
    "change",
    [
        lambda fs: fs.open("two/one.bin", "wb"),
        lambda fs: fs.open("two/one.bin", "ab"),
        lambda fs: fs.open("two/one.bin", "r+b"),
        lambda fs: fs.pipe("two/new", b"x"),
        lambda fs: fs.pipe_file("two/new", b"x"),
        lambda fs: fs.write_text("two/new", "x"),
        lambda fs: fs.touch("two/one.bin"),
        lambda fs: fs.rm("two/one.bin"),
        lambda fs: fs.rm("two", recursive=True),
        lambda fs: fs.rm_file("two/one.bin"),
        lambda fs: fs.rmdir("two/deep"),
        lambda fs: fs.mv("two/one.bin", "two/x"),
        lambda fs: fs.copy("two/one.bin", "two/x"),
        lambda fs: fs.cp_file("two/one.bin", "two/x"),
        lambda fs: fs.put("x", "two/x"),
        lambda fs: fs.put_file("x", "two/x"),
        lambda fs: fs.mkdir("two/x"),
        lambda fs: fs.makedirs("two/x", exist_ok=True),
    ],
)
def test_nothing_can_be_changed(fs: Any, site: Site, change: Any) -> None:
    with pytest.raises(NotImplementedError, match="read-only"):
        change(fs)
    assert not site.requests


# --- Processes, threads, and what changes meanwhile ----------------------------------------------


def test_it_pickles_with_what_is_open(fs: Any) -> None:
    assert pickle.loads(pickle.dumps(fs)).cat_file("two/one.bin") == ONE
    file = fs.open("two/one.bin")
    file.seek(7)
    assert pickle.loads(pickle.dumps(file)).read() == ONE[7:]
    lazy = fsspec.open("dscache://two/one.bin")
    with pickle.loads(pickle.dumps(lazy)) as opened:
        assert opened.read() == ONE


def test_what_is_open_opens_anew_in_another_cache(
    fs: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pickle.dumps(fs.open("two/one.bin"))
    monkeypatch.setenv("DSCACHE_DIR", str(home / "elsewhere"))
    found = pickle.loads(file)
    assert found.read() == ONE
    assert "elsewhere" in found.name


def test_a_child_process_goes_on_with_it(fs: Any) -> None:
    fs.cat_file("two/one.bin")
    assert forked(lambda: fs.cat_file("two/one.bin") + fs.cat_file("two/deep/big.bin")) == ONE + BIG


def test_threads_share_it(fs: Any, site: Site) -> None:
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(fs.cat_file, ["two/one.bin", "two/deep/big.bin"] * 20))
    assert found == [ONE, BIG] * 20
    assert site.sent("/big.bin") == len(BIG)


def test_what_is_open_is_held_from_a_prune(fs: Any) -> None:
    with fs.open("two/one.bin"):
        with running(
            "from dscache import Cache\nc = Cache(); c.prune(c.plan_prune(all=True))"
        ) as it:
            assert it.wait(60) == 0
        assert fs.cat_file("two/one.bin") == ONE
        assert dscache.path("two", files="one.bin").exists()


def test_what_was_removed_comes_again(fs: Any, home: Path, site: Site) -> None:
    path = Path(fs.open("two/one.bin").name)
    path.unlink()
    assert fs.cat_file("two/one.bin") == ONE


def test_a_name_means_the_same_until_it_is_asked_anew(fs: Any, shelf: Shelf, site: Site) -> None:
    fs.ls("two")
    shelf.add("two", [artifact("new.bin", ONE, site.url("/one.bin"))], version="2")
    shelf.add(
        "two", [artifact("one.bin", ONE, site.url("/one.bin"))], file="two@1.toml", version="1"
    )
    assert fs.exists("two/one.bin")
    fs.invalidate_cache()
    assert fs.ls("two", detail=False) == ["two/new.bin"]
    assert fs.ls("two@1", detail=False) == ["two@1/one.bin"]


def test_settings_count_when_they_change(
    fs: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fs.isdir("two")
    monkeypatch.setenv("DSCACHE_REGISTRIES", "")
    assert not fs.exists("two")


def test_a_cache_folder_of_its_own(shelf: Shelf, home: Path) -> None:
    with fsspec.open("dscache://two/one.bin", cache_dir=str(home / "mine")) as file:
        assert Path(file.name).is_relative_to(home / "mine")


def test_times_are_those_of_the_copy_here(fs: Any) -> None:
    assert fs.modified("two/one.bin") == fs.created("two/one.bin") <= datetime.now(UTC)


def test_the_class_is_found_by_its_protocol() -> None:
    assert fsspec.get_filesystem_class("dscache") is DscacheFileSystem
