"""`dscache::URL`: files of other filesystems of fsspec, brought and verified by dscache."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dscache import Cache
from dscache.errors import IntegrityError, TransferError, UsageError
from tests.archives import File, packed
from tests.ftp import ftp_server
from tests.making import content, md5, sha256
from tests.origin import Drop, Site, origin

ONE, BIG = content(20_000, 1), content(3 << 20, 2)
ZIP = packed("zip", File("a.csv", b"a,b\n1,2\n"))


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/one.bin": ONE, "/big.bin": BIG, "/all.zip": ZIP}) as found:
        yield found


def chained(site: Site, name: str) -> str:
    return f"dscache::{site.url(f'/{name}')}"


def test_a_url_is_brought_once(site: Site, home: Path) -> None:
    for _ in range(2):
        with fsspec.open(chained(site, "one.bin"), known_hash=sha256(ONE)) as file:
            assert file.read() == ONE
            assert Path(file.name).is_relative_to(home / "cache")
    assert site.sent("/one.bin") == len(ONE)


def test_the_hash_may_stand_where_fsspec_has_options_of_a_link(site: Site) -> None:
    options: dict[str, Any] = {"dscache": {"known_hash": md5(ONE)}}
    with fsspec.open(chained(site, "one.bin"), **options) as file:
        assert file.read() == ONE


def test_wrong_bytes_are_never_opened(site: Site) -> None:
    with pytest.raises(IntegrityError), fsspec.open(chained(site, "one.bin"), known_hash="0" * 64):
        pass


def test_a_break_is_resumed(site: Site) -> None:
    site.fault("/big.bin", Drop(after=1 << 20), times=1)
    with fsspec.open(chained(site, "big.bin"), known_hash=sha256(BIG)) as file:
        assert file.read() == BIG
    assert site.sent("/big.bin") < 2 * len(BIG)


def test_bytes_that_are_here_under_another_name_are_not_sent(site: Site) -> None:
    Cache().retrieve(site.url("/one.bin"), sha256(ONE), fname="other")
    with fsspec.open(chained(site, "one.bin"), known_hash=sha256(ONE)) as file:
        assert file.read() == ONE
    assert site.sent("/one.bin") == len(ONE)


def test_without_a_hash_it_is_said(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dscache"), fsspec.open(chained(site, "one.bin")) as file:
        assert file.read() == ONE
    assert "nothing proves its bytes" in caplog.text


def test_several_files_have_a_hash_each_and_come_together(site: Site) -> None:
    hashes = {site.url("/one.bin"): sha256(ONE), site.url("/big.bin"): sha256(BIG)}
    urls = [chained(site, "one.bin"), chained(site, "big.bin")]
    with fsspec.open_files(urls, known_hash=hashes) as files:
        assert [file.read() for file in files] == [ONE, BIG]
    with (
        pytest.raises(UsageError, match=r"says nothing of .*all\.zip"),
        fsspec.open(chained(site, "all.zip"), known_hash=hashes),
    ):
        pass


def test_a_missing_file_is_one(site: Site) -> None:
    with pytest.raises(FileNotFoundError, match="404"), fsspec.open(chained(site, "none")):
        pass


def test_offline_it_opens_what_is_here(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache().retrieve(site.url("/one.bin"), sha256(ONE))
    monkeypatch.setenv("DSCACHE_OFFLINE", "1")
    with fsspec.open(chained(site, "one.bin"), known_hash=sha256(ONE)) as file:
        assert file.read() == ONE
    with (
        pytest.raises(TransferError),
        fsspec.open(chained(site, "big.bin"), known_hash=sha256(BIG)),
    ):
        pass


def test_the_target_is_asked_for_what_is_there(home: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (home / name).write_text(name)
    fs, path = fsspec.url_to_fs(f"dscache::file://{home}/*.csv")
    assert fs.glob(path) == [f"{home}/a.csv", f"{home}/b.csv"]
    assert fs.info(f"{home}/a.csv")["size"] == 5
    assert fs.ls(str(home), detail=False) == fsspec.filesystem("file").ls(str(home), detail=False)
    with fsspec.open_files(f"dscache::file://{home}/*.csv") as files:
        assert [file.read() for file in files] == [b"a.csv", b"b.csv"]
        assert all(Path(file.name).is_relative_to(home / "cache") for file in files)
    assert fs.unstrip_protocol(path) == f"dscache::file://{home}/*.csv"


def test_an_http_target_tells_its_size(site: Site) -> None:
    fs, path = fsspec.url_to_fs(chained(site, "one.bin"))
    assert fs.info(path)["size"] == len(ONE)
    assert fs.exists(path)
    assert not fs.exists(site.url("/none"))


def test_an_archive_in_the_cache_is_looked_into(site: Site) -> None:
    url = f"zip://a.csv::{chained(site, 'all.zip')}"
    options: dict[str, Any] = {"dscache": {"known_hash": sha256(ZIP)}}
    with fsspec.open(url, "rt", **options) as file:
        assert file.read() == "a,b\n1,2\n"
    with fsspec.open(f"zip://a.csv::{chained(site, 'all.zip')}", **options) as file:
        assert file.read(1) == b"a"
    assert site.sent("/all.zip") == len(ZIP)


def test_ftp_has_its_host_again(home: Path) -> None:
    (home / "served").mkdir()
    (home / "served/one.bin").write_bytes(ONE)
    with (
        ftp_server(home / "served") as port,
        fsspec.open(f"dscache::ftp://127.0.0.1:{port}/one.bin", known_hash=sha256(ONE)) as file,
    ):
        assert file.read() == ONE


def test_it_pickles(site: Site) -> None:
    lazy = fsspec.open(chained(site, "one.bin"), known_hash=sha256(ONE))
    with pickle.loads(pickle.dumps(lazy)) as file:
        file.seek(5)
        assert pickle.loads(pickle.dumps(file)).read() == ONE[5:]


def test_what_dscache_cannot_bring_is_said() -> None:
    with (
        pytest.raises(UsageError, match="memory://") as caught,
        fsspec.open("dscache::memory://x"),
    ):
        pass
    assert "filecache::memory://" in caught.value.hint


def test_nothing_can_be_changed(home: Path) -> None:
    fs, path = fsspec.url_to_fs(f"dscache::file://{home}/a.csv")
    with pytest.raises(NotImplementedError):
        fs.rm(path)
    with pytest.raises(NotImplementedError):
        fs.pipe(path, b"x")
