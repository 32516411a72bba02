"""The rules of a signed registry as values: roles, how long each is good for, files, bins.

Pure, and free of the packages that sign, so that a look-up can ask it what is where.

    metadata/<n>.root.json          which keys sign what; each signed by the one before it too
    metadata/timestamp.json         which snapshot is the present one; the only file that changes
    metadata/<n>.snapshot.json      the versions of targets and bins
    metadata/<n>.targets.json       length and sha256 of every registry file, or the bins
    metadata/<n>.bin<bits>-<hex>.json   a part of them, chosen by the sha256 of the file's name
    targets/<sha256>.<file>         a registry file as it was signed
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

METADATA = "metadata"
TARGET_FOLDER = "targets"
TIMESTAMP_FILE = f"{METADATA}/timestamp.json"

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
#: Signed at each publishing, by one key: whoever publishes needs all three at once.
ONLINE = (TARGETS, SNAPSHOT, TIMESTAMP)

#: How long what is signed now can be used. That of `targets` counts for bins as well: a snapshot
#: names their versions, so they are as fresh as it is, and not all of them need signing each year.
LIFETIMES = {
    ROOT: timedelta(days=365),
    TARGETS: timedelta(days=3650),
    SNAPSHOT: timedelta(days=365),
    TIMESTAMP: timedelta(days=30),
}
_SOON = 0.25

#: Up to so many registry files are listed in `targets` itself.
MOST_WITHOUT_BINS = 256
_MOST_BITS = 14

_ROOT_FILE = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


def expiry(role: str) -> datetime:
    """When something signed now for a role ends."""
    return datetime.now(UTC).replace(microsecond=0) + LIFETIMES[role]


def ends_soon(role: str, expires: datetime) -> bool:
    """True in the last quarter of the time for which a role's metadata is good."""
    return expires - datetime.now(UTC) < LIFETIMES[role] * _SOON


def bits_for(files: int) -> int:
    """How many bits of a name's sha256 choose its bin; 0 for no bins.

    A look-up reads the snapshot, which has a line for each bin, and one bin. Both are small if
    there are about as many bins as files in a bin. Even numbers only, so that a registry that grows
    is divided anew only when it has become 16 times as large.
    """
    if files <= MOST_WITHOUT_BINS:
        return 0
    bits = -(-(files - 1).bit_length() // 2)
    return min(bits + bits % 2, _MOST_BITS)


def is_crowded(files: int, bits: int) -> bool:
    """True if a list of so many files, one of 2**bits, says that there should be more of them."""
    return bits < _MOST_BITS and files > (2 << bits if bits else MOST_WITHOUT_BINS)


def bin_prefix(bits: int) -> str:
    """Names of bins hold their bits: a snapshot never forgets a name, so no two may be equal."""
    return f"bin{bits}"


def metadata_file(role: str, version: int) -> str:
    """Where the metadata of a role is, below the registry."""
    return f"{METADATA}/{version}.{role}.json"


def target_file(sha256: str, file: str) -> str:
    """Where a registry file of that content is, below the registry."""
    return f"{TARGET_FOLDER}/{sha256}.{file}"


def root_versions(folder: str) -> list[int]:
    """The versions of the roots in an author's registry, the oldest first; none if unsigned."""
    try:
        names = os.listdir(f"{folder}/{METADATA}")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(found[1]) for found in map(_ROOT_FILE.fullmatch, names) if found)
