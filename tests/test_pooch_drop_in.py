"""The drop-in for Pooch: what programs get that change their import, from the outside."""

from __future__ import annotations

import gzip
import hashlib
import logging
import lzma
import os
import pickle
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pooch as plain
import pytest
import requests

from dscache import Cache
from dscache.errors import (
    IntegrityError,
    NotCached,
    StorageError,
    TransferError,
    UnsafeError,
)
from dscache.integrations import pooch
from tests.archives import File, Link, packed
from tests.children import running, unprivileged
from tests.ftp import ftp_server
from tests.making import content, md5, sha256
from tests.origin import Drop, OtherContent, Refuse, RequireAuth, Site, origin

ONE, TWO, BIG, OTHER = (
    content(50_000, 1),
    content(7_000, 2),
    content(3 << 20, 3),
    content(50_000, 4),
)
ZIP = packed("zip", File("data/a.txt", b"a"), File("data/deep/b.txt", b"b"), File("c.txt", b"c"))
TGZ = packed("tar.gz", File("data/a.txt", b"a"), File("data/deep/b.txt", b"b"))
FILES = {
    "/one.bin": ONE,
    "/deep/two.bin": TWO,
    "/big.bin": BIG,
    "/some.zip": ZIP,
    "/some.tar.gz": TGZ,
    "/text.gz": gzip.compress(ONE),
}
REGISTRY = {path[1:]: sha256(data) for path, data in FILES.items()}


@pytest.fixture
def site() -> Iterator[Site]:
    with origin(FILES) as found:
        yield found


@pytest.fixture
def brine(site: Site, tmp_path: Path) -> pooch.Pooch:
    return pooch.create(tmp_path / "brine", site.base, registry=REGISTRY)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What Pooch's log says."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler()
    pooch.get_logger().addHandler(handler)
    yield lines
    pooch.get_logger().removeHandler(handler)


def another(brine: pooch.Pooch, **options: Any) -> pooch.Pooch:
    """The manager of another project, for the same files."""
    path = brine.path.with_name("another")
    return pooch.create(path, brine.base_url, registry=brine.registry, **options)


def no_downloader(*_: object, **__: object) -> None:
    raise AssertionError("nothing should be downloaded")


# --- Files ----------------------------------------------------------------------------------------


