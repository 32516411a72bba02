"""The downloader for Pooch: plain Pooch over it, against real servers and faulty ones."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pooch
import pytest

import dscache
from dscache import filesystem
from dscache.downloader import ParallelDownloader
from dscache.errors import (
    IntegrityError,
    NotCached,
    StorageError,
    TransferError,
    UnsafeError,
    UsageError,
)
from tests.children import running
from tests.ftp import ftp_server
from tests.making import content, sha256
from tests.origin import (
    Chunked,
    Drip,
    Drop,
    Endless,
    Gzipped,
    IgnoreRange,
    NoValidators,
    OtherContent,
    Redirect,
    Refuse,
    RequireAuth,
    Site,
    origin,
)
from tests.servers import nginx

MIB = 1 << 20
SMALL, BIG, OTHER = content(50_000, 1), content(24 * MIB, 2), content(24 * MIB, 3)
SECRET = "t0ken-that-is-nowhere"
BEARER = f"Bearer {SECRET}"


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/a.bin": SMALL, "/big.bin": BIG, "/empty.bin": b""}) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Whatever a test does: no cache is made, and no temporary file is left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield
    assert {path.name for path in home.iterdir()} <= {"config.toml", ".netrc"}
    assert not list(temporary.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pooch's cache."""
    found = tmp_path / "pooch"
    found.mkdir()
    return found


def configure(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, "utf-8")


def retrieve(url: str, data: bytes | None, folder: Path, **options: Any) -> Path:
    """Let Pooch fetch a URL; `data` is what its hash promises."""
    known = None if data is None else sha256(data)
    downloader = ParallelDownloader(**options)
    return Path(pooch.retrieve(url, known, path=folder, fname="got", downloader=downloader))


class Bar:
    """A progress bar as Pooch's documentation has it, and what was done to it."""

    def __init__(self) -> None:
        self.total = -1
        self.count = 0
        self.seen: list[int] = []
        self.resets = self.closed = 0

    def update(self, n: int) -> None:
        self.count += n
        self.seen.append(self.count)
        assert n >= 0
        assert not self.total or self.count <= self.total

    def reset(self) -> None:
        self.count = 0
        self.resets += 1

    def close(self) -> None:
        self.closed += 1


# --- Pooch over it --------------------------------------------------------------------------------


def test_retrieve(site: Site, folder: Path) -> None:
    got = retrieve(site.url("/big.bin"), BIG, folder)
    assert got.read_bytes() == BIG
    assert os.listdir(folder) == ["got"]


def test_it_is_offered_by_the_package() -> None:
    assert dscache.ParallelDownloader is ParallelDownloader
    assert "ParallelDownloader" in dir(dscache)


def test_an_empty_file(site: Site, folder: Path) -> None:
    assert retrieve(site.url("/empty.bin"), b"", folder, progressbar=Bar()).read_bytes() == b""


def test_fetch_of_a_pooch(site: Site, folder: Path) -> None:
    registry = {"a.bin": sha256(SMALL), "big.bin": sha256(BIG)}
    brine = pooch.create(folder, site.base + "/", registry=registry)
    downloader = ParallelDownloader()
    for name, data in (("a.bin", SMALL), ("big.bin", BIG)):
        assert brine.is_available(name, downloader=downloader) is True
        assert Path(brine.fetch(name, downloader=downloader)).read_bytes() == data
    asked = len(site.requests)
    brine.fetch("a.bin", downloader=downloader)
    assert len(site.requests) == asked


def test_a_wrong_hash_is_found_by_pooch_and_leaves_no_file(site: Site, folder: Path) -> None:
    with pytest.raises(ValueError, match="hash of downloaded file"):
        retrieve(site.url("/big.bin"), OTHER, folder)
    assert os.listdir(folder) == []


def test_without_a_hash(site: Site, folder: Path) -> None:
    assert retrieve(site.url("/a.bin"), None, folder).read_bytes() == SMALL


