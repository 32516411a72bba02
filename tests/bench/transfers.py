"""The workloads that are tables of downloads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench import payloads
from tests.bench.machine import filesystem
from tests.bench.measuring import DSCACHE, Contender, Course, Row, Table, compare
from tests.bench.payloads import File
from tests.bench.programs import (
    aria2,
    aria2_many,
    axel,
    curl,
    curl_many,
    curl_then_hashlib,
    dscache_file,
    dscache_small,
    many_files,
    one_file,
    peer,
    rclone,
    rclone_many,
    wget_many,
)
from tests.bench.room import Room
from tests.bench.shaper import shaped
from tests.relay import relay

#: Bytes a second of one connection, and of a client as a whole, where they are throttled.
EACH, WHOLE = 20e6, 60e6
_ROUND_TRIP, _FAR_FILES, _FAR_CONNECTIONS = 0.05, 2000, 16
_CONNECTIONS = (1, 2, 4, 8, 16)


def big(room: Room) -> Table:
    """Everybody and the large file."""
    url = f"{room.http.url}/{room.big.path.name}"
    rows = compare(room.course(room.big), one_file(url, room.big))
    return Table("big", f"{_size(room.big)} over http, cache in memory", rows)


def disk(room: Room) -> Table:
    """The large file again, with the cache on a disk."""
    parent = Path(os.environ.get("BENCH_DISK") or "/var/tmp")
    kind = filesystem(parent)
    title = f"{_size(room.big)} over http, cache on {kind}"
    if kind == "tmpfs":
        return Table("disk", title, facts=["SKIPPED: no disk; BENCH_DISK names a folder on one"])
    url = f"{room.http.url}/{room.big.path.name}"
    contenders = [
        dscache_file(url, room.big),
        curl(url),
        curl_then_hashlib(url, room.big),
        rclone(url),
    ]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder:
        course = replace(room.course(room.big), target=Path(folder) / "target")
        return Table("disk", title, compare(course, contenders))


def tls(room: Room) -> Table:
    """The large file over https."""
    authority = room.certificate.authority
    url = f"{room.https.url}/{room.big.path.name}"
    contenders = [
        dscache_file(url, room.big),
        curl(url),
        curl_then_hashlib(url, room.big),
        rclone(url),
        aria2(url, room.big, 16, f"--ca-certificate={authority}"),
        # axel takes no certificate for an address, nor for localhost: -k, and the same work.
        axel(url, 16, "-k"),
    ]
    course = room.course(room.big, room.environment(authority=authority))
    return Table("tls", f"{_size(room.big)} over https", compare(course, contenders))


def small(room: Room) -> Table:
    """Everybody and the small files."""
    lists = room.lists("small", room.http.url)
    course = _course_of_small(room, lists.registry, lists.count)
    return Table("small", _title_of_small(room, "http"), compare(course, many_files(lists)))


def small_h2(room: Room) -> Table:
    """The small files over https, with HTTP/2 for those who speak it."""
    lists = room.lists("small-h2", room.http2.url)
    option = f"--ca-certificate={room.http2_authority}"
    contenders = [
        dscache_small(),
        curl_many(lists),
        curl_many(lists, "--http1.1"),
        rclone_many(lists),
        aria2_many(lists, option),
        wget_many(lists, option),
    ]
    course = _course_of_small(room, lists.registry, lists.count, room.http2_authority)
    return Table("small-h2", _title_of_small(room, "https, HTTP/2"), compare(course, contenders))


def limited(room: Room) -> Table:
    """A server that limits each request."""
    url = f"{room.limited.url}/{room.middle.path.name}"
    contenders = [
        dscache_file(url, room.middle),
        *(aria2(url, room.middle, count) for count in (16, 4)),
        axel(url),
        rclone(url),
        curl(url),
    ]
    title = f"{_size(room.middle)}, nginx limits each request to 20 MiB/s after a second's worth"
    return Table("limited", title, compare(_unhurried(room, room.middle), contenders))


def each(room: Room) -> Table:
    """A server that throttles each connection."""
    with shaped(room.http.port, each=EACH) as port:
        rows = _by_connections(room, room.middle, port)
    title = f"{_size(room.middle)}, each connection throttled to {EACH / 1e6:.0f} MB/s"
    return Table("each", title, rows)


def whole(room: Room) -> Table:
    """A server, or a line, that throttles the client as a whole."""
    with shaped(room.http.port, total=WHOLE) as port:
        rows = _by_connections(room, room.middle, port)
    title = f"{_size(room.middle)}, all connections together throttled to {WHOLE / 1e6:.0f} MB/s"
    return Table("whole", title, rows)


def fast(room: Room) -> Table:
    """A server that throttles nothing, where more connections only cost."""
    title = f"{_size(room.half)}, not throttled, by number of connections"
    return Table("fast", title, _by_connections(room, room.half, room.http.port))


def latency(room: Room) -> Table:
    """Small files from far away."""
    with relay(room.http.port, round_trip=_ROUND_TRIP) as link:
        lists = room.lists("latency", link.through(room.http.url), _FAR_FILES)
        contenders = [
            dscache_small(),
            curl_many(lists, parallel=_FAR_CONNECTIONS),
            rclone_many(lists, _FAR_CONNECTIONS),
            aria2_many(lists, jobs=_FAR_CONNECTIONS),
        ]
        course = _course_of_small(room, lists.registry, lists.count)
        rows = compare(replace(course, warm_up=False, patience=6.0), contenders)
    title = f"{_FAR_FILES:,} x {room.small.size >> 10} KiB, {_ROUND_TRIP * 1000:.0f} ms away"
    return Table("latency", title, rows, _speeds(rows))


def _speeds(rows: Sequence[Row]) -> list[str]:
    most = _FAR_CONNECTIONS / _ROUND_TRIP
    return [
        f"{row.name}: {_FAR_FILES / row.median():.0f} files/s, "
        f"{_FAR_FILES / row.median() / most:.0%} of {_FAR_CONNECTIONS} connections / round trip"
        for row in rows
        if row.seconds
    ]


def hosts(room: Room) -> Table:
    """Two files from two hosts, one of them slow: when does the other one's file appear?"""
    slow = payloads.hole(room.files / "slow.bin", room.half.size + 1)
    blob = f"{{target}}/blobs/sha256/{room.half.sha256[:2]}/{room.half.sha256[2:]}"
    contenders = []
    with shaped(room.http.port, total=EACH) as port:
        registry = payloads.register(
            room.folder / "registry-of-hosts",
            quick=(room.half, f"{room.http.url}/{room.half.path.name}"),
            slow=(slow, f"http://localhost:{port}/{slow.path.name}"),
        )
        for name, names in (
            (ALONE, "quick"),
            (BESIDE, "slow,quick"),
        ):
            command = peer("dscache_datasets", names)
            contenders.append(Contender(name, command, role=DSCACHE, until=blob))
        course = room.course(room.half, room.environment(registry=registry))
        rows = compare(course, contenders)
    title = f"{_size(room.half)} from a quick host, beside as much from one with 20 MB/s"
    return Table("hosts", title, rows)


ALONE, BESIDE = "dscache, the quick file alone", "dscache, beside the slow one"


def _by_connections(room: Room, file: File, port: int) -> list[Row]:
    url = f"http://127.0.0.1:{port}/{file.path.name}"
    contenders = [
        dscache_file(url, file),
        rclone(url),
        *(aria2(url, file, count) for count in _CONNECTIONS),
        *(axel(url, count) for count in _CONNECTIONS),
    ]
    return compare(_unhurried(room, file), contenders)


def _unhurried(room: Room, file: File) -> Course:
    """Where the rate is given, runs are alike, and some are long: less of them will do."""
    return replace(room.course(file), warm_up=False, patience=4.0)


def _course_of_small(
    room: Room, registry: Path, count: int, authority: Path | None = None
) -> Course:
    environment = room.environment(registry=registry, authority=authority)
    return Course(room.folder / "target", count, room.small.size, environment, room.runs)


def _title_of_small(room: Room, how: str) -> str:
    return f"{len(room.small.sha256):,} x {room.small.size >> 10} KiB over {how}"


def _size(file: File) -> str:
    mebibytes = file.size >> 20
    return f"{mebibytes} MiB" if mebibytes % 1024 else f"{mebibytes >> 10} GiB"
