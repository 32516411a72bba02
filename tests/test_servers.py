"""Tests of the servers that other tests trust: each fault does what it says, and each log counts.

They meet the servers with the standard library alone: what dscache does with a fault is not their
business.
"""

from __future__ import annotations

import gzip
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.origin import (
    BEFORE_ANSWER,
    Chunked,
    Clipped,
    CloseDelimited,
    Drip,
    Drop,
    Ending,
    Endless,
    EndlessHeaders,
    Fault,
    Flip,
    Gzipped,
    HangUp,
    IgnoreRange,
    Late,
    LoginPage,
    Long,
    NoValidators,
    OtherContent,
    OtherETag,
    Redirect,
    Refuse,
    RequireAuth,
    Short,
    Site,
    Stall,
    WrongRange,
    http_date,
    origin,
)
from tests.relay import relay
from tests.servers import Server, caddy, certificate, nginx

DATA = bytes(range(256)) * 400
PATH = "/a.bin"
PATIENCE = 5.0


@dataclass(frozen=True)
class Answer:
    """What http.client read; `broken` says how the body ended, if it ended badly."""

    status: int
    headers: dict[str, str]
    body: bytes
    broken: type[Exception] | None = None


def connect(url: str, trust: Path | None = None) -> http.client.HTTPConnection:
    """A connection to the host of a URL, over TLS where an authority is given."""
    host = urlsplit(url).netloc
    if trust is None:
        return http.client.HTTPConnection(host, timeout=PATIENCE)
    context = ssl.create_default_context(cafile=str(trust))
    return http.client.HTTPSConnection(host, timeout=PATIENCE, context=context)


def ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> Answer:
    """One request on an open connection; the headers' underscores stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    response = connection.getresponse()
    lower = {name.lower(): value for name, value in response.getheaders()}
    body, broken = read(response)
    return Answer(response.status, lower, body, broken)


def read(response: http.client.HTTPResponse) -> tuple[bytes, type[Exception] | None]:
    """The body as far as it came, and the error that ended it."""
    body = bytearray()
    try:
        while data := response.read1(1 << 16):
            body += data
    except (OSError, http.client.HTTPException) as error:
        return bytes(body), type(error)
    # read1 takes the end of the connection for the end of the body, and never closes the response.
    missing = response.length
    response.close()
    return bytes(body), http.client.IncompleteRead if missing else None


def get(url: str, method: str = "GET", **headers: str) -> Answer:
    """One request on a connection of its own."""
    with closing(connect(url)) as connection:
        return ask(connection, urlsplit(url).path, method, **headers)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({PATH: DATA, "/a b.txt": b"small"}) as running:
        yield running


class TestFaultlessOrigin:
    def test_whole_file_with_validators(self, site: Site) -> None:
        answer = get(site.url(PATH))
        assert (answer.status, answer.body) == (200, DATA)
        assert answer.headers["content-length"] == str(len(DATA))
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["etag"].startswith('"')
        assert parsedate_to_datetime(answer.headers["last-modified"]).year in (2020, 2021)

    def test_head_has_the_same_headers_and_no_body(self, site: Site) -> None:
        answer = get(site.url(PATH), "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == str(len(DATA))
        assert site.sent(PATH) == 0

    @pytest.mark.parametrize(
        ("asked", "first", "stop"),
        [("0-0", 0, 1), ("100-199", 100, 200), ("100-", 100, len(DATA)), ("-7", -7, len(DATA))],
    )
    def test_ranges(self, site: Site, asked: str, first: int, stop: int) -> None:
        answer = get(site.url(PATH), Range=f"bytes={asked}")
        start = first % len(DATA)
        assert (answer.status, answer.body) == (206, DATA[first:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"

    def test_a_range_past_the_end_is_cut_and_one_beyond_it_refused(self, site: Site) -> None:
        assert get(site.url(PATH), Range="bytes=102399-999999").body == DATA[-1:]
        answer = get(site.url(PATH), Range="bytes=102400-")
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */102400")

    @pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,4-5"])
    def test_other_ranges_are_ignored(self, site: Site, asked: str) -> None:
        assert get(site.url(PATH), Range=asked).status == 200

    def test_if_range(self, site: Site) -> None:
        seen = get(site.url(PATH), "HEAD").headers
        for same in (seen["etag"], seen["last-modified"]):
            assert get(site.url(PATH), Range="bytes=5-", If_Range=same).status == 206
        for other in ('"other"', f"W/{seen['etag']}", http_date(0)):
            assert get(site.url(PATH), Range="bytes=5-", If_Range=other).body == DATA

    def test_connections_are_kept_and_all_is_logged(self, site: Site) -> None:
        with closing(connect(site.base)) as connection:
            ask(connection, "/a%20b.txt?x=1", X_Test="yes")
            ask(connection, PATH, Range="bytes=0-9")
            ask(connection, "/none", "HEAD")
        first, second, third = site.requests
        assert (first.path, first.query, first.status, first.sent) == ("/a b.txt", "x=1", 200, 5)
        assert first.headers["x-test"] == "yes"
        assert (second.range, second.status, second.sent) == ("bytes=0-9", 206, 10)
        assert (third.method, third.status, third.sent) == ("HEAD", 404, 0)
        assert {request.connection for request in site.requests} == {1}
        assert first.ended is not None
        assert first.began <= first.ended <= second.began

    def test_a_changed_file_changes_its_validators(self, site: Site) -> None:
        before = get(site.url(PATH)).headers
        site.files[PATH] = DATA[::-1]
        after = get(site.url(PATH), Range="bytes=5-", If_Range=before["etag"])
        assert (after.status, after.body) == (200, DATA[::-1])
        assert after.headers["last-modified"] != before["last-modified"]

    def test_sixty_four_at_once(self, site: Site) -> None:
        site.files["/big"] = os.urandom(1 << 20)
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(get, [site.url("/big")] * 64))
        assert all(answer.body == site.files["/big"] for answer in answers)
        assert site.sent("/big") == 64 << 20

    def test_a_large_body(self, site: Site) -> None:
        site.files["/big"] = bytes(64 << 20)
        assert len(get(site.url("/big")).body) == 64 << 20

    def test_tls(self, tmp_path: Path) -> None:
        made = certificate(tmp_path)
        with origin({PATH: DATA}, tls=made.pair) as site:
            for host in ("127.0.0.1", "localhost"):
                with closing(connect(site.url(PATH, host=host), made.authority)) as connection:
                    assert ask(connection, PATH).body == DATA
            with pytest.raises(ssl.SSLError), closing(connect(site.base, made.key)) as connection:
                ask(connection, PATH)


class TestBrokenConnections:
    @pytest.mark.parametrize("how", [Ending.FIN, Ending.RST])
    @pytest.mark.parametrize("after", [0, 1000, 70_000])
    def test_drop(self, site: Site, how: Ending, after: int) -> None:
        site.fault(PATH, Drop(after, how), times=1)
        broken = get(site.url(PATH))
        assert broken.body == DATA[:after]
        assert broken.broken is (
            http.client.IncompleteRead if how is Ending.FIN else ConnectionResetError
        )
        assert get(site.url(PATH)).body == DATA
        assert site.sent(PATH) == after + len(DATA)

    @pytest.mark.parametrize("how", [Ending.FIN, Ending.RST])
    def test_drop_before_the_answer(self, site: Site, how: Ending) -> None:
        site.fault(PATH, Drop(BEFORE_ANSWER, how))
        # RemoteDisconnected, the error after a FIN, is a ConnectionResetError as well.
        with pytest.raises(ConnectionResetError) as caught:
            get(site.url(PATH))
        assert isinstance(caught.value, http.client.RemoteDisconnected) == (how is Ending.FIN)
        assert [(seen.status, seen.sent) for seen in site.requests] == [(0, 0)]

    def test_a_drop_beyond_the_body_does_nothing(self, site: Site) -> None:
        site.fault(PATH, Drop(len(DATA) + 1))
        assert get(site.url(PATH)).broken is None

    @pytest.mark.parametrize("after", [BEFORE_ANSWER, 0, 1000])
    def test_stall(self, site: Site, after: int) -> None:
        site.fault(PATH, Stall(after))
        with closing(connect(site.base)) as connection:
            connection.timeout = 0.2
            connection.request("GET", PATH)
            try:
                body, broken = read(connection.getresponse())
            except TimeoutError:
                body, broken = b"", TimeoutError
            assert (body, broken) == (DATA[: max(0, after)], TimeoutError)
        (seen,) = site.requests
        assert (seen.sent, seen.ended) == (max(0, after), None)

    def test_the_end_waits_for_nobody_and_frees_the_port(self) -> None:
        with ExitStack() as clients, origin({PATH: bytes(16 << 20)}) as site:
            for fault in (Stall(1000), Stall(BEFORE_ANSWER), Drip(1, 60.0), Late(60.0), Endless()):
                site.fault(PATH, fault, times=10)
            site.fault(PATH, Stall(1000), times=10)
            for _ in range(60):
                client = clients.enter_context(closing(connect(site.base)))
                client.request("GET", PATH)
            while len(site.requests) < 60:
                time.sleep(0.005)
            began = time.monotonic()
        assert time.monotonic() - began < 30  # half of what some would wait
        assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", site.port))

    def test_hang_up_between_requests(self, site: Site) -> None:
        site.fault(PATH, HangUp())
        with closing(connect(site.base)) as connection:
            answer = ask(connection, PATH)
            assert (answer.body, answer.broken) == (DATA, None)
            assert "connection" not in answer.headers
            assert connection.sock.recv(1) == b""
            connection.close()
            assert ask(connection, PATH).body == DATA
        assert [seen.connection for seen in site.requests] == [1, 2]

    def test_drip(self, site: Site) -> None:
        site.fault("/a b.txt", Drip(size=2, every=0.05))
        began = time.monotonic()
        assert get(site.url("/a b.txt")).body == b"small"
        assert time.monotonic() - began >= 0.1

    def test_late(self, site: Site) -> None:
        site.fault(PATH, Late(0.1))
        began = time.monotonic()
        assert get(site.url(PATH)).body == DATA
        assert time.monotonic() - began >= 0.1

    def test_endless_headers(self, site: Site) -> None:
        site.fault(PATH, EndlessHeaders())
        with pytest.raises(http.client.HTTPException, match="more than 100 headers"):
            get(site.url(PATH))

    def test_an_endless_body(self, site: Site) -> None:
        site.fault(PATH, Endless())
        with closing(connect(site.base)) as connection:
            connection.request("GET", PATH)
            response = connection.getresponse()
            assert response.getheader("Content-Length") is None
            assert response.read(len(DATA) + 9) == DATA + bytes(9)
            assert len(response.read(8 << 20)) == 8 << 20


class TestUntrueAnswers:
    def test_ignored_range(self, site: Site) -> None:
        site.fault(PATH, IgnoreRange(), times=2)
        for asked in ("bytes=100-", "bytes=102400-"):
            answer = get(site.url(PATH), Range=asked)
            assert (answer.status, answer.body) == (200, DATA)
            assert not {"content-range", "accept-ranges"} & set(answer.headers)
        assert get(site.url(PATH), Range="bytes=100-").status == 206

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (WrongRange(shift=3), "bytes 103-202/102400"),
            (WrongRange(total=7), "bytes 100-199/7"),
            (Clipped(10), "bytes 100-109/102400"),
        ],
    )
    def test_wrong_content_range(self, site: Site, fault: Fault, told: str) -> None:
        site.fault(PATH, fault)
        answer = get(site.url(PATH), Range="bytes=100-199")
        assert (answer.status, answer.headers["content-range"]) == (206, told)
        assert answer.body == DATA[100 : 110 if isinstance(fault, Clipped) else 200]
        assert get(site.url(PATH)).body == DATA

    @pytest.mark.parametrize(
        ("fault", "body"),
        [
            (Short(3), DATA[:-3]),
            (Long(3), DATA + bytes(3)),
            (Flip(5), DATA[:5] + b"\x04" + DATA[6:]),
            (Flip(-1), DATA[:-1] + b"\xfe"),
        ],
    )
    def test_wrong_bytes_under_the_right_etag(self, site: Site, fault: Fault, body: bytes) -> None:
        right = get(site.url(PATH)).headers["etag"]
        site.fault(PATH, fault)
        answer = get(site.url(PATH))
        assert (answer.body, answer.broken) == (body, None)
        assert answer.headers["content-length"] == str(len(body))
        assert answer.headers["etag"] == right
        resumed = get(site.url(PATH), Range="bytes=4-")
        assert resumed.body == body[4:]
        assert resumed.headers["content-range"].endswith(f"/{len(body)}")

    def test_the_remote_changed_between_two_attempts(self, site: Site) -> None:
        site.fault(PATH, Drop(1000), times=1)
        site.fault(PATH, OtherContent(DATA[::-1]), skip=1)
        first = get(site.url(PATH))
        second = get(site.url(PATH), Range="bytes=1000-", If_Range=first.headers["etag"])
        assert (second.status, second.body) == (200, DATA[::-1])
        assert get(site.url(PATH), Range="bytes=1000-").body == DATA[::-1][1000:]

    def test_other_etag(self, site: Site) -> None:
        site.fault(PATH, OtherETag(), times=2)
        site.fault(PATH, OtherETag('W/"weak"'), skip=2, times=1)
        tags = [get(site.url(PATH)).headers["etag"] for _ in range(4)]
        assert tags[:3] == ['"request-1"', '"request-2"', 'W/"weak"']
        assert len(tags[3]) == 34

    def test_a_weak_etag_is_no_condition_for_a_range(self, site: Site) -> None:
        site.fault(PATH, OtherETag('W/"weak"'))
        assert get(site.url(PATH), Range="bytes=5-", If_Range='W/"weak"').status == 200

    def test_no_validators(self, site: Site) -> None:
        site.fault(PATH, NoValidators())
        answer = get(site.url(PATH), Range="bytes=5-")
        assert (answer.status, answer.body) == (206, DATA[5:])
        assert not {"etag", "last-modified"} & set(answer.headers)

    def test_gzip_that_nobody_asked_for(self, site: Site) -> None:
        site.fault(PATH, Gzipped())
        answer = get(site.url(PATH), Range="bytes=5-")
        assert (answer.status, answer.headers["content-encoding"]) == (200, "gzip")
        assert answer.headers["content-length"] == str(len(answer.body))
        assert gzip.decompress(answer.body) == DATA

    def test_chunked(self, site: Site) -> None:
        site.fault(PATH, Chunked())
        with closing(connect(site.base)) as connection:
            for _ in range(2):
                answer = ask(connection, PATH)
                assert (answer.body, answer.broken) == (DATA, None)
                assert answer.headers["transfer-encoding"] == "chunked"
                assert "content-length" not in answer.headers
            assert ask(connection, PATH, "HEAD").body == b""
            assert ask(connection, PATH, Range="bytes=9-10").body == DATA[9:11]
        assert {seen.connection for seen in site.requests} == {1}

    def test_close_delimited(self, site: Site) -> None:
        site.fault(PATH, CloseDelimited())
        answer = get(site.url(PATH))
        assert (answer.body, answer.broken) == (DATA, None)
        assert "content-length" not in answer.headers

    def test_a_cut_without_a_length_looks_like_an_end(self, site: Site) -> None:
        site.fault(PATH, CloseDelimited(), Drop(1000))
        answer = get(site.url(PATH))
        assert (answer.body, answer.broken) == (DATA[:1000], None)

    def test_a_cut_between_chunks_is_seen(self, site: Site) -> None:
        site.fault(PATH, Chunked(), Drop(1000))
        answer = get(site.url(PATH))
        assert answer.body == DATA[:1000]
        assert answer.broken is http.client.IncompleteRead


class TestRefusals:
    @pytest.mark.parametrize("status", [403, 404, 408, 416, 425, 429, 500, 503])
    def test_refuse(self, site: Site, status: int) -> None:
        site.fault(PATH, Refuse(status), times=1)
        with closing(connect(site.base)) as connection:
            answer = ask(connection, PATH, Range="bytes=5-")
            assert (answer.status, answer.headers["content-type"][:9]) == (status, "text/html")
            assert answer.body.startswith(b"<!DOCTYPE html>")
            assert not {"retry-after", "etag"} & set(answer.headers)
            assert ask(connection, PATH).body == DATA

    def test_retry_after(self, site: Site) -> None:
        site.fault(PATH, Refuse(429, "7"), times=1)
        site.fault(PATH, Refuse(503, http_date(60)), skip=1)
        assert get(site.url(PATH)).headers["retry-after"] == "7"
        date = parsedate_to_datetime(get(site.url(PATH)).headers["retry-after"])
        assert 50 < date.timestamp() - time.time() <= 60

    def test_a_refusal_can_be_slow_and_cut(self, site: Site) -> None:
        site.fault(PATH, Drop(10), Late(0.05), Refuse(500))
        began = time.monotonic()
        answer = get(site.url(PATH))
        assert (answer.status, len(answer.body)) == (500, 10)
        assert time.monotonic() - began >= 0.05

    def test_login_page(self, site: Site) -> None:
        site.fault(PATH, LoginPage())
        answer = get(site.url(PATH), Range="bytes=5-")
        assert (answer.status, answer.headers["content-type"][:9]) == (200, "text/html")
        assert b"log in" in answer.body

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_from_a_path_without_a_file(self, site: Site, status: int) -> None:
        site.fault("/moved", Redirect("ftp://127.0.0.1/a.bin", status))
        answer = get(site.url("/moved"))
        assert (answer.status, answer.headers["location"]) == (status, "ftp://127.0.0.1/a.bin")

    def test_require_authorization(self, site: Site) -> None:
        site.fault(PATH, RequireAuth("Bearer key"))
        assert get(site.url(PATH), Authorization="Bearer other").status == 401
        assert "www-authenticate" in get(site.url(PATH)).headers
        assert get(site.url(PATH), Authorization="Bearer key").body == DATA
        assert site.requests[0].headers["authorization"] == "Bearer other"

    def test_times_skip_method_and_mend(self, site: Site) -> None:
        site.fault(PATH, Refuse(500), skip=1, times=2, method="GET")
        statuses = [get(site.url(PATH), method).status for method in ("HEAD", "GET", "HEAD")]
        statuses += [get(site.url(PATH)).status for _ in range(3)]
        assert statuses == [200, 200, 200, 500, 500, 200]
        site.fault("*", Refuse(503))
        assert get(site.url("/a b.txt")).status == 503
        site.mend()
        assert get(site.url(PATH)).status == 200


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a root"
    folder.mkdir()
    (folder / "a.bin").write_bytes(DATA)
    (folder / "big.bin").write_bytes(bytes(8 << 20))
    return folder


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def real(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[Server]:
    with request.param(root, tmp_path / "scratch") as running:
        yield running


class TestRealServers:
    def test_ranges_and_the_log(self, real: Server) -> None:
        with closing(connect(real.url)) as connection:
            whole = ask(connection, PATH)
            part = ask(connection, f"{PATH}?x=1", Range="bytes=100-199")
            ask(connection, "/none%20such", "HEAD")
        assert (whole.status, whole.body) == (200, DATA)
        assert (part.status, part.body) == (206, DATA[100:200])
        assert part.headers["etag"] == whole.headers["etag"]
        seen = real.requests(at_least=3)
        assert [(one.method, one.path, one.status, one.range) for one in seen] == [
            ("GET", PATH, 200, ""),
            ("GET", PATH, 206, "bytes=100-199"),
            ("HEAD", "/none such", 404, ""),
        ]
        assert [one.sent for one in seen] == [len(DATA), 100, 0]

    def test_it_can_vanish_and_come_back(self, real: Server) -> None:
        first, port = real.pid, real.port
        with closing(connect(real.url)) as connection:
            ask(connection, PATH)
            real.requests(at_least=1)
            real.stop(kill=True)
            with pytest.raises(ConnectionError):
                ask(connection, PATH)
        with pytest.raises(ConnectionRefusedError):
            get(real.url + PATH)
        real.start()
        assert (real.port, real.pid != first) == (port, True)
        assert get(real.url + PATH).body == DATA
        assert len(real.requests(at_least=2)) == 2
        real.restart()
        assert get(real.url + PATH).body == DATA
        assert len(real.requests(at_least=3)) == 3

    def test_all_files_are_in_the_workdir(self, real: Server, tmp_path: Path) -> None:
        get(real.url + PATH)
        real.requests(at_least=1)
        assert {path.name for path in tmp_path.iterdir()} == {"a root", "scratch"}

    @pytest.mark.parametrize("program", [nginx, caddy])
    def test_it_is_gone_afterwards(self, program: object, root: Path, tmp_path: Path) -> None:
        serve = nginx if program is nginx else caddy
        with serve(root, tmp_path / "scratch") as server:
            pid = server.pid
            slow = connect(server.url)
            slow.request("GET", "/big.bin")
            slow.getresponse().read(10)
        slow.close()  # which nobody has waited for
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(RuntimeError, match="stopped"):
            _ = server.pid

    def test_caddy_over_tls(self, root: Path, tmp_path: Path) -> None:
        scratch = tmp_path / "scratch"
        with caddy(root, scratch, tls=True) as server:
            assert server.url.startswith("https://")
            with closing(connect(server.url, scratch / "authority.pem")) as connection:
                assert ask(connection, PATH, Range="bytes=5-").body == DATA[5:]

    def test_nginx_over_tls(self, root: Path, tmp_path: Path) -> None:
        made = certificate(tmp_path)
        with (
            nginx(root, tmp_path / "scratch", tls=made.pair) as server,
            closing(connect(server.url, made.authority)) as connection,
        ):
            assert ask(connection, PATH, Range="bytes=5-").body == DATA[5:]

    def test_nginx_with_a_limited_rate(self, root: Path, tmp_path: Path) -> None:
        (root / "slow.bin").write_bytes(bytes(250 << 10))
        with nginx(root, tmp_path / "scratch", limit_rate="100k") as server:
            began = time.monotonic()
            assert len(get(f"{server.url}/slow.bin").body) == 250 << 10
            assert time.monotonic() - began >= 0.4


class TestRelay:
    def test_it_adds_a_round_trip_to_each_request_and_one_to_a_connection(self, site: Site) -> None:
        spans = []
        with (
            relay(site.port, round_trip=0.06) as link,
            closing(connect(link.through(site.base))) as connection,
        ):
            for _ in range(3):
                began = time.monotonic()
                assert ask(connection, PATH).body == DATA
                spans.append(time.monotonic() - began)
        assert spans[0] >= 0.12
        assert min(spans[1:]) >= 0.06

    def test_many_large_bodies_at_once(self, site: Site) -> None:
        site.files["/big"] = os.urandom(4 << 20)
        with relay(site.port, round_trip=0.02) as link, ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(get, [link.through(site.url("/big"))] * 16))
        assert all(answer.body == site.files["/big"] for answer in answers)

    def test_ends_and_resets_pass_through_after_the_bytes_before_them(self, site: Site) -> None:
        site.fault(PATH, Drop(1000, Ending.RST), times=1)
        site.fault(PATH, CloseDelimited(), skip=1)
        with relay(site.port, round_trip=0.02) as link:
            reset = get(link.through(site.url(PATH)))
            ended = get(link.through(site.url(PATH)))
        assert (reset.body, reset.broken) == (DATA[:1000], ConnectionResetError)
        assert (ended.body, ended.broken) == (DATA, None)

    def test_a_cut_link_is_silent_until_restored(self, site: Site) -> None:
        with relay(site.port) as link, closing(connect(link.through(site.base))) as connection:
            assert ask(connection, PATH).body == DATA
            link.cut()
            began = time.monotonic()
            mending = threading.Timer(0.2, link.restore)
            mending.start()
            assert ask(connection, PATH).body == DATA
            assert time.monotonic() - began >= 0.2
            mending.join()

    def test_a_reset_link(self, site: Site) -> None:
        with relay(site.port) as link, closing(connect(link.through(site.base))) as connection:
            ask(connection, PATH)
            link.cut(reset=True)
            with pytest.raises(ConnectionError):
                ask(connection, PATH)
            with pytest.raises(ConnectionError):
                get(link.through(site.url(PATH)))
            link.restore()
            assert get(link.through(site.url(PATH))).body == DATA

    def test_a_server_that_is_gone_and_a_port_that_is_freed(self) -> None:
        with origin({PATH: DATA}) as site:
            pass
        with relay(site.port) as link, pytest.raises(ConnectionError):
            get(link.through(site.url(PATH)))
        with pytest.raises(ConnectionRefusedError):
            get(link.through(site.url(PATH)))

    def test_the_end_waits_for_nobody(self, site: Site) -> None:
        site.fault(PATH, Stall(10))
        with relay(site.port) as link, closing(connect(link.through(site.base))) as connection:
            connection.request("GET", PATH)
            connection.getresponse()
        assert not [thread for thread in threading.enumerate() if thread.name == "relay"]
