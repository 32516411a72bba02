"""The lock file: stable under sort and merge, plain about what is wrong, and not to be tricked."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache import settings
from dscache.call import Call
from dscache.errors import DscacheError, InvalidFile, UnsafeError
from dscache.model import Dataset, Reference, is_name
from dscache.project import learning, wanted
from dscache.project.lines import base_of, dataset_in, dataset_of, line_of
from dscache.project.lockfile import Line, Lock, decode, encode, read, salvage
from dscache.registry.entries import Document
from dscache.registry.tables import ArtifactEntry, Entry
from tests.making import Shelf, artifact, content, md5, sha256
from tests.stores import damaged

ONE = content(1000, 1)
URL = "https://data.example.org/one.bin"


def line(name: str, version: str = "1", **keys: Any) -> Line:
    """A line for a dataset of one file."""
    registry = name.rpartition("/")[0] or "team"
    file = ArtifactEntry(path="one.bin", hash=sha256(ONE), size=len(ONE), urls=[URL])
    entry = Entry(version=version, artifacts=[file], **keys)
    return Line(name, registry, "https://data.example.org/registry", entry)


def written(**keys: Any) -> bytes:
    """A line as it stands in a file, with some keys of its artifact or of itself changed."""
    found = json.loads(encode([line("crops")]))
    for key, value in keys.items():
        (found["entry"]["artifacts"][0] if key in ARTIFACT else found)[key] = value
    return json.dumps(found).encode()


ARTIFACT = {"path", "hash", "urls", "unpack", "unpack_to", "manual", "checksums"}
NAMES = st.from_regex(r"(?:[a-z][a-z0-9]{0,3}/)?[a-z][a-z0-9._-]{0,5}[a-z0-9]", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,5}", fullmatch=True)
LINES = st.builds(
    line,
    NAMES.filter(lambda each: all(map(is_name, each.split("/")))),
    VERSIONS,
    summary=st.text(),
)


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {each.name: each for each in lines}


@given(st.lists(LINES, unique_by=lambda each: each.name), st.randoms(use_true_random=False))
def test_the_order_of_lines_means_nothing(lines: list[Line], chance: random.Random) -> None:
    data = encode(lines)
    rows = data.splitlines(keepends=True)
    assert rows == sorted(rows)
    chance.shuffle(rows)
    chance.shuffle(lines)
    assert by_name(decode(b"".join(rows))) == by_name(lines)
    assert encode(lines) == data
    assert encode(decode(b"\n".join(rows))) == data


@given(
    st.lists(LINES, unique_by=lambda each: each.name, min_size=3), st.randoms(use_true_random=False)
)
def test_a_union_of_disjoint_changes_is_one(lines: list[Line], chance: random.Random) -> None:
    base, ours, theirs = lines[0::3], lines[1::3], lines[2::3]
    rows = encode([*base, *ours]).splitlines() + encode([*base, *theirs]).splitlines()
    chance.shuffle(rows)
    assert by_name(decode(b"\n".join(rows))) == by_name(lines)


def test_a_line_holds_all_there_is(home: Path) -> None:
    shelf = Shelf(home / "shelf")
    file = artifact(
        "deep/a.tar",
        ONE,
        URL,
        "blobs/here",
        checksums=[md5(ONE)],
        unpack="tar",
        unpack_to="members",
        manual="ask",
    )
    shelf.add("crops", [file], summary="s", license="MIT", homepage="h", citation="c", yanked="y")
    before = dataset_at(shelf, "crops")
    (found,) = decode(encode([line_of("crops", before, str(home))]))
    assert found.address == "shelf"
    assert found.reference == Reference("crops", "shelf", "1")
    assert dataset_of(found, before.base) == before
    other = dataset_of(found, "https://elsewhere.example.org/")
    assert other.artifacts[0].urls == (URL, "https://elsewhere.example.org/blobs/here")
    assert other.mark == before.mark


def dataset_at(shelf: Shelf, name: str) -> Dataset:
    document = Document((shelf.folder / f"{name}.toml").read_bytes(), local=True)
    return document.dataset(name, shelf.name, f"{shelf.folder.as_uri()}/")


def test_a_manifest_is_locked_with_its_base_urls(home: Path) -> None:
    shelf = Shelf(home / "shelf")
    manifest = {"hash": sha256(ONE), "size": 7, "urls": ["m.jsonl"], "base_urls": [URL, "files/"]}
    shelf.write("crops.toml", {"version": "1", "manifest": manifest})
    before = dataset_at(shelf, "crops")
    (found,) = decode(encode([line_of("crops", before, str(home))]))
    assert dataset_of(found, before.base) == before
    away = dataset_of(found, "")
    assert away.manifest is not None
    assert away.manifest.file.urls == ()
    assert away.manifest.base_urls == (URL,)
    assert away.base == ""


def test_an_alias_is_locked_as_what_it_means(home: Path) -> None:
    shelf = Shelf(home / "shelf")
    shelf.add("crops", [artifact("a.bin", ONE, URL)])
    found = Lock([line_of("alias", dataset_at(shelf, "crops"), str(home))])
    for name in ("alias", "crops", "shelf/crops", "shelf/alias", "crops@1"):
        assert found.meant(Reference.parse(name)), name
    for name in ("other/crops", "crops@2", "alia"):
        assert not found.meant(Reference.parse(name)), name


def test_lines_that_contradict_are_both_named() -> None:
    with pytest.raises(InvalidFile, match=r"crops.*team/crops@1.*team/crops@2") as failure:
        decode(encode([line("crops"), line("crops", "2")]))
    assert "dscache lock" in failure.value.hint
    assert failure.value.facts["datasets"] == ["team/crops@1", "team/crops@2"]
    with pytest.raises(InvalidFile, match="other content"):
        decode(encode([line("crops")]) + written(path="two.bin"))


def test_what_a_merge_left_is_named() -> None:
    rows = encode([line("a")]), encode([line("b")])
    data = b"<<<<<<< ours\n" + rows[0] + b"=======\n" + rows[1] + b">>>>>>> theirs\n"
    with pytest.raises(InvalidFile, match=r"line 1.*merge") as failure:
        decode(data)
    assert "dscache lock" in failure.value.hint
    assert by_name(salvage(data)) == by_name([line("a"), line("b")])


def test_of_lines_that_contradict_none_is_salvaged() -> None:
    data = encode([line("a"), line("b"), line("a", "2")]) + b"<<<<<<<\n" + encode([line("a")])
    assert salvage(data) == [line("b")]


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(InvalidFile, match="format 2") as failure:
        decode(encode([line("a")]) + b'{"format": 2, "what": "nobody knows"}\n')
    assert failure.value.facts["format"] == 2
    assert "newer" in failure.value.hint
    with pytest.raises(InvalidFile):
        decode(encode([line("a")]).replace(b'"format":1', b'"format":0'))


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"path": "../evil"}, UnsafeError),
        ({"path": "a\\b"}, InvalidFile),
        ({"unpack_to": "../evil"}, UnsafeError),
        ({"unpack": "7z"}, InvalidFile),
        ({"hash": "sha256:0"}, InvalidFile),
        ({"checksums": ["what:0"]}, InvalidFile),
        ({"urls": ["https://me:secret@example.org/a"]}, InvalidFile),
        ({"urls": ["https://example.org/a?X-Amz-Signature=secret"]}, InvalidFile),
        ({"urls": ["file:///etc/passwd"]}, UnsafeError),
        ({"urls": ["/etc/passwd"]}, UnsafeError),
        ({"urls": ["../../up"]}, UnsafeError),
        ({"urls": []}, InvalidFile),
        ({"urls": ["http://example.org/a"], "hash": md5(ONE)}, InvalidFile),
        ({"manual": "\x1b[2J"}, InvalidFile),
        ({"name": "../crops"}, InvalidFile),
        ({"name": "crops@1"}, InvalidFile),
        ({"registry": "../team"}, InvalidFile),
        ({"name": "lab/crops"}, InvalidFile),
        ({"dataset": "CON"}, InvalidFile),
        ({"address": "https://me:secret@example.org/"}, InvalidFile),
        ({"address": "https://example.org/?sig=secret"}, InvalidFile),
        ({"entry": {"version": "a b", "artifacts": []}}, InvalidFile),
        ({"entry": 3}, InvalidFile),
    ],
)
def test_a_line_is_not_to_be_trusted(keys: dict[str, Any], kind: type[DscacheError]) -> None:
    def datasets() -> list[Dataset]:
        lock = Lock(decode(written(**keys)))
        return [dataset_in(lock, each, settings.load()) for each in lock]

    with pytest.raises(kind) as failure:
        datasets()
    assert "secret" not in f"{failure.value} {failure.value.hint} {failure.value.facts}"


def test_no_accident_is_taken_for_another_lock(home: Path) -> None:
    """Not even one that cuts the file between two lines, which is why `sync --locked` compares."""
    path = home / "dscache.lock"
    for data in damaged(encode([line("a")])):
        path.write_bytes(data)
        try:
            found = read(str(path))
        except InvalidFile as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right
        else:
            assert found is not None
            assert list(found) in ([], [line("a")])


def test_local_files_are_for_registries_in_use(home: Path, monkeypatch: Any) -> None:
    shelf = Shelf(home / "elsewhere", "team")
    shelf.add("crops", [artifact("a.bin", ONE, "a.bin", "/data/a.bin", URL)])
    project = home / "project"
    project.mkdir()
    (project / "dscache.toml").touch()
    monkeypatch.chdir(project)
    locked = line_of("crops", dataset_at(shelf, "crops"), str(project))
    assert locked.address == str(shelf.folder)

    def urls() -> tuple[str, ...]:
        found = settings.load()
        return dataset_of(locked, base_of(locked, found)).artifacts[0].urls

    beside = (f"{shelf.folder.as_uri()}/a.bin", "file:///data/a.bin", URL)
    assert urls() == (URL,)
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"https://x.example.org;{shelf.folder}")
    assert urls() == beside
    monkeypatch.delenv("DSCACHE_REGISTRIES")
    (home / "config.toml").write_text(f'[registries]\nteam = "{shelf.folder}"')
    assert urls() == beside
    (home / "config.toml").write_text(f'[registries]\nother = "{shelf.folder}"')
    assert urls() == (URL,)
    (home / "config.toml").write_text('[registries]\nteam = "https://x.example.org/r"')
    assert urls() == ("https://x.example.org/r/a.bin", URL)


def test_a_bundled_registry_is_where_the_package_is(home: Path) -> None:
    with Call(settings.load(), lambda event: None) as call:
        dataset = call.lookup.resolve(Reference("iris"))
    found = line_of("iris", dataset, str(home))
    assert found.address == "bundled"
    assert str(home) not in encode([found]).decode()
    assert dataset_of(found, base_of(found, settings.load())) == dataset


def test_what_is_learned_stands_beside_what_was_said() -> None:
    weak = ArtifactEntry(path="a", hash=md5(ONE), urls=[URL])
    before = Line("crops", "team", "https://x.example.org", Entry("1", artifacts=[weak]))
    assert learning.wants_facts(before.entry)
    digest = sha256(ONE).removeprefix("sha256:")
    after = learning.taught(before, {"a": (digest, 1000), "other": (digest, 7)})
    assert not learning.wants_facts(after.entry)
    assert dataset_of(after, "").content == dataset_of(before, "").content
    assert dataset_of(after, "").pins == (("a", digest),)
    assert not learning.contradict(before.entry, after.entry)
    other = learning.taught(before, {"a": ("0" * 64, 1000)})
    assert learning.contradict(other.entry, after.entry)
    longer = learning.taught(before, {"a": (None, 1001)})
    assert learning.contradict(longer.entry, after.entry)
    assert learning.taught(after, {"a": ("0" * 64, 7)}) == after


TOML = """\
# ours
jobs = 3

