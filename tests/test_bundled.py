"""The bundled registries: what they hold, how they are made, and what their checks find."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import curate
import pytest
import tomli
from curation import facts

from dscache.registry.entries import Document
from dscache.registry.order import bundled, bundled_folder
from dscache.registry.tables import Alias, Entry, EntryName

ROOT = Path(bundled_folder())
SHA256, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
MD5 = f"md5:{'3' * 32}"
URL = "https://data.example.org/a.csv.gz"


def documents() -> Iterator[tuple[str, str, Document]]:
    """Every entry and alias: registry, name, content."""
    for registry in bundled():
        for file in sorted((ROOT / registry.name).glob("*.toml")):
            if file.name != "registry.toml":
                name = EntryName.of(file.name)
                assert name
                yield registry.name, name.dataset, Document(file.read_bytes(), local=True)


ENTRIES = {
    f"{registry}/{name}": document.entry
    for registry, name, document in documents()
    if isinstance(document.entry, Entry)
}


def test_there_are_many_of_many_kinds() -> None:
    assert len(ENTRIES) >= 150
    kinds = Counter(name.partition("/")[0] for name in ENTRIES)
    assert kinds.keys() == {each.name for each in bundled()}
    assert {"vision", "text", "audio", "geo", "tables", "samples", "torchvision"} <= kinds.keys()


def test_the_guide_counts_them() -> None:
    guide = (ROOT.parent / "docs" / "guide" / "registries.md").read_text("utf-8")
    told = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", guide, re.MULTILINE)
    kinds = Counter(name.partition("/")[0] for name in ENTRIES)
    assert {name: int(count) for name, count in told} == kinds


@pytest.mark.parametrize("key", ["summary", "license", "homepage"])
def test_every_entry_says_what_its_users_ask(key: str) -> None:
    assert [name for name, entry in ENTRIES.items() if not getattr(entry, key)] == []


def test_every_hash_names_its_source() -> None:
    for name, entry in ENTRIES.items():
        for each in entry.artifacts:
            for text in (each.hash, *each.checksums):
                assert text.partition(":")[0] in each.note, (name, each.path)


def test_a_weak_hash_goes_with_https_and_is_shown_as_trust_on_first_use() -> None:
    first_use = [
        name
        for registry, name, document in documents()
        if isinstance(document.entry, Entry) and document.dataset(name, registry, "").first_use
    ]
    weak = [
        (name, each)
        for name, entry in ENTRIES.items()
        for each in entry.artifacts
        if each.hash.startswith(("md5:", "sha1:"))
    ]
    assert {name.partition("/")[2] for name, _ in weak} <= set(first_use)
    assert "pathmnist" in first_use
    assert [each.urls for _, each in weak if any("http:" in url for url in each.urls)] == []


def test_a_bare_name_means_one_thing() -> None:
    meanings: dict[str, set[str]] = {}
    contents = {
        f"{registry}/{name}": document.dataset(name, "", "").content
        for registry, name, document in documents()
        if isinstance(document.entry, Entry)
    }
    for registry, name, document in documents():
        entry = document.entry
        target = entry.see if isinstance(entry, Alias) else name
        meanings.setdefault(name, set()).add(contents[f"{registry}/{target}"])
    assert [name for name, found in meanings.items() if len(found) > 1] == []


def test_a_url_of_a_hash_has_that_hash_everywhere() -> None:
    said: dict[str, set[str]] = {}
    for entry in ENTRIES.values():
        for each in entry.artifacts:
            for url in each.urls:
                said.setdefault(url, set()).add(each.hash)
    assert {url: found for url, found in said.items() if len(found) > 1} == {}


def test_the_wheel_holds_the_registries_alone() -> None:
    assert "curation" not in {each.name for each in bundled()}
    project = tomli.loads((ROOT.parent / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert wheel == {
        f"registries/{each.name}": f"dscache/bundled/{each.name}" for each in bundled()
    }


def test_they_can_be_listed_and_searched(home: Path) -> None:
    rows = _document("list", "--available")
    assert len(rows) == len(ENTRIES)
    (row,) = _document("search", "audio books in Polish")
    assert (row["registry"], row["name"], row["cached"]) == ("audio", "mls-polish", False)


def _document(*words: str) -> Any:
    command = [sys.executable, "-m", "dscache", *words, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_the_tree_is_what_the_inputs_give() -> None:
    done = _curate("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_writing_mends_the_tree_and_changes_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "registries"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = _files(copy)
    (copy / "vision" / "mnist.toml").unlink()
    (copy / "text" / "squad.toml").write_text('version = "1.1"')
    (copy / "audio" / "stray.toml").write_text('see = "fsdd"')
    found = _curate("--check", "--root", str(copy))
    assert found.returncode == 1
    for line in ("vision/mnist.toml: not", "text/squad.toml: not", "audio/stray.toml: nobody"):
        assert line in found.stderr
    assert _curate("--root", str(copy)).returncode == 0
    assert _files(copy) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _curate(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "curate.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Inputs:
    """Facts and choices about one dataset, `shelf/a`, in which tests plant faults."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.facts: list[dict[str, Any]] = [
            {"source": "one:a", "urls": [URL], "size": 7, "hashes": [SHA256], "license": "mit"},
            {"source": "two:a", "urls": [URL], "hashes": [SHA256, MD5]},
        ]
        self.choice: dict[str, Any] = {"summary": "a table", "homepage": "https://example.org"}
        self.conflicts: list[str] = []
        self.others: dict[str, Mapping[str, Any]] = {}

    def made(self) -> tuple[list[str], curate.Tree]:
        """What the generator says."""
        folder = self.root / "curation"
        (folder / "choices").mkdir(parents=True, exist_ok=True)
        common = {"dataset": "shelf/a", "path": "a.csv.gz"}
        (folder / "facts.jsonl").write_text(_lines([common | each for each in self.facts]))
        (folder / "conflicts.jsonl").write_text(_lines([{"url": url} for url in self.conflicts]))
        (folder / "licenses.toml").write_text('mit = "MIT"\nother = "unknown"\n')
        (folder / "sources.toml").write_text(
            "".join(
                f'[{name}]\ntitle = "{name}"\nwhere = ""\nstate = ""\n' for name in ("one", "two")
            )
        )
        for registry, each in {"shelf": self.choice, **self.others}.items():
            lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in each.items())
            text = f'title = "S"\ndescription = "D"\n[datasets.a]\n{lines}'
            (folder / "choices" / f"{registry}.toml").write_text(text)
        return curate.made(self.root)

    def entry(self) -> Entry:
        """The entry that comes out."""
        found, tree = self.made()
        assert found == []
        entry = Document(tree["shelf"]["a.toml"], local=True).entry
        assert isinstance(entry, Entry)
        return entry