@pytest.mark.parametrize("processor", [pooch.Unzip(), pooch.Untar(), pooch.Decompress(name="one")])
def test_processors_work_after_it(site: Site, folder: Path, processor: Any) -> None:
    packed = io.BytesIO()
    if isinstance(processor, pooch.Unzip):
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("one", SMALL)
    elif isinstance(processor, pooch.Untar):
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            member = tarfile.TarInfo("one")
            member.size = len(SMALL)
            tar.addfile(member, io.BytesIO(SMALL))
    else:
        packed.write(gzip.compress(SMALL))
    site.files["/packed.gz"] = data = packed.getvalue()
    got = pooch.retrieve(
        site.url("/packed.gz"),
        sha256(data),
        path=folder,
        fname="packed.gz",
        processor=processor,
        downloader=ParallelDownloader(),
    )
    (file,) = [got] if isinstance(got, str) else got
    assert Path(file).read_bytes() == SMALL


def test_pooch_tries_again_what_has_a_wrong_hash(site: Site, folder: Path) -> None:
    site.fault("/a.bin", OtherContent(SMALL[::-1]), times=1, method="GET")
    brine = pooch.create(
        folder, site.base + "/", registry={"a.bin": sha256(SMALL)}, retry_if_failed=1
    )
    assert Path(brine.fetch("a.bin", downloader=ParallelDownloader())).read_bytes() == SMALL


