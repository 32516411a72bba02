"""What a project asks for: the `[datasets]` of a `dscache.toml`, as text and as a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dscache.errors import InvalidFile, NotFound, UsageError
from dscache.model import Reference
from dscache.project.lockfile import ANY, Lock

Wanted = Mapping[str, str]

_TABLE = "datasets"


def key_for(reference: Reference, wanted: Wanted, known_as: Lock) -> str:
    """The key under which a dataset is asked for already, or is to be.

    `known_as` is the lock, by which another key may be known to mean the same dataset.
    """
    key = str(Reference(reference.name, reference.registry))
    if key in wanted:
        return key
    same = {line.name for line in known_as.meant(Reference(reference.name, reference.registry))}
    return min(same & wanted.keys(), default=key)


def key_of(name: str, wanted: Wanted) -> str:
    """The key that a user names who wants it removed.

    Raises:
        UsageError: the name is malformed, has a version, or may mean several.
        NotFound: the project does not ask for it.
    """
    reference = Reference.parse(name)
    if reference.version:
        raise UsageError(f"{name!r} has a version; a name without one is expected")
    if name in wanted:
        return name
    same = [key for key in wanted if Reference.parse(key).name == reference.name]
    if reference.registry is None and len(same) == 1:
        return same[0]
    if reference.registry is None and same:
        raise UsageError(f"{name!r} may be {' or '.join(same)}", hint="name the registry as well")
    import difflib  # late: mostly it is there

    near = difflib.get_close_matches(name, wanted, 3, 0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    raise NotFound(f"this project does not ask for {name}", hint=hint, name=name, near=near)


def version_for(reference: Reference, key: str, wanted: Wanted) -> str:
    """What to ask for: the version that was named, else what was asked for, else any."""
    return reference.version or wanted.get(key, ANY)


def edited(text: str, changes: Mapping[str, str | None]) -> str:
    """The text of a `dscache.toml` in which these are asked for, or, with None, no more.

    All else stays as it was, comments and order too.

    Raises:
        InvalidFile: it is not TOML that can be edited.
    """
    import tomlkit  # late: only who edits needs it
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        if _TABLE not in document:
            document[_TABLE] = tomlkit.table()
        table = document[_TABLE]
        for key, version in changes.items():
            if version is None:
                table.pop(key, None)
            elif table.get(key) != version:
                table[key] = version
        return tomlkit.dumps(document)
    except TOMLKitError as error:
        raise InvalidFile(f"dscache.toml cannot be edited: {error}") from error