def _lines(values: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in values)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


def test_what_sources_say_becomes_an_entry(inputs: Inputs) -> None:
    inputs.choice |= {"unpack": True, "aliases": ["b"]}
    found, tree = inputs.made()
    assert (found, sorted(tree["shelf"])) == ([], ["a.toml", "b.toml", "registry.toml"])
    entry = inputs.entry()
    (artifact,) = entry.artifacts
    assert entry.license == "MIT"
    assert (artifact.hash, artifact.checksums, artifact.size) == (SHA256, [MD5], 7)
    assert (artifact.urls, artifact.unpack) == ([URL], "gzip")
    assert artifact.note == "sha256: one and two; md5: two; size: one; licence: one"


def test_a_licence_that_nobody_states_is_unknown(inputs: Inputs) -> None:
    inputs.facts[0]["license"] = "other"
    assert inputs.entry().license == "unknown"


def test_mirrors_of_others_come_last_and_are_marked(inputs: Inputs) -> None:
    mirror, plain = "https://mirror.example.com/a", "http://data.example.net/a"
    inputs.facts[0]["urls"] = [plain, URL]
    inputs.facts[1] = {"source": "two:a", "urls": [mirror], "hashes": [MD5]}
    (artifact,) = inputs.entry().artifacts
    assert artifact.urls == [URL, plain, mirror]
    assert "unconfirmed, and so last: mirror.example.com" in artifact.note


def test_a_weak_hash_takes_no_http(inputs: Inputs) -> None:
    inputs.facts = [{"source": "one:a", "urls": ["http://x.example.org/a", URL], "hashes": [MD5]}]
    (artifact,) = inputs.entry().artifacts
    assert artifact.urls == [URL]
    assert "no source gives a sha256" in artifact.note