def test_ftp(tmp_path: Path, folder: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.bin").write_bytes(SMALL)
    with ftp_server(root) as port:
        url = f"ftp://127.0.0.1:{port}/a.bin"
        assert retrieve(url, SMALL, folder).read_bytes() == SMALL
        assert os.listdir(folder) == ["got"]
        check = ParallelDownloader()
        assert check(url, None, None, check_only=True) is True
        assert check(f"{url}x", None, None, check_only=True) is False


def test_a_local_file(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.bin").write_bytes(SMALL)
    url = (tmp_path / "a.bin").as_uri()
    assert retrieve(url, SMALL, folder).read_bytes() == SMALL
    assert ParallelDownloader()(url, None, None, check_only=True) is True
    assert ParallelDownloader()(f"{url}x", None, None, check_only=True) is False


# --- Faults ---------------------------------------------------------------------------------------


def test_a_break_goes_on_where_it_broke(site: Site, folder: Path) -> None:
    site.fault("/big.bin", Drop(10 * MIB), times=1)
    assert retrieve(site.url("/big.bin"), BIG, folder, jobs=1).read_bytes() == BIG
    first, second = site.requests
    assert second.range == f"bytes={10 * MIB}-"
    assert second.headers["if-range"]
    assert first.sent + second.sent == len(BIG)


def test_a_file_that_changed_meanwhile_starts_over(
    site: Site, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.fault("/big.bin", Drop(10 * MIB), times=1)
    site.fault("/big.bin", OtherContent(OTHER), skip=1)
    bar = Bar()
    got = retrieve(site.url("/big.bin"), OTHER, folder, jobs=1, progressbar=bar)
    assert got.read_bytes() == OTHER
    assert site.requests[-1].sent == len(OTHER)
    assert bar.count == bar.total == len(OTHER)
    assert "starting over" in caplog.text


def test_a_shorter_file_after_a_break(site: Site, folder: Path) -> None:
    """Nothing of the longer one may stay behind its end."""
    site.fault("/big.bin", Drop(10 * MIB), times=1)
    site.fault("/big.bin", OtherContent(SMALL), skip=1)
    bar = Bar()
    got = retrieve(site.url("/big.bin"), SMALL, folder, progressbar=bar)
    assert got.read_bytes() == SMALL
    assert bar.count == bar.total == len(SMALL)
    assert bar.closed == 1


@pytest.mark.parametrize("fault", [IgnoreRange(), NoValidators()])
def test_what_cannot_be_continued_starts_over(site: Site, folder: Path, fault: Any) -> None:
    site.fault("*", fault)
    site.fault("/big.bin", Drop(10 * MIB), times=1)
    assert retrieve(site.url("/big.bin"), BIG, folder).read_bytes() == BIG


def test_a_file_of_unknown_length(site: Site, folder: Path) -> None:
    site.fault("/big.bin", Chunked())
    bar = Bar()
    assert retrieve(site.url("/big.bin"), BIG, folder, progressbar=bar).read_bytes() == BIG
    assert bar.count == bar.total == len(BIG)


def test_gzip_that_nobody_asked_for(site: Site, folder: Path) -> None:
    site.files["/text.csv"] = text = b"a,b,c\n" * 500_000
    site.fault("/text.csv", Gzipped())
    bar = Bar()
    assert retrieve(site.url("/text.csv"), text, folder, progressbar=bar).read_bytes() == text
    assert bar.count == bar.total == len(text)
    assert os.listdir(folder) == ["got"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Refuse(404), "answered 404"),
        (Refuse(503), "answered 503"),
        (Drop(0), "50000 bytes missing"),
    ],
)
def test_what_cannot_be_had(site: Site, folder: Path, home: Path, fault: Any, said: str) -> None:
    configure(home, "retries = 1\n")
    site.fault("/a.bin", fault)
    with pytest.raises(TransferError, match=said) as caught:
        retrieve(site.url("/a.bin"), SMALL, folder)
    assert caught.value.facts["sources"][0]["url"] == site.url("/a.bin")
    assert isinstance(caught.value, OSError)
    assert os.listdir(folder) == []


def test_a_body_without_end(site: Site, folder: Path, home: Path) -> None:
    configure(home, 'max_unknown_size = "1MB"\n')
    site.fault("/a.bin", Endless())
    with pytest.raises(IntegrityError, match="more than 1 MB"):
        retrieve(site.url("/a.bin"), None, folder)
    assert os.listdir(folder) == []


def test_nobody_listens(folder: Path, home: Path) -> None:
    configure(home, "retries = 0\n")
    for check_only in (False, True):
        with pytest.raises(TransferError):
            ParallelDownloader()("http://127.0.0.1:1/a", folder / "a", None, check_only=check_only)


def test_wrong_bytes_are_never_left_under_the_name(site: Site, folder: Path, home: Path) -> None:
    configure(home, "retries = 0\n")
    site.fault("/big.bin", Drop(10 * MIB))
    with pytest.raises(TransferError):
        ParallelDownloader()(site.url("/big.bin"), folder / "a.bin", None)
    assert (folder / "a.bin").read_bytes() == b""


def test_interrupted(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient(Bar):
        def update(self, n: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieve(site.url("/big.bin"), BIG, folder, progressbar=Impatient())
    assert os.listdir(folder) == []


def test_a_file_that_cannot_be_written(site: Site, folder: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written: "):
        ParallelDownloader()(site.url("/a.bin"), folder, None)
    assert not site.requests


def test_a_disk_that_is_full(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, "write", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        retrieve(site.url("/big.bin"), BIG, folder)
    assert caught.value.facts["errno"] == errno.ENOSPC
    assert os.listdir(folder) == []


# --- As fast as the rest --------------------------------------------------------------------------


@pytest.mark.parametrize("is_open", [False, True], ids=["path", "file"])
def test_a_throttled_server_is_asked_for_pieces(
    tmp_path: Path, folder: Path, is_open: bool
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "big.bin").write_bytes(BIG)
    with nginx(root, tmp_path / "scratch", limit_rate="4m") as server:
        url = f"{server.url}/big.bin"
        if is_open:
            with (folder / "got").open("wb") as file:
                ParallelDownloader(jobs=8)(url, file, None)
        else:
            retrieve(url, BIG, folder, jobs=8)
        seen = server.requests(at_least=4)
    assert (folder / "got").read_bytes() == BIG
    assert len({each.range for each in seen}) >= 4


def test_one_job_is_one_connection(site: Site, folder: Path, home: Path) -> None:
    configure(home, "jobs = 1\n")
    site.fault("/big.bin", Drip(MIB // 2, 0.005))
    for options in ({"jobs": 1}, {}):
        (folder / "got").unlink(missing_ok=True)
        assert retrieve(site.url("/big.bin"), BIG, folder, **options).read_bytes() == BIG
    assert [seen.range for seen in site.requests] == ["", ""]


def test_two_threads_at_once(site: Site, tmp_path: Path) -> None:
    downloader = ParallelDownloader()

    def fetch(number: int) -> bytes:
        output = tmp_path / f"{number}.bin"
        downloader(site.url("/big.bin" if number % 2 else "/a.bin"), output, None)
        return output.read_bytes()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(fetch, range(8))) == [SMALL, BIG] * 4


def test_a_copy_by_pickle(site: Site, folder: Path) -> None:
    made = ParallelDownloader(jobs=3, headers={"x-key": "1"}, progressbar=False)
    pickle.loads(pickle.dumps(made))(site.url("/a.bin"), folder / "a.bin", None)
    assert (folder / "a.bin").read_bytes() == SMALL
    assert site.requests[0].headers["x-key"] == "1"


# --- Where the bytes go ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_paths_of_all_kinds(site: Site, folder: Path, kind: Any) -> None:
    (folder / "a.bin").write_bytes(BIG)
    ParallelDownloader()(site.url("/a.bin"), kind(str(folder / "a.bin")), None)
    assert (folder / "a.bin").read_bytes() == SMALL


def test_a_relative_path(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ParallelDownloader()(url=site.url("/a.bin"), output_file="a.bin", pooch=None)
    assert (folder / "a.bin").read_bytes() == SMALL


def test_an_open_file_gets_the_bytes_where_it_stands(site: Site, folder: Path) -> None:
    with (folder / "a.bin").open("w+b") as file:
        file.write(b"before ")
        ParallelDownloader()(site.url("/big.bin"), file, None)
        assert (folder / "a.bin").read_bytes() == b"before " + BIG


def test_a_file_that_is_none_on_the_disk(site: Site) -> None:
    site.fault("/big.bin", Drop(10 * MIB), times=1)
    file = io.BytesIO()
    ParallelDownloader()(site.url("/big.bin"), file, None)
    assert file.getvalue() == BIG


def test_an_open_file_gets_nothing_of_what_fails(site: Site, home: Path) -> None:
    configure(home, "retries = 0\n")
    site.fault("/big.bin", Drop(10 * MIB))
    file = io.BytesIO()
    with pytest.raises(TransferError):
        ParallelDownloader()(site.url("/big.bin"), file, None)
    assert file.getvalue() == b""


def test_an_error_of_the_open_file_is_its_own(site: Site) -> None:
    class Broken(io.BytesIO):
        def write(self, _: Any) -> int:
            raise BrokenPipeError(32, "nobody reads")

    with pytest.raises(BrokenPipeError):
        ParallelDownloader()(site.url("/a.bin"), Broken(), None)


def test_no_file_at_all(site: Site) -> None:
    with pytest.raises(TypeError, match="check_only"):
        ParallelDownloader()(site.url("/a.bin"), None, None)


# --- Progress -------------------------------------------------------------------------------------


def test_a_progress_bar_ends_at_the_total(site: Site, folder: Path) -> None:
    site.fault("/big.bin", Drip(MIB, 0.02), Drop(15 * MIB), times=1)
    bar = Bar()
    retrieve(site.url("/big.bin"), BIG, folder, progressbar=bar, jobs=2)
    assert bar.count == bar.total == len(BIG)
    assert len(bar.seen) > 2
    assert bar.closed == 1
    retrieve(site.url("/a.bin"), SMALL, folder, progressbar=bar)
    assert bar.count == bar.total == len(SMALL)


def test_a_bar_is_closed_when_it_fails(site: Site, folder: Path, home: Path) -> None:
    configure(home, "retries = 0\n")
    site.fault("/big.bin", Drop(10 * MIB))
    bar = Bar()
    with pytest.raises(TransferError):
        retrieve(site.url("/big.bin"), BIG, folder, progressbar=bar)
    assert bar.closed == 1
    assert bar.count <= 10 * MIB


def test_tqdm(site: Site, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    retrieve(site.url("/big.bin"), BIG, folder, progressbar=True)
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "25.2M/25.2M" in shown


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ValueError, match="Missing package 'tqdm' required for progress bars"):
        ParallelDownloader(progressbar=True)


# --- Who is asked, and with what ------------------------------------------------------------------


def test_check_only_sends_what_a_download_sends(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fault("/a.bin", RequireAuth(BEARER))
    url = site.url("/a.bin")
    assert ParallelDownloader()(url, None, None, check_only=True) is False
    headers = {"authorization": BEARER}
    assert ParallelDownloader(headers=headers)(url, None, None, check_only=True) is True
    monkeypatch.setenv("TOKEN", SECRET)
    configure(home, '[auth."127.0.0.1"]\ntoken_env = "TOKEN"\n')
    assert ParallelDownloader()(url, None, None, check_only=True) is True
    assert site.sent("/a.bin") == 0


def test_check_only_follows_redirects(site: Site) -> None:
    site.fault("/moved", Redirect("/a.bin"))
    site.fault("/gone", Redirect("/nothing"))
    assert ParallelDownloader()(site.url("/moved"), None, None, check_only=True) is True
    assert ParallelDownloader()(site.url("/gone"), None, None, check_only=True) is False


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize(("path", "expected"), [("/a.bin", 1), ("/empty.bin", 0)])
def test_check_only_where_a_server_knows_no_head(
    site: Site, status: int, path: str, expected: int
) -> None:
    """One byte is asked for instead."""
    site.fault(path, Refuse(status), method="HEAD")
    assert ParallelDownloader()(site.url(path), None, None, check_only=True) is True
    assert site.requests[-1].method == "GET"
    assert site.requests[-1].range == "bytes=0-0"
    if expected:
        assert site.sent(path) == expected


def test_check_only_tries_again(site: Site, home: Path) -> None:
    site.fault("/a.bin", Refuse(503), times=1)
    assert ParallelDownloader()(site.url("/a.bin"), None, None, check_only=True) is True
    configure(home, "retries = 1\n")
    site.fault("/a.bin", Refuse(503))
    with pytest.raises(TransferError, match="answered 503"):
        ParallelDownloader()(site.url("/a.bin"), None, None, check_only=True)


def test_what_cannot_be_looked_for_is_said() -> None:
    with pytest.raises(TransferError, match="doi: files can be fetched, but not looked for"):
        ParallelDownloader()("doi:10.5281/zenodo.1/a.bin", None, None, check_only=True)


def test_headers_stay_with_their_host(site: Site, folder: Path, home: Path) -> None:
    site.fault("/away", Redirect(site.url("/big.bin", host="localhost")))
    site.fault("/big.bin", Drop(10 * MIB), times=1)
    site.fault("/near", Redirect("/a.bin"))
    headers = {"X-Api-Key": SECRET, "authorization": BEARER}
    assert retrieve(site.url("/away"), BIG, folder, headers=headers).read_bytes() == BIG
    ours = [seen for seen in site.requests if seen.headers["host"].startswith("127.0.0.1")]
    others = [seen for seen in site.requests if seen.headers["host"].startswith("localhost")]
    assert len(others) >= 2
    assert {(seen.headers["x-api-key"], seen.headers["authorization"]) for seen in ours} == {
        (SECRET, BEARER)
    }
    assert SECRET not in repr([seen.headers for seen in others])
    ParallelDownloader(headers=headers)(site.url("/near"), io.BytesIO(), None)
    assert site.requests[-1].headers["x-api-key"] == SECRET


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_rewriting_takes_headers_to_no_other_host(site: Site, home: Path, host: str) -> None:
    rewrite = json.dumps(site.url("/", host=host))
    configure(home, f'[rewrite]\n"{site.url("/x/")}" = {rewrite}\n')
    downloader = ParallelDownloader(headers={"X-Api-Key": SECRET})
    file = io.BytesIO()
    downloader(site.url("/x/a.bin"), file, None)
    assert file.getvalue() == SMALL
    assert [seen.headers.get("x-api-key") for seen in site.requests] == [
        SECRET if host == "127.0.0.1" else None
    ]


def test_secrets_of_a_url_are_in_no_error(site: Site, folder: Path) -> None:
    url = site.url("/missing.bin").replace("//", f"//me:{SECRET}@") + f"?key={SECRET}"
    with pytest.raises(TransferError) as caught:
        ParallelDownloader()(url, folder / "a", None)
    assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value.facts}"


def test_offline_asks_nobody(
    site: Site, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCACHE_OFFLINE", "1")
    with pytest.raises(NotCached, match="offline"):
        retrieve(site.url("/a.bin"), SMALL, folder)
    with pytest.raises(NotCached, match="offline"):
        ParallelDownloader()(site.url("/a.bin"), None, None, check_only=True)
    assert not site.requests
    local = tmp_path / "local.bin"
    local.write_bytes(SMALL)
    assert retrieve(local.as_uri(), SMALL, folder).read_bytes() == SMALL


def test_a_token_in_the_clear_is_refused(home: Path, folder: Path) -> None:
    configure(home, '[auth."example.invalid"]\ntoken_env = "TOKEN"\n')
    for check_only in (False, True):
        with pytest.raises(UnsafeError):
            ParallelDownloader()(
                "http://example.invalid/a", folder / "a", None, check_only=check_only
            )


@pytest.mark.parametrize(
    "options",
    [
        {"jobs": 0},
        {"headers": {"Range": "bytes=0-1"}},
        {"headers": {"X-Key": f"{SECRET}\r\nX-Other: 1"}},
        {"headers": {"X Key": SECRET}},
        {"headers": {"X-Key": "caf\xe9"}},
    ],
)
def test_arguments_without_sense(options: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        ParallelDownloader(**options)
    assert SECRET not in str(caught.value)


WITHOUT_PYCURL = """
import hashlib, json, sys
sys.modules["pycurl"] = None
import dscache
base, folder = sys.argv[1:]
downloader = dscache.ParallelDownloader(headers={"X-Api-Key": "key", "Authorization": "Bearer x"})
downloader(f"{base}/away.bin", f"{folder}/got", None)
print(json.dumps([
    hashlib.sha256(open(f"{folder}/got", "rb").read()).hexdigest(),
    *(downloader(f"{base}/{name}", None, None, check_only=True) for name in ("a.bin", "none")),
]))
"""


def test_without_pycurl(site: Site, folder: Path, home: Path) -> None:
    site.fault("/away.bin", Redirect(site.url("/big.bin", host="localhost")))
    environment = {"DSCACHE_CONFIG": str(home / "config.toml")}
    with running(WITHOUT_PYCURL, site.base, str(folder), environment=environment) as child:
        output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert json.loads(output) == [hashlib.sha256(BIG).hexdigest(), True, False]
    first, second, *checks = site.requests
    assert first.headers["x-api-key"] == "key"
    assert not {"x-api-key", "authorization"} & set(second.headers)
    assert [seen.headers["authorization"] for seen in checks] == ["Bearer x"] * 2
    assert os.listdir(folder) == ["got"]
