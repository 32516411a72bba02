"""Filling a draft: from an archive, and the archives in it where the entry says so."""

from __future__ import annotations

from dscache import disk
from dscache.store.drafts import Draft
from dscache.unpack.growing import Growing
from dscache.unpack.inner import unpack_members
from dscache.unpack.reading import Archive, unpack
from dscache.unpack.rules import Limits, Rules


def fill(archive: Archive, growing: Growing, draft: Draft, limits: Limits) -> None:
    """Bring all that the archive holds into the draft.

    Raises:
        UnsafeError: a member is refused.
        IntegrityError: the archive is damaged.
        InvalidFile: it is no archive that the recipe can unpack.
        StorageError: the disk does not take it.
        Stopped: nobody wants it any more.
    """
    rules = Rules(limits, archive.size)
    with growing, disk.storage_errors(f"{archive.name} cannot be unpacked"):
        unpack(archive, growing, draft, rules)
        if archive.inner:
            growing.wait()  # mostly it is complete; of what was given up no more is unpacked
            unpack_members(archive, draft, rules, growing.skip)
