"""The contenders, by what they are to fetch: one file, or many small ones.

Every program is given the options that make it fast and quiet, and no configuration of a user.
Rows are named by the options that matter.
"""

from __future__ import annotations

import sys

from tests.bench.archives import Archive
from tests.bench.measuring import DSCACHE, FLOOR, Contender
from tests.bench.payloads import File, Lists

DS = "dscache"
CURL = "curl -o"
CURL_HASH = "curl -o, then hashlib"
CURL_MANY = "curl -Z"
RCLONE = "rclone copy"
ARIA2 = "aria2c -x16 -s16 -k1M --checksum"
ARIA2_MANY = "aria2c -j32, checksums"
AXEL = "axel -n16"
POOCH = "pooch.retrieve"
POOCH_LOOP = "loop over Pooch.fetch"
PACKED = "dscache, not unpacked"
PROJECT = "dscache, and hard links in a project"
TAR = "tar -x"
UNZIP = "unzip -q"
CP = "cp -al"
VERIFY_FULL = "dscache verify --full"
VERIFY_QUICK = "dscache verify --quick"
HASHLIB = "hashlib.file_digest, on one core"

#: What GNU tar runs for an option.
_CALLED = {"-z": "gzip", "-J": "xz", "--zstd": "zstd"}

_CURL_PARALLEL = 50  # curl's own default


