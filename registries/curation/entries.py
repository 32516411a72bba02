"""From facts and choices to registry files. Pure: the same inputs give the same bytes.

The hash is the strongest that a source states; what else they state are checksums. URLs of sources
that state it come first, then those of others, https before http; the note says who said what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec import structs

from curation.choices import Choice, Chosen, FileChoice
from curation.facts import ALGORITHMS, Fact, Files, Knowledge, address, listed, on_branch
from dscache.recipes import recipe_for, stem_of
from dscache.registry.rendering import render
from dscache.registry.tables import FORMAT, Alias, ArtifactEntry, Entry, RegistryEntry

UNKNOWN = "unknown"

# Behind these stand pages for people, not files.
_PAGES = ("drive.google.com", "docs.google.com")
_WEAK = ("sha1", "md5")


class Urls(NamedTuple):
    """Where a file is: as sources of its hash say, and as others say."""

    confirmed: list[str]
    others: list[str]


def registry_files(
    registry: str, chosen: Chosen, known: Knowledge, facts: Mapping[str, Files]
) -> dict[str, bytes]:
    """Every file of a registry but its index and its blobs, by name."""
    header = RegistryEntry(FORMAT, registry, chosen.title, chosen.description)
    files = {"registry.toml": render(header)}
    for name, choice in chosen.datasets.items():
        made = entry(choice, facts.get(f"{registry}/{name}", {}), known)
        comment = "".join(f"# {line}\n" for line in choice.remark.splitlines())
        files[f"{name}.toml"] = comment.encode() + render(made)
        files |= {f"{alias}.toml": render(Alias(name)) for alias in choice.aliases}
    return files


def entry(choice: Choice, files: Files, known: Knowledge) -> Entry:
    """The entry of one dataset."""
    facts = [fact for each in files.values() for fact in each]
    words, origin = _license(choice, facts, known)
    artifacts = [_artifact(path, each, choice, known) for path, each in files.items()]
    if artifacts and origin:
        note = f"{artifacts[0].note}; licence: {origin}"
        artifacts[0] = structs.replace(artifacts[0], note=note)
    return Entry(
        version=choice.version,
        summary=choice.summary,
        license=words,
        homepage=choice.homepage or next((each.homepage for each in facts if each.homepage), ""),
        citation=choice.citation,
        artifacts=artifacts,
    )


def _license(choice: Choice, facts: Sequence[Fact], known: Knowledge) -> tuple[str, str]:
    """The licence, and who states it."""
    if choice.license:
        return choice.license, choice.license_source
    for fact in facts:
        words = known.licenses.get(fact.license, fact.license) or UNKNOWN
        if words != UNKNOWN:
            return words, known.titles(each for each in facts if each.license == fact.license)
    return UNKNOWN, ""


def _artifact(path: str, facts: Sequence[Fact], choice: Choice, known: Knowledge) -> ArtifactEntry:
    own = choice.files.get(path, FileChoice())
    hashes = hashes_of(facts)
    urls = urls_of(facts, choice.without)
    recipe = own.unpack if own.unpack is not None else _recipe(path) if choice.unpack else ""
    folder = choice.unpack_to if own.unpack_to is None else own.unpack_to
    manual = choice.manual if own.manual is None else own.manual
    return ArtifactEntry(
        path=path,
        size=next((each.size for each in facts if each.size is not None), None),
        hash=hashes[0] if hashes else "",
        checksums=hashes[1:],
        urls=[*urls.confirmed, *urls.others],
        blob=choice.blob,
        manual=manual.replace("{path}", path),
        unpack=recipe,
        unpack_to=folder.replace("{stem}", _stem(path)) if recipe else "",
        note=_note(facts, urls.others, known),
    )


def hashes_of(facts: Iterable[Fact]) -> list[str]:
    """The hashes that sources state, the strongest first."""
    found = {text for fact in facts for text in fact.hashes}
    return sorted(found, key=lambda text: (ALGORITHMS.index(algorithm(text)), text))


def algorithm(text: str) -> str:
    """The algorithm of a hash."""
    return text.partition(":")[0]


def urls_of(facts: Sequence[Fact], without: Iterable[str] = ()) -> Urls:
    """The URLs of a file, those that a source of its hash names apart.

    http is left out where https has the same address, and where md5 or sha1 is all that is known;
    a branch's address, where another is as good.
    """
    left_out = tuple(without)
    linked = _linked(facts)
    all_weak = all(algorithm(text) in _WEAK for text in hashes_of(facts))
    taken: set[str] = set()
    lists: list[list[str]] = []
    for group in (linked, [each for each in facts if each not in linked]):
        urls = [url for fact in group for url in fact.urls if _is_usable(url, all_weak)]
        urls = [url for url in urls if not (left_out and url.startswith(left_out))]
        lists.append(found := [])
        for url in sorted(urls, key=lambda url: not url.startswith("https:")):
            if address(url) not in taken:
                taken.add(address(url))
                found.append(url)
    confirmed, others = lists
    lasting = [url for url in confirmed if not on_branch(url)]
    if lasting and lasting[0].startswith("https:"):
        return Urls(lasting, [url for url in others if not on_branch(url)])
    return Urls(confirmed, others)


def _is_usable(url: str, all_weak: bool) -> bool:
    if urlsplit(url).hostname in _PAGES:
        return False
    return url.startswith("https://") or (url.startswith("http://") and not all_weak)


def _linked(facts: Sequence[Fact]) -> list[Fact]:
    """The facts that state the file's hash, or share another hash with one that does."""
    shared = set(hashes_of(facts)[:1])
    for _ in facts:
        shared |= {text for each in facts if shared & {*each.hashes} for text in each.hashes}
    return [each for each in facts if shared & {*each.hashes}]


def _note(facts: Sequence[Fact], others: Sequence[str], known: Knowledge) -> str:
    said: dict[str, list[str]] = {}
    for key in (*ALGORITHMS, "size"):
        if titles := known.titles(each for each in facts if _states(each, key)):
            said.setdefault(titles, []).append(key)
    parts = [f"{listed(keys)}: {titles}" for titles, keys in said.items()]
    if all(algorithm(text) in _WEAK for text in hashes_of(facts)):
        parts.append("no source gives a sha256")
    if others:
        hosts = dict.fromkeys(urlsplit(url).netloc for url in others)
        parts.append(f"unconfirmed, and so last: {listed(list(hosts))}")
    return "; ".join(parts)


def _states(fact: Fact, key: str) -> bool:
    if key == "size":
        return fact.size is not None
    return any(algorithm(text) == key for text in fact.hashes)


def _recipe(path: str) -> str:
    found = recipe_for(path, "auto")
    return "" if found == "auto" else found


def _stem(path: str) -> str:
    recipe = _recipe(path)
    return (stem_of(path, recipe) if recipe else path).rpartition("/")[2]
