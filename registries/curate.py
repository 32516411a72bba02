"""Write the bundled registries anew from what is known and decided, or check that they are that.

    python registries/curate.py            # writes
    python registries/curate.py --check    # writes nothing; exit code 1 with findings

The inputs are in `curation/`: facts with their sources, and the choices of people. What a version
of a dataset holds never changes: other content needs another version, and the old entry stays as
`<name>@<version>.toml`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from curation import checks, choices, entries, facts

from dscache.errors import InvalidFile
from dscache.registry import author
from dscache.registry.check import check
from dscache.registry.entries import Document
from dscache.registry.tables import Entry

#: The files of each registry, by name.
Tree = Mapping[str, Mapping[str, bytes]]


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description="Make the bundled registries.")
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent, help="their folder")
    options = parser.parse_args()
    found, tree = made(options.root)
    if not found:
        found = list(changed_contents(options.root, tree))
    if not found:
        if not options.check:
            write(options.root, tree)
        found = list(differences(options.root, tree))
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"{sum(len(files) - 1 for files in tree.values())} names in {len(tree)} registries")
    return 1 if found else 0


def made(root: Path) -> tuple[list[str], Tree]:
    """What is wrong with the inputs, and the files that they give."""
    known = facts.read(root / "curation")
    registries = choices.read(root / "curation" / "choices")
    found = list(checks.findings(known, registries))
    if found:
        return found, {}
    by_dataset = known.by_dataset()
    return [], {
        name: entries.registry_files(name, chosen, known, by_dataset)
        for name, chosen in registries.items()
    }


def changed_contents(root: Path, tree: Tree) -> Iterator[str]:
    """Entries that would hold other content under the version that they have."""
    for registry, files in tree.items():
        for name, data in files.items():
            before = _content(root / registry / name)
            after = _content_of(data)
            if before and after and before != after and before[0] == after[0]:
                yield (
                    f"{registry}/{name}: other content under version {after[0]}; keep the old "
                    f"entry as {name.removesuffix('.toml')}@{before[0]}.toml, and raise the version"
                )


def _content(file: Path) -> tuple[str, str] | None:
    return _content_of(file.read_bytes()) if file.exists() else None


def _content_of(data: bytes) -> tuple[str, str] | None:
    """Version and content identity of an entry; None for other files."""
    try:
        document = Document(data, local=True)
    except InvalidFile:
        return None
    if document.problems or not isinstance(document.entry, Entry):
        return None
    return document.entry.version, document.dataset("", "", "").content


def write(root: Path, tree: Tree) -> None:
    """Make the registries what the inputs give; entries of old versions stay as they are."""
    for registry, files in tree.items():
        folder = root / registry
        folder.mkdir(exist_ok=True)
        for name in _surplus(folder, files):
            (folder / name).unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        author.write_index(str(folder))


def differences(root: Path, tree: Tree) -> Iterator[str]:
    """How the registries differ from what the inputs give, and what is wrong with them."""
    there = {file.parent.name for file in root.glob("*/registry.toml")}
    yield from (f"{name}: nobody chose this registry" for name in sorted(there - tree.keys()))
    for registry, files in tree.items():
        folder = root / registry
        for name in _surplus(folder, files):
            yield f"{registry}/{name}: nobody chose this dataset"
        for name, data in files.items():
            if not (folder / name).exists() or (folder / name).read_bytes() != data:
                yield f"{registry}/{name}: not what the inputs give; run registries/curate.py"
        if folder.is_dir():
            yield from _faults(folder)


def _surplus(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    there = {file.name for file in folder.glob("*.toml") if "@" not in file.name}
    return sorted(there - files.keys())


def _faults(folder: Path) -> Iterator[str]:
    """Errors of the format, and an index that is not there or out of date."""
    if not (folder / "index.json").exists():
        yield f"{folder.name}/index.json: missing; run registries/curate.py"
    report = check(str(folder))
    outdated = [each for each in report.warnings if each.file == "index.json"]
    for each in (*report.errors, *outdated):
        yield f"{folder.name}/{each.file}: {each.key}: {each.message}"


if __name__ == "__main__":
    sys.exit(main())
