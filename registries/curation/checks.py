"""What is wrong with the inputs, before anything is made of them. Each finding is one line.

Facts must agree, every dataset must say what its users ask first, and no address may lead to bytes
that change. The made files are looked at by `dscache.registry.check`, and by `curate.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from curation.choices import Choice, Chosen
from curation.entries import UNKNOWN, algorithm, entry
from curation.facts import ALGORITHMS, Fact, Knowledge, address, on_branch
from dscache.model import is_name
from dscache.registry.entries import dataset
from dscache.registry.tables import Entry


def findings(known: Knowledge, registries: Mapping[str, Chosen]) -> Iterator[str]:
    """All that is wrong with facts and choices; where facts cannot be read, nothing else."""
    malformed = list(_malformed(known))
    yield from malformed
    if malformed:
        return
    yield from _disagreements(known)
    yield from _strays(known, registries)
    facts = known.by_dataset()
    made: dict[str, Entry] = {}
    for registry, chosen in registries.items():
        for name, choice in chosen.datasets.items():
            full = f"{registry}/{name}"
            files = facts.get(full, {})
            made[full] = entry(choice, files, known)
            yield from (f"{full}: {text}" for text in _silences(choice, made[full]))
            yield from (f"{full}: {text}" for text in _changing(choice, made[full], known, files))
    yield from _clashes(made, registries)


def _malformed(known: Knowledge) -> Iterator[str]:
    for fact in known.facts:
        where = f"{fact.dataset}: {fact.path}"
        if fact.source.partition(":")[0] not in known.sources:
            yield f"{where}: sources.toml has no source {fact.source!r}"
        for text in fact.hashes:
            if algorithm(text) not in ALGORITHMS:
                yield f"{where}: {fact.source} states {text!r}, which is no hash"


def _disagreements(known: Knowledge) -> Iterator[str]:
    """Two sources that say different things of one file, or of one address."""
    yield from _split(known.facts, lambda fact: [f"{fact.dataset}: {fact.path}"])
    yield from _split(known.facts, lambda fact: map(address, fact.urls))


def _split(facts: Iterable[Fact], keys: Callable[[Fact], Iterable[str]]) -> Iterator[str]:
    said: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for fact in facts:
        for key in keys(fact):
            for text in fact.hashes:
                said[key, algorithm(text)][text] = fact.source
            if fact.size is not None:
                said[key, "size"][str(fact.size)] = fact.source
    for (key, what), values in said.items():
        if len(values) > 1:
            yield f"{key}: sources disagree on {what}: {', '.join(sorted(values.values()))}"


def _strays(known: Knowledge, registries: Mapping[str, Chosen]) -> Iterator[str]:
    chosen = {
        f"{name}/{each}" for name, registry in registries.items() for each in registry.datasets
    }
    stated = {fact.dataset for fact in known.facts}
    yield from (f"{name}: no facts" for name in sorted(chosen - stated))
    yield from (f"{name}: facts, but no choice" for name in sorted(stated - chosen))
    for registry, each in registries.items():
        for name, choice in each.datasets.items():
            files = {fact.path for fact in known.facts if fact.dataset == f"{registry}/{name}"}
            for path in choice.files.keys() - files:
                yield f"{registry}/{name}: no facts about {path}"


def _silences(choice: Choice, made: Entry) -> Iterator[str]:
    """What users ask first, and the entry does not say."""
    for key in ("summary", "homepage", "license"):
        if not getattr(made, key):
            yield f"{key}: missing"
    if choice.license not in ("", UNKNOWN) and not choice.license_source:
        yield "license: who states it? license_source is missing"
    for each in made.artifacts:
        if not each.hash:
            yield f"{each.path}: no source states a hash"
        if not (each.urls or each.manual or each.blob):
            yield f"{each.path}: no source states a URL that can be used"
        for text in filter(None, (each.hash, *each.checksums)):
            if algorithm(text) not in each.note:
                yield f"{each.path}: the note names no source of the {algorithm(text)}"


def _changing(
    choice: Choice, made: Entry, known: Knowledge, facts: Mapping[str, Iterable[Fact]]
) -> Iterator[str]:
    """Addresses whose bytes change."""
    for each in made.artifacts:
        for url in each.urls:
            if address(url) in known.conflicts:
                yield f"{each.path}: {url} is known to have held different bytes"
            sources = {fact.source for fact in facts[each.path] if _confirms(fact, url, each.hash)}
            if on_branch(url) and len(sources) < 2 and not choice.moving:
                yield (
                    f"{each.path}: {url} is what a branch holds today; "
                    "pin a commit, or say under `moving` why it can be relied on"
                )


def _confirms(fact: Fact, url: str, text: str) -> bool:
    return text in fact.hashes and address(url) in map(address, fact.urls)


def _clashes(entries: Mapping[str, Entry], registries: Mapping[str, Chosen]) -> Iterator[str]:
    """Bare names that mean different things in two registries, or two things in one."""
    contents: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for registry, chosen in registries.items():
        for dataset_name, choice in chosen.datasets.items():
            full = f"{registry}/{dataset_name}"
            for name in (dataset_name, *choice.aliases):
                if not is_name(name):
                    yield f"{full}: {name!r} cannot be a name"
                contents[name].setdefault(_content(entries[full]), []).append(full)
    for name, meanings in contents.items():
        meant = [full for each in meanings.values() for full in each]
        if len(meanings) > 1 or len({full.partition("/")[0] for full in meant}) < len(meant):
            yield f"{name}: means different things: {', '.join(meant)}"


def _content(made: Entry) -> str:
    if not all(each.hash for each in made.artifacts):
        return ""
    return dataset(made, "", "", "").content
