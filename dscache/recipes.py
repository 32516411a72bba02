"""Recipes: how an artifact is unpacked, and where what it holds stands in the dataset. Pure."""

from __future__ import annotations

from dscache.errors import InvalidFile

#: Recipes for single compressed files, and what their programs append to a name.
SINGLE = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
RECIPES = frozenset({"tar", "zip", "auto", *SINGLE})

#: Archives that no recipe unpacks, and what does.
FOREIGN = {"7z": "`7z x`, or the package py7zr", "rar": "`unrar x` or `7z x`"}

_TAR_NAMES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst")


def check_recipe(path: str, recipe: str) -> None:
    """Make sure that there is such a recipe, and that it may fit a file of that name.

    Raises:
        InvalidFile: there is not, or no recipe unpacks such files; says which program does.
    """
    kind = path.lower().rpartition(".")[2] if recipe == "auto" else recipe
    if kind in FOREIGN:
        raise foreign(path, kind)
    if recipe not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        raise InvalidFile(f"unknown recipe {recipe!r}; known are {known}", recipe=recipe)


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
    single = next((kind for kind, suffix in SINGLE.items() if name.endswith(suffix)), "")
    stem = name[: -len(SINGLE[single])] if single else name
    if stem.endswith(_TAR_NAMES):
        return "tar"
    if name.endswith(".zip"):
        return "zip"
    return single or "auto"


def unpacked_path(path: str, recipe: str, folder: str = "") -> str | None:
    """Where the content of a single compressed file stands: its name without the suffix.

    In `folder`, else beside where the compressed file would be. None for an archive, whose members
    name themselves.
    """
    suffix = SINGLE.get(recipe_for(path, recipe))
    if suffix is None:
        return None
    parent, slash, name = path.rpartition("/")
    stem = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return (f"{folder}/" if folder else parent + slash) + (stem or name)
