"""Reading an archive: which format it is, who reads that, and what its damage is called."""

from __future__ import annotations

import io

import msgspec

from dscache import compression
from dscache.errors import DscacheError, IntegrityError
from dscache.recipes import SINGLE
from dscache.store.drafts import Draft
from dscache.unpack import formats, headers, singles, tars, zips
from dscache.unpack.crew import Crew
from dscache.unpack.growing import Growing, Windows
from dscache.unpack.rules import Rules

_BUFFER = 1 << 20


class Archive(msgspec.Struct, frozen=True):
    """What is unpacked.

    Attributes:
        name: for messages.
        recipe: how, with that of the archives in it if there is one; "auto" goes by the first
            bytes.
        path: the file.
        size: bytes that it has, or is going to have; 0 where that is not known yet.
        place: the folder of the draft for its members, "" for the root; of a single compressed
            file its path.
    """

    name: str
    recipe: str
    path: str
    size: int
    place: str = ""

    @property
    def outer(self) -> str:
        """How the archive itself is unpacked."""
        return self.recipe.partition("+")[0]

    @property
    def inner(self) -> str:
        """How the archives in it are; empty where they stay packed."""
        return self.recipe.partition("+")[2]


def unpack(archive: Archive, growing: Growing, draft: Draft, rules: Rules) -> None:
    """Bring what an archive holds into a draft.

    Raises:
        UnsafeError: a member is refused.
        IntegrityError: the archive is damaged.
        InvalidFile: the recipe does not fit it, or no recipe does.
        Stopped: nobody wants it any more.
        OSError: the disk does not take it.
    """
    file = io.BufferedReader(growing, _BUFFER)
    start = file.peek(compression.ENOUGH)
    formats.check_known(start, archive.name)
    damage = zips.DAMAGE
    rules.enter("" if archive.outer in SINGLE else archive.place)
    try:
        if formats.is_zip(archive.outer, start):
            growing.wait()
            zips.unpack(archive.path, draft, rules, growing.skip)
        else:
            kind = formats.compression(archive.outer, start)
            stream, damage = compression.opened(file, kind)
            damage += headers.DAMAGE
            windows = Windows(stream, lambda: growing.skip(0))
            if archive.outer in SINGLE:
                singles.unpack(windows, draft, rules, archive.place or singles.CONTENT)
                return
            if archive.outer == "auto":
                formats.check_is_tar(windows, archive.name)
            with Crew(beside_a_download=not growing.is_complete) as crew:
                tars.unpack(windows, draft, rules, crew)
    except DscacheError:
        raise
    except damage as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the archive's
        raise IntegrityError(
            f"{archive.name} is damaged: {error}",
            hint="its hash is right, so the publisher's own copy is; tell the maintainer of "
            "the registry, or fetch it without unpacking",
            file=archive.name,
        ) from error
