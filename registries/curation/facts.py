"""What published sources say about single files: URLs, sizes, hashes, licences.

One line of `facts.jsonl` is what one source says about one file of one dataset. Whether sources
agree is for `checks` to say, what to make of them for `entries`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import tomli

#: From the strongest on; the first that a file has gives its identity.
ALGORITHMS = ("sha256", "sha512", "sha1", "md5")

# Addresses of what a branch holds today.
_BRANCH = re.compile(
    r"(?:raw\.githubusercontent\.com/[^/]+/[^/]+|github\.com/[^/]+/[^/]+/(?:raw|blob|archive)"
    r"|codeload\.github\.com/[^/]+/[^/]+/(?:zip|tar\.gz)|/resolve)"
    r"/(?:refs/heads/)?(?:master|main|develop|gh-pages|HEAD)(?:[/.]|$)"
)


class Fact(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one source says about one file.

    Attributes:
        dataset: `registry/name`.
        path: the file's path in the dataset.
        source: a name of `sources.toml`, and after a colon what the source calls the dataset.
        hashes: each as `algorithm:hex`.
        license: in the source's words.
    """

    dataset: str
    path: str
    source: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    hashes: tuple[str, ...] = ()
    license: str = ""
    homepage: str = ""


class Source(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where facts were read: a repository or package, in one state of it."""

    title: str
    where: str
    state: str
    date: str = ""


#: The facts of each file of a dataset, by its path.
Files = Mapping[str, Sequence[Fact]]


class Knowledge(msgspec.Struct, frozen=True):
    """All that is known of files.

    Attributes:
        sources: by the name that facts use.
        conflicts: addresses of which sources say different things, without their scheme.
        licenses: what the sources' words for licences mean.
    """

    facts: tuple[Fact, ...]
    sources: Mapping[str, Source]
    conflicts: frozenset[str]
    licenses: Mapping[str, str]

    def by_dataset(self) -> dict[str, Files]:
        """The facts by dataset and file; files in the order in which they are first named."""
        found: defaultdict[str, defaultdict[str, list[Fact]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for fact in self.facts:
            found[fact.dataset][fact.path].append(fact)
        return dict(found)

    def titles(self, facts: Iterable[Fact]) -> str:
        """The sources of facts in words."""
        names = dict.fromkeys(self.sources[fact.source.partition(":")[0]].title for fact in facts)
        return listed(list(names))


def read(folder: Path) -> Knowledge:
    """Read the inputs in a folder."""
    lines = (folder / "facts.jsonl").read_bytes().splitlines()
    sources = tomli.loads((folder / "sources.toml").read_text("utf-8"))
    conflicts = (folder / "conflicts.jsonl").read_bytes().splitlines()
    return Knowledge(
        facts=tuple(msgspec.json.decode(line, type=Fact) for line in lines),
        sources=msgspec.convert(sources, dict[str, Source]),
        conflicts=frozenset(address(msgspec.json.decode(line)["url"]) for line in conflicts),
        licenses=tomli.loads((folder / "licenses.toml").read_text("utf-8")),
    )


def address(url: str) -> str:
    """A URL without what does not tell resources apart: scheme, `www.`, Zenodo's `?download=1`."""
    bare = url.partition("://")[2] if "://" in url else url
    return bare.removeprefix("www.").removesuffix("?download=1").rstrip("/")


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def on_branch(url: str) -> bool:
    """True for an address whose bytes change when somebody pushes."""
    return _BRANCH.search(url) is not None
