"""Which filesystem a folder is on, as far as the system tells."""

from __future__ import annotations

import os
import re
import sys

import msgspec

#: As mountinfo calls them.
_NETWORK = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
        "virtiofs",
        "vboxsf",
        "wekafs",
    }
)


class Mount(msgspec.Struct, frozen=True):
    """Where a filesystem is mounted, which it is, and how."""

    point: str
    kind: str
    options: str

    @property
    def is_network(self) -> bool:
        """True if other hosts may write to it."""
        return self.kind in _NETWORK


def mount_of(path: str) -> Mount | None:
    """The filesystem on which a folder is, or None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    real = os.path.realpath(path)
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            mount = _parsed(line)
            holds = real == mount.point or real.startswith(f"{mount.point.rstrip('/')}/")
            if holds and (found is None or len(mount.point) >= len(found.point)):
                found = mount  # of two on one place the later is on top
    return found


def _parsed(line: str) -> Mount:
    """A line of mountinfo, as proc(5) describes it."""
    before, _, after = line.partition(" - ")
    fields, kind = before.split(), after.split()
    options = f"{fields[5]},{kind[2]}" if len(kind) > 2 else fields[5]
    return Mount(_unescaped(fields[4]), kind[0], options)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