def test_a_commit_is_preferred_to_a_branch(inputs: Inputs) -> None:
    raw = "https://raw.githubusercontent.com/o/r"
    inputs.facts[0]["urls"] = [f"{raw}/main/a", f"{raw}/{'a' * 40}/a"]
    inputs.facts[1]["urls"] = [f"{raw}/main/a"]
    (artifact,) = inputs.entry().artifacts
    assert artifact.urls == [f"{raw}/{'a' * 40}/a"]


def _other_hash(inputs: Inputs) -> None:
    inputs.facts[1]["hashes"] = [OTHER]


def _other_size(inputs: Inputs) -> None:
    inputs.facts[1]["size"] = 8


def _known_conflict(inputs: Inputs) -> None:
    inputs.conflicts.append("data.example.org/a.csv.gz")


def _branch(inputs: Inputs) -> None:
    inputs.facts = [inputs.facts[0] | {"urls": ["https://github.com/o/r/raw/refs/heads/main/a"]}]


def _no_source_of_the_licence(inputs: Inputs) -> None:
    inputs.choice["license"] = "CC0-1.0"


def _no_homepage(inputs: Inputs) -> None:
    del inputs.choice["homepage"]


def _no_hash(inputs: Inputs) -> None:
    inputs.facts = [{"source": "one:a", "urls": [URL]}]


def _no_url(inputs: Inputs) -> None:
    inputs.facts = [inputs.facts[0] | {"urls": ["https://drive.google.com/uc?id=1"]}]


def _unknown_source(inputs: Inputs) -> None:
    inputs.facts[0]["source"] = "hearsay:a"


def _no_facts(inputs: Inputs) -> None:
    inputs.others["other"] = inputs.choice


def _one_name_for_two(inputs: Inputs) -> None:
    inputs.others["other"] = inputs.choice
    inputs.facts.append(
        {"dataset": "other/a", "path": "b", "source": "one:b", "urls": [f"{URL}2"]}
        | {"hashes": [OTHER]}
    )


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (_other_hash, "shelf/a: a.csv.gz: sources disagree on sha256: one:a, two:a"),
        (_other_size, "sources disagree on size"),
        (_known_conflict, "is known to have held different bytes"),
        (_branch, "is what a branch holds today"),
        (_no_source_of_the_licence, "license_source is missing"),
        (_no_homepage, "homepage: missing"),
        (_no_hash, "no source states a hash"),
        (_no_url, "no source states a URL"),
        (_unknown_source, "sources.toml has no source 'hearsay:a'"),
        (_no_facts, "other/a: no facts"),
        (_one_name_for_two, "a: means different things: other/a, shelf/a"),
    ],
)
def test_what_is_planted_is_found(inputs: Inputs, plant: Any, finding: str) -> None:
    assert inputs.made()[0] == []
    plant(inputs)
    found, tree = inputs.made()
    assert [line for line in found if finding in line], found
    assert not tree


def test_other_content_needs_another_version(inputs: Inputs) -> None:
    _, tree = inputs.made()
    curate.write(inputs.root, tree)
    assert list(curate.differences(inputs.root, tree)) == []
    for fact in inputs.facts:
        fact["hashes"] = [OTHER]
    _, tree = inputs.made()
    (line,) = curate.changed_contents(inputs.root, tree)
    assert "shelf/a.toml: other content under version 1" in line
    (inputs.root / "shelf" / "a.toml").rename(inputs.root / "shelf" / "a@1.toml")
    inputs.choice["version"] = "2"
    _, tree = inputs.made()
    assert list(curate.changed_contents(inputs.root, tree)) == []
    curate.write(inputs.root, tree)
    assert list(curate.differences(inputs.root, tree)) == []
    assert (inputs.root / "shelf" / "a@1.toml").exists()


def test_no_fact_is_told_twice_and_every_source_is_used() -> None:
    known = facts.read(ROOT / "curation")
    assert [fact for fact, times in Counter(known.facts).items() if times > 1] == []
    assert {fact.source.partition(":")[0] for fact in known.facts} == known.sources.keys()