def test_a_file_is_downloaded_once(
    brine: pooch.Pooch, site: Site, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got = brine.fetch("deep/two.bin")
    assert got == str(brine.abspath / "deep/two.bin")
    assert Path(got).read_bytes() == TWO
    assert log == [f"Downloading file 'deep/two.bin' from '{brine.get_url('deep/two.bin')}' to "
                   f"'{brine.abspath}'."]  # fmt: skip
    asked = len(site.requests)
    monkeypatch.setattr("dscache.integrations.pooch.arriving.download_action", no_downloader)
    assert brine.fetch("deep/two.bin") == got  # and it is not hashed
    assert (len(site.requests), len(log)) == (asked, 1)


def test_projects_share_their_files(brine: pooch.Pooch, site: Site) -> None:
    first = brine.fetch("one.bin")
    second = another(brine).fetch("one.bin", downloader=no_downloader)
    assert os.path.samefile(first, second)
    assert len(site.requests) == 1


def test_files_can_be_read_by_others_and_are_changed_by_nobody(brine: pooch.Pooch) -> None:
    before = os.umask(0o022)
    try:
        assert os.stat(brine.fetch("one.bin")).st_mode & 0o777 == 0o444
    finally:
        os.umask(before)


def test_a_file_of_plain_pooch_is_taken_over(brine: pooch.Pooch, site: Site) -> None:
    os.makedirs(brine.path)
    Path(brine.path, "one.bin").write_bytes(ONE)
    got = brine.fetch("one.bin")
    assert os.path.samefile(got, another(brine).fetch("one.bin"))
    assert not site.requests


def test_an_outdated_file_is_replaced(brine: pooch.Pooch, log: list[str]) -> None:
    os.makedirs(brine.path)
    Path(brine.path, "one.bin").write_bytes(OTHER)
    assert Path(brine.fetch("one.bin")).read_bytes() == ONE
    assert log[0].startswith("Updating file 'one.bin'")
    assert not list(Path(Cache().root, "quarantine").glob("*"))  # it was no download


def test_an_update_may_be_forbidden(brine: pooch.Pooch, site: Site) -> None:
    os.makedirs(brine.path)
    Path(brine.path, "one.bin").write_bytes(OTHER)
    brine.allow_updates = False
    with pytest.raises(ValueError, match="updates are disallowed"):
        brine.fetch("one.bin")
    assert not site.requests


def test_a_file_that_somebody_has_cut_is_mended(brine: pooch.Pooch, log: list[str]) -> None:
    got = brine.fetch("one.bin")
    os.chmod(got, 0o644)
    Path(got).write_bytes(b"cut")
    assert Path(brine.fetch("one.bin")).read_bytes() == ONE
    assert log[1].startswith("Updating file 'one.bin'")


def test_a_link_that_leads_nowhere_is_replaced(brine: pooch.Pooch) -> None:
    os.makedirs(brine.path)
    os.symlink("nowhere", brine.path / "one.bin")
    assert Path(brine.fetch("one.bin")).read_bytes() == ONE


def test_a_right_file_in_a_folder_of_others_is_used(brine: pooch.Pooch, site: Site) -> None:
    os.makedirs(brine.path)
    Path(brine.path, "one.bin").write_bytes(ONE)
    os.chmod(brine.path, 0o555)
    assert unprivileged(lambda: brine.fetch("one.bin")) == str(brine.path / "one.bin")
    assert not site.requests


def test_a_right_file_is_used_where_there_can_be_no_cache(
    brine: pooch.Pooch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs(brine.path)
    Path(brine.path, "one.bin").write_bytes(ONE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSCACHE_DIR", str(tmp_path / "file" / "cache"))
    assert brine.fetch("one.bin") == str(brine.path / "one.bin")
    with pytest.raises(StorageError):
        brine.fetch("big.bin")


def test_a_folder_that_cannot_be_written_to(brine: pooch.Pooch) -> None:
    os.makedirs(brine.path)
    os.chmod(brine.path, 0o555)

    def child() -> str:
        with pytest.raises(PermissionError, match="could not write to data cache folder"):
            brine.fetch("one.bin")
        return "refused"

    assert unprivileged(child) == "refused"


@pytest.mark.parametrize("name", ["../evil.bin", "deep/../../evil.bin", "/tmp/evil.bin"])
def test_names_that_lead_out_are_refused(
    brine: pooch.Pooch, site: Site, tmp_path: Path, name: str
) -> None:
    brine.registry[name] = sha256(ONE)
    with pytest.raises(UnsafeError):
        brine.fetch(name)
    with pytest.raises(UnsafeError):
        pooch.retrieve(site.url("/one.bin"), sha256(ONE), fname=name, path=tmp_path / "brine")
    assert not site.requests


def test_the_registry_of_the_caller_stays_as_it_is(brine: pooch.Pooch, tmp_path: Path) -> None:
    mine = {"a": sha256(ONE)}
    made = pooch.create(tmp_path, "http://localhost/", registry=mine)
    (tmp_path / "registry.txt").write_text(f"b {sha256(TWO)}\n", "utf-8")
    made.load_registry(tmp_path / "registry.txt")
    assert list(made.registry) == ["a", "b"]
    assert list(mine) == ["a"]


def test_create_is_that_of_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRINE_DIR", str(tmp_path / "elsewhere"))
    options: dict[str, Any] = {"version": "1.0+12.abc", "version_dev": "main", "env": "BRINE_DIR"}
    made = pooch.create("~/x", "http://localhost/{version}", **options)
    theirs = plain.create("~/x", "http://localhost/{version}", **options)
    assert isinstance(made, plain.Pooch)
    assert vars(made) == vars(theirs)
    assert pickle.loads(pickle.dumps(made)).abspath == tmp_path / "elsewhere/main"


def test_it_offers_what_pooch_offers() -> None:
    names = {name for name in vars(plain) if not name.startswith("_")}
    assert names - {"tests"} <= {*dir(pooch)}
    assert pooch.core.Pooch is pooch.Pooch
    assert pooch.processors.Unzip is pooch.Unzip


# --- Hashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [md5(ONE), f"sha512:{hashlib.sha512(ONE).hexdigest()}"])
def test_other_hashes_are_hits_as_well(
    site: Site, tmp_path: Path, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = pooch.retrieve(site.url("/one.bin"), known, path=tmp_path / "a")
    monkeypatch.setattr("dscache.integrations.pooch.arriving.download_action", no_downloader)
    assert pooch.retrieve(site.url("/one.bin"), known, path=tmp_path / "a") == got
    assert len(site.requests) == 1


def test_a_hash_that_dscache_does_not_know_is_computed_by_pooch(site: Site, tmp_path: Path) -> None:
    known = f"sha512_256:{hashlib.new('sha512_256', ONE).hexdigest()}"
    got = [pooch.retrieve(site.url("/one.bin"), known, path=tmp_path / "a") for _ in range(2)]
    assert len(site.requests) == 1
    assert os.path.samefile(
        got[0], pooch.retrieve(site.url("/one.bin"), sha256(ONE), path=tmp_path)
    )
    with pytest.raises(ValueError, match="SHA512_256 hash of downloaded file"):
        pooch.retrieve(site.url("/big.bin"), known, path=tmp_path / "a")
    with pytest.raises(ValueError, match="'blah' not available"):
        pooch.retrieve(site.url("/big.bin"), "blah:12", path=tmp_path / "a")


def test_without_a_hash_nothing_but_the_folder_counts(
    site: Site, tmp_path: Path, log: list[str]
) -> None:
    url = site.url("/one.bin")
    got = pooch.retrieve(url, None, path=tmp_path)
    assert got == plain.retrieve(url, None, path=tmp_path)
    assert sha256(ONE)[7:] in log[1]
    assert os.stat(got).st_mode & 0o444 == 0o444
    assert pooch.retrieve(url, None, path=tmp_path) == got
    assert len(site.requests) == 1
    site.files["/one.bin"] = OTHER
    os.unlink(got)
    assert Path(pooch.retrieve(url, None, path=tmp_path)).read_bytes() == OTHER


# --- Downloaders, retries, errors, progress -------------------------------------------------------


def test_the_callers_downloader_is_used(brine: pooch.Pooch, site: Site, log: list[str]) -> None:
    site.fault("/one.bin", RequireAuth("Basic bWU6c2VjcmV0"))
    with pytest.raises(TransferError, match="401"):
        brine.fetch("one.bin")
    log.clear()
    got = brine.fetch("one.bin", downloader=pooch.HTTPDownloader(auth=("me", "secret")))
    assert Path(got).read_bytes() == ONE
    assert len(log) == 1
    assert os.path.samefile(got, another(brine).fetch("one.bin", downloader=no_downloader))


def test_a_callers_downloader_that_brings_something_else(brine: pooch.Pooch) -> None:
    def download(_url: str, file: str, _manager: object) -> None:
        Path(file).write_bytes(OTHER)

    with pytest.raises(ValueError, match=r"hash of downloaded file \(one.bin\) does not match"):
        brine.fetch("one.bin", downloader=download)
    assert os.listdir(brine.path) == []


def test_ftp(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served/one.bin").write_bytes(ONE)
    with ftp_server(tmp_path / "served") as port:
        url = f"ftp://127.0.0.1:{port}/one.bin"
        assert Path(pooch.retrieve(url, sha256(ONE), path=tmp_path / "a")).read_bytes() == ONE


def test_a_manager_tries_again_as_often_as_it_is_told(
    brine: pooch.Pooch, site: Site, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("dscache.integrations.pooch.arriving.time.sleep", waits.append)
    site.fault("/one.bin", OtherContent(OTHER), times=2)
    brine.retry_if_failed = 3
    assert Path(brine.fetch("one.bin")).read_bytes() == ONE
    assert [line.split("Will")[-1] for line in log[1:]] == [
        " attempt the download again 3 more times.",
        " attempt the download again 2 more times.",
    ]
    assert [wait for wait in waits if wait >= 1] == [1, 2]


def test_wrong_bytes_are_what_pooch_says_they_are(brine: pooch.Pooch, site: Site) -> None:
    site.files["/one.bin"] = OTHER
    with pytest.raises(IntegrityError, match=r"hash of downloaded file \(one.bin\) does not match"):
        brine.fetch("one.bin")
    assert os.listdir(brine.path) == []


@pytest.mark.parametrize(
    "expected",
    [TransferError, OSError, requests.HTTPError, requests.ConnectionError],
)
def test_what_cannot_be_had_is_an_error_of_requests_too(
    brine: pooch.Pooch, site: Site, expected: type[Exception]
) -> None:
    site.fault("/one.bin", Refuse(404))
    with pytest.raises(expected, match="404") as caught:
        brine.fetch("one.bin")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))
    with pytest.raises(expected, match="404"):
        pooch.retrieve(site.url("/one.bin"), None, path=brine.path)


def test_offline(brine: pooch.Pooch, monkeypatch: pytest.MonkeyPatch) -> None:
    brine.fetch("one.bin")
    monkeypatch.setenv("DSCACHE_OFFLINE", "1")
    assert Path(another(brine).fetch("one.bin")).read_bytes() == ONE
    with pytest.raises(NotCached):
        brine.fetch("big.bin")


def test_a_progress_bar_of_the_caller(brine: pooch.Pooch, site: Site) -> None:
    class Bar:
        total, count, closed = 0, 0, 0
        totals: ClassVar[set[int]] = set()

        def update(self, n: int) -> None:
            self.count += n
            self.totals.add(self.total)

        def reset(self) -> None:
            self.count = 0

        def close(self) -> None:
            self.closed += 1

    site.fault("/big.bin", Drop(1 << 20), times=1)
    bar = Bar()
    brine.fetch("big.bin", progressbar=bar)
    assert (bar.count, bar.closed) == (len(BIG), 1)
    assert bar.totals <= {0, len(BIG)}


def test_a_bar_of_tqdm(brine: pooch.Pooch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="no tqdm")
    brine.fetch("big.bin", progressbar=True)
    assert "100%|" in capsys.readouterr().err


def test_is_available(brine: pooch.Pooch, site: Site, home: Path) -> None:
    assert brine.is_available("one.bin")
    del site.files["/one.bin"]
    assert not brine.is_available("one.bin")
    (home / "config.toml").write_text(f'[rewrite]\n"https://far/" = "{site.base}/"\n', "utf-8")
    brine.base_url = "https://far/"
    assert brine.is_available("big.bin")
    assert Path(brine.fetch("big.bin")).read_bytes() == BIG


def test_several_files_at_once(brine: pooch.Pooch, site: Site) -> None:
    found = brine.fetch_many(["one.bin", "deep/two.bin"])
    assert found == {name: str(brine.abspath / name) for name in ("one.bin", "deep/two.bin")}
    assert set(brine.fetch_many()) == REGISTRY.keys()
    assert len(site.requests) == len(REGISTRY)
    with pytest.raises(ValueError, match="not in the registry"):
        brine.fetch_many(["nothing"])
    site.fault("/big.bin", Refuse(404))
    other = another(brine)
    other.registry["big.bin"] = sha256(OTHER)
    with pytest.raises(requests.HTTPError, match="404"):
        other.fetch_many(["big.bin", "one.bin"])


# --- Processors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processor", "name"), [(pooch.Unzip(), "some.zip"), (pooch.Untar(), "some.tar.gz")]
)
def test_archives(brine: pooch.Pooch, processor: Any, name: str, log: list[str]) -> None:
    folder = f"{brine.abspath / name}{processor.suffix}"
    members = ["c.txt"] * (name == "some.zip") + ["data/a.txt", "data/deep/b.txt"]
    found = brine.fetch(name, processor=processor)
    assert found == [f"{folder}/{member}" for member in members]
    assert log[1].endswith(f"contents of '{brine.abspath / name}' to '{folder}'")
    assert brine.fetch(name, processor=processor) == found
    assert len(log) == 2
    shared = another(brine).fetch(name, processor=processor)  # and the processor serves again
    assert all(map(os.path.samefile, found, shared))
    os.unlink(found[0])
    assert brine.fetch(name, processor=processor) == found


def test_members(brine: pooch.Pooch) -> None:
    def got(*members: str) -> list[str]:
        found = brine.fetch("some.zip", processor=pooch.Unzip(list(members), extract_dir="out"))
        return [os.path.relpath(path, brine.abspath / "out") for path in found]

    assert got("none") == got() == []
    assert got("./data/deep") == ["data/deep/b.txt"]
    assert got("c.txt", "data/a.txt") == ["c.txt", "data/a.txt"]
    everything = brine.fetch("some.zip", processor=pooch.Unzip(extract_dir="out"))
    assert len(everything) == 3


def test_what_pooch_extracted_stays(brine: pooch.Pooch) -> None:
    """A hit changes nothing in the folder, as in Pooch."""
    brine.fetch("some.zip")
    plain.Unzip()(str(brine.abspath / "some.zip"), "download", None)
    mine = brine.abspath / "some.zip.unzip/c.txt"
    mine.write_bytes(b"changed")
    assert str(mine) in brine.fetch("some.zip", processor=pooch.Unzip())
    assert mine.read_bytes() == b"changed"


def test_a_hit_does_not_read_the_archive(
    brine: pooch.Pooch, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = brine.fetch("some.tar.gz", processor=pooch.Untar())
    monkeypatch.setattr(tarfile.TarFile, "open", no_downloader)
    monkeypatch.setattr("dscache.integrations.pooch.processors.file_hash", no_downloader)
    assert brine.fetch("some.tar.gz", processor=pooch.Untar()) == found

    def mine(name: str, action: str, manager: Any) -> Any:
        return pooch.Untar()(name, action, manager)

    assert brine.fetch("some.tar.gz", processor=mine) == found


def test_members_that_lead_out_are_refused(brine: pooch.Pooch, site: Site) -> None:
    site.files["/bad.tar"] = data = packed("tar", File("../evil", b"x"), Link("l", "/etc/passwd"))
    brine.registry["bad.tar"] = sha256(data)
    with pytest.raises(UnsafeError):
        brine.fetch("bad.tar", processor=pooch.Untar())
    assert not (brine.abspath / "evil").exists()


def test_decompress(brine: pooch.Pooch, log: list[str]) -> None:
    got = brine.fetch("text.gz", processor=pooch.Decompress())
    assert got == str(brine.abspath / "text.gz.decomp")
    assert Path(got).read_bytes() == ONE
    named = brine.fetch("text.gz", processor=pooch.Decompress(method="gzip", name="text.csv"))
    assert named == str(brine.abspath / "text.csv")
    assert os.path.samefile(got, named) or Path(named).read_bytes() == ONE
    assert len(log) == 3
    with pytest.raises(ValueError, match=r"Unrecognized file extension '.bin'"):
        brine.fetch("one.bin", processor=pooch.Decompress())


def test_decompress_what_is_older_than_xz(site: Site, tmp_path: Path) -> None:
    site.files["/old.lzma"] = data = lzma.compress(ONE, format=lzma.FORMAT_ALONE)
    processor = pooch.Decompress(method="lzma")
    got = pooch.retrieve(site.url("/old.lzma"), sha256(data), path=tmp_path, processor=processor)
    assert Path(got).read_bytes() == ONE


def test_processors_of_the_caller_hear_what_was_done(brine: pooch.Pooch) -> None:
    def heard(name: str, action: str, manager: Any) -> tuple[str, str, bool]:
        return os.path.basename(name), action, manager is brine

    assert brine.fetch("one.bin", processor=heard) == ("one.bin", "download", True)
    assert brine.fetch("one.bin", processor=heard) == ("one.bin", "fetch", True)
    assert another(brine).fetch("one.bin", processor=heard) == ("one.bin", "download", False)


def test_a_processor_called_by_hand(brine: pooch.Pooch) -> None:
    archive = brine.fetch("some.zip")
    assert len(pooch.Unzip()(archive, "download", None)) == 3
    brine.registry["some.zip"] = f"sha512_256:{hashlib.new('sha512_256', ZIP).hexdigest()}"
    assert len(pooch.Unzip()(archive, "fetch", brine)) == 3


# --- Many at once ---------------------------------------------------------------------------------


def test_threads_on_one_manager(brine: pooch.Pooch, site: Site) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(brine.fetch, ["big.bin"] * 8))
    assert set(found) == {str(brine.abspath / "big.bin")}
    assert site.sent("/big.bin") == len(BIG)


def test_processes_on_one_folder(brine: pooch.Pooch, site: Site) -> None:
    code = (
        "import sys\nfrom dscache.integrations import pooch\nfolder, base, known = sys.argv[1:]\n"
        "brine = pooch.create(folder, base, registry={'some.zip': known})\n"
        "print(len(brine.fetch('some.zip', processor=pooch.Unzip())))"
    )
    words = (str(brine.path), site.base, sha256(ZIP))
    with running(code, *words) as one, running(code, *words) as two, running(code, *words) as three:
        assert [each.communicate()[0] for each in (one, two, three)] == ["3\n"] * 3
    assert site.sent("/some.zip") == len(ZIP)


# --- The guide ------------------------------------------------------------------------------------


def test_the_example_of_the_guide(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stations = File("stations/oslo.csv", b"1,2\n"), File("stations/rome.csv", b"3,4\n")
    site.files["/temperature.csv"] = b"foo"
    site.files["/stations.zip"] = packed("zip", *stations)
    (home / "config.toml").write_text(
        f'[rewrite]\n"https://example.org/data/" = "{site.base}/"\n', "utf-8"
    )
    monkeypatch.setenv("PLUMBUS_DATA_DIR", str(home / "plumbus"))
    guide = (Path(__file__).parents[1] / "docs/guide/pooch.md").read_text("utf-8")
    blocks = guide.partition("## Its downloads alone")[0].split("```python\n")[1:]
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.partition("```")[0], names)
    assert Path(names["table"]).read_bytes() == b"foo"
    assert [Path(path).name for path in names["stations"]] == ["oslo.csv", "rome.csv"]
    assert names["paths"]["temperature.csv"] == str(home / "plumbus/temperature.csv")


# --- The public names that it needed --------------------------------------------------------------


def test_retrieve_members_of_an_archive(site: Site) -> None:
    found = Cache().retrieve(site.url("/some.zip"), sha256(ZIP), unpack="zip", files="*/b.txt")
    assert [path.name for path in found.rglob("*") if path.is_file()] == ["b.txt"]


def test_retrieve_many(site: Site) -> None:
    wanted = [
        (site.url("/one.bin"), sha256(ONE), None),
        (site.url("/deep/two.bin"), sha256(TWO), "2.bin"),
        (site.url("/one.bin"), "nonsense", "bad"),
        (site.url("/nothing"), sha256(OTHER), None),
    ]
    found = Cache().retrieve_many(wanted)
    assert [each.unwrap().name for each in found[:2]] == ["one.bin", "2.bin"]
    assert [type(each.error).__name__ for each in found[2:]] == ["UsageError", "TransferError"]
