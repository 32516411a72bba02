"""Recipes: how an artifact is unpacked, and where what it holds stands in the dataset. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dscache.errors import InvalidFile

#: Recipes for single compressed files, and what their programs append to a name.
SINGLE = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
RECIPES = frozenset({"tar", "zip", "auto", *SINGLE})

#: What may be in an archive and be unpacked in turn, as in "tar+zip".
_ARCHIVES = frozenset({"tar", "zip"})
_INNER = _ARCHIVES | SINGLE.keys()

#: Archives that no recipe unpacks, and what does.
FOREIGN = {"7z": "`7z x`, or the package py7zr", "rar": "`unrar x` or `7z x`"}

_TAR_NAMES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst")
_SUFFIXES = {
    "tar": (*_TAR_NAMES, *(f".tar{suffix}" for suffix in SINGLE.values())),
    "zip": (".zip",),
}


def check_recipe(path: str, recipe: str) -> None:
    """Make sure that there is such a recipe, and that it may fit a file of that name.

    Raises:
        InvalidFile: there is not, or no recipe unpacks such files; says which program does.
    """
    kind = path.lower().rpartition(".")[2] if recipe == "auto" else recipe
    if kind in FOREIGN:
        raise foreign(path, kind)
    outer, plus, inner = recipe.partition("+")
    if outer not in RECIPES or (plus and not (outer in _ARCHIVES and inner in _INNER)):
        known = ", ".join(sorted(RECIPES))
        raise InvalidFile(
            f"unknown recipe {recipe!r}; known are {known}",
            hint="for archives in an archive two of them, such as tar+tar or zip+gzip",
            recipe=recipe,
        )


def foreign(path: str, kind: str) -> InvalidFile:
    """The error for an archive that no recipe unpacks."""
    return InvalidFile(
        f"{path}: no recipe unpacks {kind} archives",
        hint=f"fetch it without `unpack` and use {FOREIGN[kind]}; or publish it as tar or zip",
        recipe=kind,
    )


def recipe_for(path: str, recipe: str) -> str:
    """The recipe itself; for `auto`, what the name of the file says.

    `a.csv.gz` is a single file, `a.tar.gz` is not. Still "auto" for a name that says nothing; then
    the first bytes decide, between archives.
    """
    if recipe != "auto":
        return recipe
    name = path.lower()
    for archive, suffixes in _SUFFIXES.items():
        if name.endswith(suffixes):
            return archive
    return next((kind for kind, suffix in SINGLE.items() if name.endswith(suffix)), "auto")


def stem_of(path: str, recipe: str) -> str:
    """A path without what its format appends to it: `a/b.tar.gz` and tar give `a/b`."""
    parent, slash, name = path.rpartition("/")
    stem = _without(name, (SINGLE[recipe],) if recipe in SINGLE else _SUFFIXES[recipe])
    return parent + slash + (stem or name)


def unpacked_path(path: str, recipe: str, folder: str = "") -> str | None:
    """Where the content of a single compressed file stands: its name without the suffix.

    In `folder`, else beside where the compressed file would be. None for an archive, whose members
    name themselves.
    """
    found = recipe_for(path, recipe)
    if found not in SINGLE:
        return None
    stem = stem_of(path, found)
    return f"{folder}/{stem.rpartition('/')[2]}" if folder else stem


def _without(name: str, suffixes: Sequence[str]) -> str:
    suffix = max((each for each in suffixes if name.lower().endswith(each)), key=len, default="")
    return name[: len(name) - len(suffix)]
