"""What may take the place of what at a destination. Pure decisions about one file at a time; the
same ones when a publishing is planned, and when somebody else was faster.

1. A version's content never changes. Its texts and sources may.
2. A dataset's current version is changed only by who has the one that was current before, so that
   nobody takes back what he has not seen.
3. A name stays a dataset, or another name for one; and a registry keeps its own name.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dscache.depots import Stored
from dscache.errors import DscacheError, IntegrityError, InvalidFile, TransferError
from dscache.publishing.forms import with_blobs_of, with_versions
from dscache.publishing.source import Own, content
from dscache.registry.entries import Document, decode_header
from dscache.registry.rendering import render
from dscache.registry.rules import located
from dscache.registry.tables import Alias, Entry


class Put(msgspec.Struct, frozen=True):
    """A file to put in place of the one of that version; an empty version: of none."""

    own: Own
    data: bytes
    version: str = ""


def put(
    own: Own, there: Stored | None, contents: Mapping[str, Mapping[str, str]], url: str
) -> Put | None:
    """What to put for an author's file, given what is there now; None where that will do.

    Args:
        contents: the content identity of each version that the author has, by dataset.
        url: the destination, for messages.

    Raises:
        IntegrityError: a published version has other content.
        TransferError: somebody has published what the author does not have.
        InvalidFile: the name means something else there, or what is there is malformed.
    """
    if there is None:
        return Put(own, own.data)
    if there.data == own.data:
        return None
    if own.entry is None:
        _refuse_other_registry(own, there, url)
        return Put(own, own.data, there.version)
    known = _entry(there.data, f"{url}/{own.file}")
    if isinstance(own.entry, Alias) or isinstance(known, Alias):
        if type(known) is not type(own.entry):
            raise InvalidFile(
                f"{own.name.dataset} is a dataset in one of {url} and the folder that is "
                "published, and another name for a dataset in the other",
                hint="choose another name",
                file=own.file,
            )
        return Put(own, own.data, there.version)
    versions = contents[own.name.dataset]
    _refuse_unknown(own, known, versions, url)
    if versions[known.version] != content(known):
        raise _other_content(f"{own.name.dataset}@{known.version}", url)
    entry, data = own.entry, own.data
    if known.versions:
        entry, data = with_versions(entry, data, {*known.versions, *entry.versions})
    if known.version == entry.version:
        form = with_blobs_of(entry, known)
        data = data if form == entry else render(form)
    return Put(own, data, there.version) if data != there.data else None


def _refuse_other_registry(own: Own, there: Stored, url: str) -> None:
    try:
        known = decode_header(there.data).name
    except InvalidFile as error:
        raise located(error, f"{url}/{own.file}") from error
    if known != decode_header(own.data).name:
        raise InvalidFile(
            f"{url} holds the registry {known!r}, not {decode_header(own.data).name!r}",
            hint="publish to another address, or change the name in registry.toml",
            file=own.file,
        )


def _entry(data: bytes, where: str) -> Entry | Alias:
    try:
        document = Document(data, local=False)
    except DscacheError as error:
        raise located(error, where) from error
    for problem in document.problems:
        raise problem.located(where)
    return document.entry


def _refuse_unknown(own: Own, known: Entry, versions: Mapping[str, str], url: str) -> None:
    if known.version in versions:
        return
    name = own.name.dataset
    raise TransferError(
        f"{name}@{known.version} is the current version of {name} at {url}, and you do not have it",
        hint=f"get {name}@{known.version}.toml from there into the folder, and publish again",
        file=own.file,
    )


def _other_content(reference: str, url: str) -> IntegrityError:
    return IntegrityError(
        f"{reference} is published at {url} with other content; published versions never change",
        hint="give the new content another version; nothing of it was published",
        name=reference,
    )
