"""Recipes: how an artifact is unpacked, and where what it holds stands in the dataset. Pure."""

from __future__ import annotations

#: Recipes for single compressed files, and what their programs append to a name.
SINGLE = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
RECIPES = frozenset({"tar", "zip", "auto", *SINGLE})

_TAR_NAMES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst")


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