[datasets]  # what we need
mnist = "1"        # digits
"team/crops" = "*"

[registries]
team = "https://data.example.org"
"""


def test_an_edit_leaves_the_rest_as_it_is() -> None:
    assert wanted.edited(TOML, {}) == TOML
    assert wanted.edited(TOML, {"mnist": "1"}) == TOML
    added = wanted.edited(TOML, {"imagenet.val": "2012", "lab/x": "*"})
    assert '"imagenet.val" = "2012"\n"lab/x" = "*"\n' in added
    assert wanted.edited(added, {"imagenet.val": None, "lab/x": None}) == TOML
    assert "mnist" not in wanted.edited(TOML, {"mnist": None})
    assert 'mnist = "2"        # digits' in wanted.edited(TOML, {"mnist": "2"})


@pytest.mark.parametrize(
    "text", ["", "jobs = 3", "# a comment", "[registries]\na = 'b'", "datasets = {}\n"]
)
def test_a_file_without_datasets_gets_some(text: str, home: Path) -> None:
    (home / "dscache.toml").write_text(wanted.edited(text, {"crops": "1", "a/b": "*"}))
    assert settings.load().datasets == {"crops": "1", "a/b": "*"}


@pytest.mark.parametrize(
    "text",
    ['"crops@1" = "*"', '"CROPS" = "*"', '"a/b/c" = "*"', 'crops = ">=1"', "crops = 3", 'crops=""'],
)
def test_datasets_that_make_no_sense_are_named(text: str, home: Path) -> None:
    (home / "dscache.toml").write_text(f"[datasets]\n{text}\n")
    with pytest.raises(InvalidFile, match=r"dscache\.toml"):
        settings.load()


class Repository:
    """A git repository with a lock file, in which two branches change it."""

    def __init__(self, folder: Path, *lines: Line, union: bool) -> None:
        if shutil.which("git") is None:
            pytest.skip("git: there is no such program")
        self.lock = folder / "dscache.lock"
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch", "main")
        if union:
            (folder / ".gitattributes").write_text("dscache.lock merge=union\n")
        self.commit(*lines)

    def git(self, *words: str) -> int:
        names = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        command = ["git", *names, "-C", str(self.folder), *words]
        return subprocess.run(command, capture_output=True, check=False).returncode

    def commit(self, *lines: Line) -> None:
        self.lock.write_bytes(encode(lines))
        self.git("add", "--all")
        assert self.git("commit", "--quiet", "--message", "change") == 0

    def merged(self, ours: list[Line], theirs: list[Line]) -> int:
        """The exit code of a merge of two changes."""
        self.git("checkout", "--quiet", "-b", "theirs")
        self.commit(*theirs)
        self.git("checkout", "--quiet", "main")
        self.commit(*ours)
        return self.git("merge", "--quiet", "theirs")


def test_git_merges_what_two_branches_added(home: Path) -> None:
    base = [line("b"), line("x")]
    repository = Repository(home, *base, union=True)
    assert repository.merged([*base, line("c")], [*base, line("d"), line("a")]) == 0
    found = read(str(repository.lock))
    assert found is not None
    assert {each.name for each in found} == {"a", "b", "c", "d", "x"}


def test_what_git_cannot_merge_is_never_used_unseen(home: Path) -> None:
    repository = Repository(home, line("a"), line("b"), union=False)
    assert repository.merged([line("a", "2"), line("b")], [line("a"), line("b", "2")]) == 1
    with pytest.raises(InvalidFile, match="merge"):
        read(str(repository.lock))