def peer(name: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a function of `peers`, with the target folder as its last word."""
    return (sys.executable, "-m", "tests.bench.peers", name, *arguments, "{target}")


def dscache_file(url: str, file: File) -> Contender:
    """One file with dscache."""
    return Contender(DS, peer("dscache_file", url, file.sha256), role=DSCACHE)


def dscache_small() -> Contender:
    """The dataset `small` of the configured registry with dscache."""
    return Contender(DS, peer("dscache_datasets", "small"), role=DSCACHE)


def curl(url: str, *options: str) -> Contender:
    """One file with curl, unverified."""
    command = ("curl", "-q", "-sS", "-f", *options, "-o", "{target}/file", url)
    return Contender(CURL, command, verifies=False)


def curl_then_hashlib(url: str, file: File) -> Contender:
    """One file with curl, then a pass of hashlib over it."""
    return Contender(CURL_HASH, peer("curl_then_hashlib", url, file.sha256))


def aria2(url: str, file: File, connections: int = 16, *options: str) -> Contender:
    """One file with aria2c and a checksum."""
    # Without -k a file is split into pieces of 20 MiB at least, and 256 MiB into twelve.
    split = (f"-x{connections}", f"-s{connections}", "-k1M")
    command = ("aria2c", "--no-conf", "-q", *split, *options)
    where = ("-d", "{target}", "-o", "file", url)
    name = " ".join(("aria2c", *split, "--checksum"))
    return Contender(name, (*command, f"--checksum=sha-256={file.sha256}", *where))


def axel(url: str, connections: int = 16, *options: str) -> Contender:
    """One file with axel, unverified."""
    words = ("axel", f"-n{connections}", *options)
    command = (*words, "-q", "-o", "{target}/file", url)
    return Contender(" ".join(words), command, verifies=False)


def rclone(url: str, *options: str) -> Contender:
    """One file with rclone, unverified: plain http knows no hashes."""
    base, _, name = url.rpartition("/")
    command = ("rclone", "copy", "--config", "", "--http-url", base, *options)
    return Contender(RCLONE, (*command, f":http:{name}", "{target}"), verifies=False)


def rclone_copyurl(url: str) -> Contender:
    """One file with rclone in one stream, unverified."""
    command = ("rclone", "copyurl", "--config", "", url, "{target}/file")
    return Contender("rclone copyurl", command, verifies=False)


def wget(url: str, *options: str) -> Contender:
    """One file with wget, unverified."""
    command = ("wget", "--no-config", "-q", *options, "-O", "{target}/file", url)
    return Contender("wget -O", command, verifies=False)


def one_file(url: str, file: File) -> list[Contender]:
    """Everybody, for one file."""
    arguments = (url, file.sha256)
    return [
        dscache_file(url, file),
        curl(url),
        curl_then_hashlib(url, file),
        rclone(url),
        rclone_copyurl(url),
        aria2(url, file),
        axel(url),
        wget(url),
        Contender(POOCH, peer("pooch_file", *arguments), needs="pooch"),
        Contender("urllib, then hashlib (as torchvision)", peer("urllib_file", *arguments)),
        Contender(
            "huggingface_hub http_get, then hashlib",
            peer("hub_file", *arguments),
            needs="huggingface_hub",
        ),
        *_floors(url, file),
    ]


def _floors(url: str, file: File) -> list[Contender]:
    path = str(file.path)
    hashing = (sys.executable, "-m", "tests.bench.peers", "hash_file", path)
    nowhere = ("curl", "-q", "-sS", "-f", "-o", "/dev/null", url)
    return [
        Contender("hashlib over the file", hashing, role=FLOOR, leaves=False),
        Contender("cp of the file", ("cp", path, "{target}/"), role=FLOOR, verifies=False),
        Contender("curl -o /dev/null", nowhere, role=FLOOR, verifies=False, leaves=False),
    ]


def many_files(lists: Lists) -> list[Contender]:
    """Everybody, for many small files."""
    arguments = (lists.base, str(lists.hashes))
    return [
        dscache_small(),
        curl_many(lists),
        rclone_many(lists),
        aria2_many(lists),
        wget_many(lists),
        Contender(POOCH_LOOP, peer("pooch_loop", *arguments), needs="pooch"),
        Contender("urllib, then hashlib (as torchvision)", peer("urllib_loop", *arguments)),
        Contender(
            "requests in 8 processes, then hashlib",
            peer("requests_pool", *arguments, "8"),
            needs="requests",
        ),
        Contender(
            "huggingface_hub http_get, then hashlib",
            peer("hub_loop", *arguments),
            needs="huggingface_hub",
        ),
    ]


def curl_many(lists: Lists, *options: str, parallel: int = _CURL_PARALLEL) -> Contender:
    """Many files with curl, unverified."""
    name = " ".join((CURL_MANY, *options))
    if parallel != _CURL_PARALLEL:
        name += f" --parallel-max {parallel}"
    together = ("-Z", "--parallel-max", str(parallel), "--no-progress-meter")
    where = ("--output-dir", "{target}", "-K", str(lists.curl))
    return Contender(name, ("curl", "-q", "-f", *options, *together, *where), verifies=False)


def rclone_many(lists: Lists, transfers: int = 16) -> Contender:
    """Many files with rclone, unverified; told what there is, so that it asks for nothing twice."""
    what = ("--files-from-raw", str(lists.names), "--no-traverse", "--http-no-head")
    how = ("--transfers", str(transfers), "--checkers", str(transfers))
    command = ("rclone", "copy", "--config", "", "--http-url", lists.base, *what, *how)
    name = f"{RCLONE} --transfers {transfers}"
    return Contender(name, (*command, ":http:", "{target}"), verifies=False)


def aria2_many(lists: Lists, *options: str, jobs: int = 32) -> Contender:
    """Many files with aria2c and their checksums."""
    command = ("aria2c", "--no-conf", "-q", f"-j{jobs}", *options, "-d", "{target}")
    return Contender(f"aria2c -j{jobs}, checksums", (*command, "-i", str(lists.aria2)))


def wget_many(lists: Lists, *options: str) -> Contender:
    """Many files with wget on one connection, unverified."""
    command = ("wget", "--no-config", "-q", *options, "-P", "{target}", "-i", str(lists.urls))
    return Contender("wget -i", command, verifies=False)


def tar(archive: Archive, option: str = "") -> Contender:
    """An archive with GNU tar; `option` says how it is compressed."""
    words = [word for word in (TAR, option) if word]
    where = ("-f", str(archive.file.path), "-C", "{target}")
    command = (*" ".join(words).split(), *where)
    return Contender(" ".join(words), command, verifies=False, calls=_CALLED.get(option, ""))


def unzip(archive: Archive) -> Contender:
    """An archive with Info-ZIP's unzip."""
    return Contender(
        UNZIP, ("unzip", "-q", str(archive.file.path), "-d", "{target}"), verifies=False
    )


def pooch_unpacked(processor: str, archive: Archive) -> Contender:
    """An archive that is there with a processor of Pooch, which looks at its hash first."""
    command = peer("pooch_unpacked", processor, str(archive.file.path), archive.file.sha256)
    return Contender(f"pooch.{processor}", command, needs="pooch")
