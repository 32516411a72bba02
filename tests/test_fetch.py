"""What a fetch gives, from the outside: paths, statuses, selections, errors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache import events
from dscache.cache import Cache
from dscache.errors import (
    IntegrityError,
    InvalidFile,
    ManualDownload,
    NotCached,
    NotFound,
    StorageError,
    UnsafeError,
    UsageError,
)
from tests.making import Shelf, artifact, content, md5, sha256
from tests.origin import Drop, LoginPage, Refuse, Site, origin

ONE, TWO, BIG = content(20_000, 1), content(5_000, 2), content(3 << 20, 3)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/one.bin": ONE, "/two.bin": TWO, "/big.bin": BIG}) as found:
        yield found


@pytest.fixture
def two(shelf: Shelf, site: Site) -> Shelf:
    """A dataset `two` with a small file and a larger one in a folder."""
    shelf.add(
        "two",
        [
            artifact("one.bin", ONE, site.url("/one.bin")),
            artifact("deep/big.bin", BIG, site.url("/big.bin")),
        ],
    )
    return shelf


def test_one_artifact_gives_a_file(shelf: Shelf, site: Site) -> None:
    shelf.add("one", [artifact("one.bin", ONE, site.url("/one.bin"))])
    path = dscache.fetch("one")
    assert path.name == "one.bin"
    assert path.read_bytes() == ONE


def test_several_artifacts_give_a_folder(two: Shelf) -> None:
    path = dscache.fetch("two")
    assert (path / "one.bin").read_bytes() == ONE
    assert (path / "deep/big.bin").read_bytes() == BIG


def test_a_bundled_dataset_needs_no_network() -> None:
    path = dscache.fetch("penguins", offline=True)
    assert path.name == "penguins.csv"
    assert path.read_text().count("\n") > 300


def test_the_second_fetch_is_a_hit(two: Shelf, site: Site) -> None:
    (first,) = Cache().fetch_all(["two"])
    (second,) = Cache().fetch_all(["two"])
    assert (first.status, first.bytes_downloaded) == ("downloaded", len(ONE) + len(BIG))
    assert (second.status, second.bytes_downloaded) == ("cached", 0)
    assert second.path == first.path
    assert len(site.requests) == 2


def test_known_bytes_under_another_name_are_linked(two: Shelf, site: Site) -> None:
    two.add("copy", [artifact("other.bin", BIG, site.url("/big.bin"))])
    dscache.fetch("two")
    (found,) = Cache().fetch_all(["copy"])
    assert (found.status, found.bytes_downloaded) == ("linked", 0)
    assert found.unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") == len(BIG)


def test_blobs_are_read_only_and_follow_the_umask(two: Shelf, home: Path) -> None:
    before = os.umask(0o002)
    try:
        path = dscache.fetch("two")
    finally:
        os.umask(before)
    assert (path / "one.bin").stat().st_mode & 0o777 == 0o444
    assert (path / "deep/big.bin").stat().st_mode & 0o777 == 0o444
    records = list((home / "cache/records").rglob("*.json"))
    assert [file.stat().st_mode & 0o777 for file in records] == [0o664]


def test_a_selection_fetches_only_what_matches(two: Shelf, site: Site) -> None:
    path = dscache.fetch("two", files="*big*")
    assert sorted(file.name for file in path.rglob("*") if file.is_file()) == ["big.bin"]
    assert site.sent("/one.bin") == 0
    with pytest.raises(NotCached):
        dscache.path("two")
    assert dscache.path("two", files="deep/*") == path
    assert (dscache.fetch("two") / "one.bin").read_bytes() == ONE
    assert site.sent("/big.bin") == len(BIG)
    assert dscache.path("two") == path


def test_no_match_says_which_files_there_are(two: Shelf) -> None:
    with pytest.raises(NotFound) as caught:
        dscache.fetch("two", files="*.csv")
    assert caught.value.code == 3
    assert "one.bin" in caught.value.hint


def test_fetch_many_gives_every_path(two: Shelf, site: Site) -> None:
    two.add("one", [artifact("one.bin", ONE, site.url("/one.bin"))])
    found = dscache.fetch_many(["two", "one"])
    assert list(found) == ["two", "one"]
    assert found["one"].read_bytes() == ONE
    assert site.sent("/one.bin") == len(ONE), "the file that both hold is fetched once"


def test_the_others_go_on_where_one_fails(two: Shelf) -> None:
    with pytest.raises(NotFound):
        dscache.fetch_many(["nothing", "two"])
    assert dscache.path("two").is_dir()


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        dscache.fetch("pengins")
    assert "penguins" in caught.value.hint
    assert isinstance(caught.value, KeyError)


def test_an_unknown_version_gives_those_there_are(two: Shelf, site: Site) -> None:
    two.add("two", [artifact("a", ONE, site.url("/one.bin"))], file="two@0.toml", version="0")
    with pytest.raises(NotFound) as caught:
        dscache.fetch("two@7")
    assert caught.value.facts["versions"] == ["0", "1"]
    assert dscache.fetch("two@0").name == "a"


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b/c", "a@", "con", "registry", "a b"])
def test_malformed_names_are_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        dscache.fetch(name)
    assert caught.value.code == 2


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "c:evil"])
def test_paths_that_escape_are_unsafe(shelf: Shelf, site: Site, path: str, home: Path) -> None:
    shelf.add("evil", [artifact(path, ONE, site.url("/one.bin"))])
    with pytest.raises(UnsafeError) as caught:
        dscache.fetch("evil")
    assert caught.value.code == 7
    assert "evil.toml" in str(caught.value)
    assert site.requests == []


@pytest.mark.parametrize("path", ["CON", "a/nul.txt", "a\x07b", "a\\b", "a//b", ""])
def test_paths_that_some_platform_refuses_are_invalid(shelf: Shelf, site: Site, path: str) -> None:
    shelf.add("odd", [artifact(path, ONE, site.url("/one.bin"))])
    with pytest.raises(InvalidFile) as caught:
        dscache.fetch("odd")
    assert caught.value.code == 8


def test_paths_equal_but_for_case_are_refused(shelf: Shelf, site: Site) -> None:
    url = site.url("/one.bin")
    shelf.add("twins", [artifact("Data.csv", ONE, url), artifact("data.csv", ONE, url)])
    with pytest.raises(InvalidFile):
        dscache.fetch("twins")


def test_offline_and_not_cached(two: Shelf, site: Site) -> None:
    with pytest.raises(NotCached) as caught:
        dscache.fetch("two", offline=True)
    assert caught.value.code == 3
    assert site.requests == []


def test_other_content_under_one_version_is_told(
    two: Shelf, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    first = dscache.fetch("two")
    two.add("two", [artifact("one.bin", TWO, site.url("/two.bin"))])
    with caplog.at_level(logging.WARNING, "dscache"):
        second = dscache.fetch("two")
    assert second.read_bytes() == TWO
    assert (first / "one.bin").read_bytes() == ONE, "the earlier content stays as it is"
    assert "other content" in caplog.text


def test_into_puts_the_files_into_the_folder(two: Shelf, home: Path) -> None:
    assert dscache.fetch("two", into=home / "data") == home / "data"
    assert (home / "data/deep/big.bin").read_bytes() == BIG
    many = dscache.fetch_many(["two"], into=home / "many")
    assert many["two"] == home / "many/two"


def test_into_never_replaces_a_file_of_the_user(two: Shelf, home: Path) -> None:
    (home / "data").mkdir()
    (home / "data/one.bin").write_text("mine")
    with pytest.raises(StorageError) as caught:
        dscache.fetch("two", into=home / "data")
    assert caught.value.code == 6
    assert caught.value.facts["files"] == ["one.bin"]
    assert [file.name for file in (home / "data").iterdir()] == ["one.bin"]
    dscache.fetch("two", into=home / "data", force=True)
    assert (home / "data/one.bin").read_bytes() == ONE


def test_a_damaged_view_is_mended_from_the_store(two: Shelf, site: Site) -> None:
    path = dscache.fetch("two")
    (path / "one.bin").unlink()
    asked = len(site.requests)
    assert (dscache.fetch("two") / "one.bin").read_bytes() == ONE
    assert len(site.requests) == asked


def test_manual_datasets_say_what_to_do(shelf: Shelf) -> None:
    shelf.add("closed", [artifact("one.bin", ONE, manual="Ask for it at the desk.")])
    with pytest.raises(ManualDownload) as caught:
        dscache.fetch("closed")
    assert "Ask for it at the desk." in str(caught.value)
    assert "dscache import closed" in caught.value.hint


@pytest.mark.parametrize("status", [401, 403, 404])
def test_manual_instructions_where_the_server_refuses(
    shelf: Shelf, site: Site, status: int
) -> None:
    site.fault("/one.bin", Refuse(status))
    entry = artifact("one.bin", ONE, site.url("/one.bin"), manual="Register first.")
    shelf.add("guarded", [entry])
    with pytest.raises(ManualDownload, match="Register first"):
        dscache.fetch("guarded")


def test_import_takes_a_file_by_its_hash(shelf: Shelf, home: Path) -> None:
    shelf.add("closed", [artifact("one.bin", ONE, manual="By hand.", checksums=[md5(ONE)])])
    file = home / "some download (1)"
    file.write_bytes(ONE)
    before = file.stat()
    found = Cache().import_file("closed", file)
    assert found.unwrap().read_bytes() == ONE
    assert dscache.fetch("closed") == found.path
    after = file.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    file.write_bytes(b"changed by its owner")
    assert found.unwrap().read_bytes() == ONE


def test_import_refuses_what_is_no_file_of_it(shelf: Shelf, home: Path) -> None:
    shelf.add("closed", [artifact("one.bin", ONE, manual="By hand.")])
    wrong = home / "one.bin"
    wrong.write_bytes(content(len(ONE), 9))
    with pytest.raises(IntegrityError) as caught:
        Cache().import_file("closed", wrong)
    assert sha256(ONE) in str(caught.value)
    with pytest.raises(ManualDownload):
        dscache.fetch("closed")


def test_import_in_parts(shelf: Shelf, home: Path) -> None:
    shelf.add(
        "closed", [artifact("a", ONE, manual="By hand."), artifact("b", BIG, manual="By hand.")]
    )
    (home / "a").write_bytes(ONE)
    (home / "b").write_bytes(BIG)
    assert Cache().import_file("closed", home / "a").path is None
    assert Cache().import_file("closed", home / "b").path is not None
    assert (dscache.fetch("closed") / "a").read_bytes() == ONE


def test_first_use_pins_the_sha256(shelf: Shelf, site: Site) -> None:
    shelf.add("old", [artifact("one.bin", ONE, site.url("/one.bin"), hash=md5(ONE), size=None)])
    dscache.fetch("old")
    shelf.add("older", [artifact("x.bin", ONE, site.url("/one.bin"), hash=md5(ONE))])
    (found,) = Cache().fetch_all(["older"])
    assert found.status == "linked"
    assert Cache().info("old").dataset.first_use


@pytest.fixture(params=["size known", "size unknown"])
def listed(shelf: Shelf, site: Site, request: pytest.FixtureRequest) -> Shelf:
    """A dataset `listed` of two files that a manifest names."""
    lines = "".join(
        f'{{"path": "{path}", "size": {len(data)}, "hash": "{sha256(data)}"}}\n'
        for path, data in {"one.bin": ONE, "two.bin": TWO}.items()
    ).encode()
    site.files["/list.jsonl"] = lines
    keys: dict[str, Any] = {
        "hash": sha256(lines),
        "urls": [site.url("/list.jsonl")],
        "base_urls": [site.url("/")],
    }
    if request.param == "size known":
        keys["size"] = len(lines)
    shelf.write("listed.toml", {"version": "1", "manifest": keys})
    return shelf


@pytest.mark.usefixtures("listed")
def test_a_manifest_lists_the_files() -> None:
    path = dscache.fetch("listed")
    assert sorted(file.name for file in path.iterdir()) == ["one.bin", "two.bin"]
    assert dscache.path("listed") == path
    assert (dscache.fetch("listed", files="two*") / "two.bin").read_bytes() == TWO


def test_retrieve_by_url(site: Site) -> None:
    path = dscache.retrieve(site.url("/one.bin"), sha256(ONE))
    assert path.name == "one.bin"
    assert path.read_bytes() == ONE
    assert dscache.retrieve(site.url("/one.bin"), sha256(ONE)) == path
    assert len(site.requests) == 1
    assert Cache().cached()[0].registry == "urls"


def test_retrieve_without_a_hash_says_so(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dscache"):
        path = dscache.retrieve(site.url("/one.bin"), None, fname="name.bin")
    assert path.name == "name.bin"
    assert "without a known hash" in caplog.text


def test_retrieve_local_paths(home: Path) -> None:
    (home / "some file.bin").write_bytes(ONE)
    path = dscache.retrieve((home / "some file.bin").as_uri(), sha256(ONE))
    assert path.read_bytes() == ONE
    assert path.name == "some file.bin"


def test_progress_hears_of_every_file(two: Shelf) -> None:
    heard: list[events.Event] = []
    dscache.fetch("two", progress=heard.append)
    started = {each.path for each in heard if isinstance(each, events.Started)}
    assert started == {"one.bin", "deep/big.bin"}
    assert sum(each.size for each in heard if isinstance(each, events.Finished)) == 3_165_728


def test_wrong_bytes_are_explained_and_kept(shelf: Shelf, site: Site, home: Path) -> None:
    site.fault("/one.bin", LoginPage())
    shelf.add("one", [artifact("one.bin", ONE, site.url("/one.bin"))])
    with pytest.raises(IntegrityError) as caught:
        dscache.fetch("one")
    assert caught.value.code == 5
    assert "text/html" in str(caught.value)
    assert "<!DOCTYPE html>" in str(caught.value)
    kept = list((home / "cache/quarantine").iterdir())
    assert len(kept) == 1
    assert str(kept[0]) in caught.value.hint


def test_a_rewrite_serves_registries_from_elsewhere(shelf: Shelf, site: Site, home: Path) -> None:
    shelf.add("one", [artifact("one.bin", ONE, "https://data.example.org/deep/one.bin")])
    (home / "config.toml").write_text(
        f'[rewrite]\n"https://data.example.org/deep/" = "{site.url("/")}"\n'
    )
    assert dscache.fetch("one").read_bytes() == ONE


def test_an_interrupted_fetch_goes_on(shelf: Shelf, site: Site) -> None:
    shelf.add("big", [artifact("big.bin", BIG, site.url("/big.bin"))])
    site.fault("/big.bin", Drop(after=2 << 20), times=1)

    def interrupt(event: events.Event) -> None:
        if isinstance(event, events.Retrying):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dscache.fetch("big", progress=interrupt)
    (found,) = Cache().fetch_all(["big"])
    assert found.unwrap().read_bytes() == BIG
    assert found.bytes_resumed == 2 << 20
    assert found.bytes_downloaded == 1 << 20
    assert site.sent("/big.bin") == len(BIG)


def test_not_enough_room_is_told_before(
    shelf: Shelf, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add("huge", [artifact("big.bin", BIG, site.url("/big.bin"), size=10**18)])
    with pytest.raises(StorageError, match="are needed, but only"):
        dscache.fetch("huge")
    assert site.requests == []


def test_importing_the_package_is_quick_and_imports_nothing_else() -> None:
    code = "import sys, dscache; print([m for m in sys.modules if m.startswith('dscache')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['dscache']"


def test_a_hit_imports_nothing_of_the_engine() -> None:
    dscache.fetch("penguins")
    code = (
        "import sys, dscache; dscache.fetch('penguins');"
        "print(sorted({'pycurl', 'filelock', 'xxhash', 'pooch', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("listed")
def test_a_selection_of_a_manifest_is_a_hit(site: Site) -> None:
    path = dscache.fetch("listed", files="one*")
    asked = len(site.requests)
    assert dscache.path("listed", files="one*") == path
    assert dscache.fetch("listed", files="one*") == path
    assert len(site.requests) == asked
    with pytest.raises(NotCached):
        dscache.path("listed", files="*.bin")


def test_the_configured_link_mode_is_used(two: Shelf, home: Path) -> None:
    (home / "config.toml").write_text('link = "copy"\n')
    (found,) = Cache().fetch_all(["two"], into=home / "data")
    assert found.link == "copy"
    assert (home / "data/one.bin").stat().st_nlink == 1
    (linked,) = Cache().fetch_all(["two"], into=home / "linked", link="symlink")
    assert linked.link == "symlink"
    assert (home / "linked/one.bin").is_symlink()
