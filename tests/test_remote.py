"""The remote: a store that many machines share. Asked first, never trusted, never needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dscache import claiming
from dscache.call import Call
from dscache.claiming import Claims
from dscache.errors import (
    IntegrityError,
    ManualDownload,
    NotCached,
    TransferError,
    UsageError,
)
from dscache.events import Advanced, Event, Waiting
from dscache.model import Reference
from dscache.wishes import Wish
from tests.archives import File, tar_of
from tests.children import forked
from tests.downloads import Desk, error_of, moments
from tests.making import artifact, content, md5, sha256
from tests.origin import Late, Refuse, Site, Stall, origin
from tests.relay import relay
from tests.servers import nginx
from tests.weed import Weed, weed

SMALL, OTHER, BIG = content(20_000, 1), content(5_000, 2), content(24 << 20, 3)
FILES = {"/small.bin": SMALL, "/other.bin": OTHER, "/big.bin": BIG}
TAR = tar_of(File("a.csv", b"1,2\n"), File("deep/b.bin", content(3000, 4)))


def key_of(data: bytes) -> str:
    digest = sha256(data).removeprefix("sha256:")
    return f"blobs/sha256/{digest[:2]}/{digest[2:]}"


@dataclass
class Team:
    """Machines that share a remote and an origin."""

    home: Path
    site: Site
    remote: str

    def machine(self, name: str, *, push: bool = False, **changes: Any) -> Desk:
        chosen = {"remote": self.remote, "push": push, "retries": 1} | changes
        desk = Desk(self.home / name, **chosen)
        for path, data in FILES.items():
            stem = path[1:].removesuffix(".bin")
            desk.offer(stem, artifact(path[1:], data, self.site.url(path)))
        desk.offer("all", *(artifact(path[1:], FILES[path], self.site.url(path)) for path in FILES))
        return desk

    def filled(self) -> None:
        """Some machine has brought everything, and the origin's log is forgotten."""
        desk = self.machine("first", push=True)
        desk.fetch("all").unwrap()
        assert desk.notices == []
        self.asked = len(self.site.requests)

    @property
    def requests(self) -> int:
        """What the origin was asked since the remote was filled."""
        return len(self.site.requests) - self.asked

    @property
    def asked_for(self) -> set[str]:
        """What of it the origin was asked for since then."""
        return {each.path for each in self.site.requests[self.asked :]}


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({**FILES, "/a.tar": TAR}) as site:
        yield site


@pytest.fixture(params=["folder", "bucket"])
def team(request: pytest.FixtureRequest, home: Path, site: Site) -> Team:
    if request.param == "folder":
        return Team(home, site, str(home / "remote"))
    store: Weed = request.getfixturevalue("store")
    return Team(home, site, f"{store.bucket()}/dscache")


@pytest.fixture
def bucket(home: Path, site: Site, store: Weed) -> Team:
    team = Team(home, site, f"{store.bucket()}/dscache")
    team.filled()
    return team


def everything_is_here(desk: Desk, name: str = "all") -> None:
    folder = desk.fetch(name).unwrap()
    for path, data in FILES.items():
        assert (folder / path[1:]).read_bytes() == data


def objects(store: Weed, remote: str) -> dict[str, bytes]:
    """What is in a bucket, by one who knows nothing of us."""
    name = remote.split("/")[2]
    listed = store.client().list_objects_v2(Bucket=name).get("Contents", ())
    keys = [each["Key"] for each in listed]
    return {
        key: store.client().get_object(Bucket=name, Key=key)["Body"].read()
        for key in keys
        if "/claims/" not in key
    }


# --- Reading and writing back ---------------------------------------------------------------------


def test_what_one_machine_has_brought_the_others_get_from_the_remote(team: Team) -> None:
    team.filled()
    for name in ("second", "third"):
        desk = team.machine(name)
        found = desk.fetch("all")
        everything_is_here(desk)
        assert found.status == "downloaded"
        assert desk.notices == []
    assert team.requests == 0


def test_what_comes_through_the_network_is_counted(bucket: Team) -> None:
    found = bucket.machine("second").fetch("all")
    assert found.bytes_downloaded == sum(map(len, FILES.values()))


def test_nothing_is_written_back_unless_that_is_wished(team: Team, store: Weed) -> None:
    team.machine("first").fetch("all").unwrap()
    team.machine("second").fetch("all").unwrap()
    assert len(team.site.requests) >= 2 * len(FILES)


def test_the_remote_holds_files_by_their_digest(bucket: Team, store: Weed) -> None:
    assert objects(store, bucket.remote) == {
        f"dscache/{key_of(data)}": data for data in FILES.values()
    }


def test_an_archive_is_shared_and_unpacked_by_each(team: Team) -> None:
    team.asked = 0
    for name in ("first", "second"):
        desk = team.machine(name, push=True)
        desk.offer("tar", artifact("a.tar", TAR, team.site.url("/a.tar"), unpack="tar"))
        folder = desk.fetch("tar").unwrap()
        assert (folder / "a.csv").read_bytes() == b"1,2\n"
    assert team.requests == 1


def test_a_file_of_which_only_md5_is_known_is_shared_as_well(team: Team) -> None:
    team.asked = 0
    weak = artifact("small.bin", SMALL, team.site.url("/small.bin"), hash=md5(SMALL), size=None)
    for name in ("first", "second"):
        desk = team.machine(name, push=True)
        desk.offer("weak", weak)
        assert desk.fetch("weak").unwrap().read_bytes() == SMALL
    assert team.requests == 1


def test_what_only_people_can_download_comes_from_the_remote(bucket: Team) -> None:
    desk = bucket.machine("second")
    desk.offer("manual", artifact("small.bin", SMALL, manual="ask for it"))
    assert desk.fetch("manual").unwrap().read_bytes() == SMALL


def test_what_the_remote_does_not_have_people_are_asked_for(bucket: Team) -> None:
    desk = bucket.machine("second")
    desk.offer("manual", artifact("x.bin", content(500, 9), manual="ask for it"))
    assert isinstance(error_of(desk.fetch("manual")), ManualDownload)
    assert desk.notices == []


def test_that_the_origin_is_down_is_no_reason_to_ask_people(bucket: Team) -> None:
    desk = bucket.machine("second")
    data = content(500, 9)
    desk.offer("both", artifact("x.bin", data, "http://127.0.0.1:9/x", manual="ask for it"))
    error = error_of(desk.fetch("both"))
    assert type(error) is TransferError
    assert "s3:" not in str(error)


def test_a_web_server_can_be_a_remote_to_read_from(home: Path, site: Site, tmp_path: Path) -> None:
    team = Team(home, site, str(tmp_path / "served"))
    team.filled()
    with nginx(tmp_path / "served", tmp_path / "nginx") as server:
        desk = team.machine("second", remote=server.url, push=True)
        everything_is_here(desk)
        assert team.requests == 0
        assert desk.cache.remote_status().reachable
        assert not desk.cache.remote_status().writable


def test_offline_no_store_is_asked(bucket: Team, home: Path) -> None:
    desk = bucket.machine("second", offline=True)
    assert isinstance(error_of(desk.fetch("small")), NotCached)


def test_offline_a_folder_is(home: Path, site: Site) -> None:
    team = Team(home, site, str(home / "remote"))
    team.filled()
    everything_is_here(team.machine("second", offline=True))


# --- Faults ---------------------------------------------------------------------------------------


def test_a_remote_that_is_down_is_said_once_and_the_origin_serves(
    bucket: Team, store: Weed
) -> None:
    with relay(int(store.url.rpartition(":")[2])) as link, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", link.through(store.url))
        link.cut(reset=True)
        desk = bucket.machine("second")
        everything_is_here(desk)
        assert [note for note in desk.notices if "remote" in note] == desk.notices
        assert len(desk.notices) == 1
        assert bucket.asked_for == set(FILES)


def test_of_many_files_few_wait_for_a_remote_that_is_silent(bucket: Team, store: Weed) -> None:
    names = [f"n{number}" for number in range(40)]
    with relay(int(store.url.rpartition(":")[2])) as link, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", link.through(store.url))
        link.cut()
        desk = bucket.machine("second", stall_timeout=1, jobs=4)
        with origin({f"/{name}": name.encode() for name in names}) as site:
            files = [artifact(name, name.encode(), site.url(f"/{name}")) for name in names]
            desk.offer("many", *files)
            found = desk.fetch("many")
        assert found.error is None
        assert len(desk.notices) == 1
        assert 0 < link.accepted < len(names)


def test_a_remote_that_dies_under_way_is_left_for_the_origin(
    home: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with weed(tmp_path / "weed") as own:
        for name, value in own.environment().items():
            monkeypatch.setenv(name, value)
        team = Team(home, site, own.bucket())
        team.filled()
        desk = team.machine("second", limit_rate=12 << 20, stall_timeout=1)

        def hear(event: Event) -> None:
            desk.events.append(event)
            if isinstance(event, Advanced) and event.done > 4 << 20:
                own.stop()

        desk.hear = hear
        found = desk.fetch("big")
        assert found.unwrap().read_bytes() == BIG
        assert len([note for note in desk.notices if "cannot be used" in note]) == 1
        ranges = [each.range for each in site.requests[team.asked :]]
        assert ranges
        assert not any(span == "" or span.startswith("bytes=0-") for span in ranges)

        own.start()  # and is back for the next call
        third = team.machine("third")
        before = team.requests
        everything_is_here(third)
        assert (team.requests, third.notices) == (before, [])


@pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize("how", ["flipped", "cut", "grown", "empty"])
def test_a_file_that_rots_in_the_store_is_found_and_refused(
    bucket: Team, store: Weed, data: bytes, how: str
) -> None:
    rotten = {
        "flipped": data[:100] + bytes([data[100] ^ 1]) + data[101:],
        "cut": data[:-1],
        "grown": data + b"x",
        "empty": b"",
    }
    name = bucket.remote.split("/")[2]
    store.client().put_object(Bucket=name, Key=f"dscache/{key_of(data)}", Body=rotten[how])
    desk = bucket.machine("second")
    everything_is_here(desk)
    assert bucket.requests >= 1
    assert [note for note in desk.notices if bucket.remote in note]


def test_a_wrong_secret_is_said_and_the_origin_serves(
    bucket: Team, store: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    desk = bucket.machine("second", push=True)
    everything_is_here(desk)
    assert "access denied" in desk.notices[0]
    assert "wrong-secret" not in desk.text()
    assert bucket.asked_for == set(FILES)


def test_who_may_only_read_is_told_that_nothing_was_written_back(
    home: Path, site: Site, store: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team(home, site, f"{store.bucket()}/dscache")
    for name, value in store.environment(reader=True).items():
        monkeypatch.setenv(name, value)
    desk = team.machine("first", push=True)
    everything_is_here(desk)
    assert "not all could be written to the remote" in desk.notices[-1]
    assert "access denied" in desk.notices[-1]


def test_without_the_package_for_buckets_what_is_missing_is_said(
    bucket: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "dscache.depots.bucket", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    desk = bucket.machine("second", push=True)
    everything_is_here(desk)
    assert ["dscache[s3]" in note for note in desk.notices] == [True]
    assert bucket.asked_for == set(FILES)
    for attempt in (
        lambda: desk.cache.push(["all"]),
        desk.cache.remote_status,
        lambda: desk.cache.add_registry("team", bucket.remote),
        lambda: desk.cache.publish(str(desk.shelf.folder), bucket.remote),
    ):
        with pytest.raises(UsageError, match="obstore") as caught:
            attempt()
        assert "dscache[s3]" in caught.value.hint


def test_no_signature_is_left_behind(bucket: Team) -> None:
    desk = bucket.machine("second")
    everything_is_here(desk)
    assert "X-Amz" not in desk.text()
    assert "admin-secret" not in desk.text()


def test_a_forked_child_reads_from_the_remote_and_does_not_hang(bucket: Team, store: Weed) -> None:
    bucket.machine("second", push=True).fetch("small").unwrap()

    def child() -> tuple[bytes, list[str]]:
        desk = bucket.machine("third", push=True)
        return desk.fetch("big").unwrap().read_bytes(), desk.notices

    data, notices = forked(child)
    assert data == BIG
    assert notices == []
    assert bucket.requests == 0


# --- Many machines at once ------------------------------------------------------------------------


def test_of_many_machines_one_asks_the_origin(team: Team) -> None:
    team.site.fault("/big.bin", Late(2.0))
    desks = [team.machine(f"m{number}", push=True, stall_timeout=10) for number in range(6)]
    with ThreadPoolExecutor(len(desks)) as executor:
        for found in executor.map(lambda desk: desk.fetch("all"), desks):
            assert found.error is None
    assert sum(each.sent for each in team.site.requests) == sum(map(len, FILES.values()))
    waited = [desk for desk in desks if desk.told(Waiting)]
    assert 0 < len(waited) < len(desks)


def test_what_is_there_nobody_waits_for(team: Team) -> None:
    team.filled()
    desk = team.machine("second", push=True)
    everything_is_here(desk)
    assert desk.told(Waiting) == []


#: A process of dscache for which the dead are known soon.
_IMPATIENT = """
from dscache import claiming
from dscache.cli import main
claiming._RENEW, claiming._DEAD = 0.2, 3.0
main()
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "_RENEW", 0.2)
    monkeypatch.setattr(claiming, "_DEAD", 3.0)


@pytest.mark.usefixtures("impatient")
def test_when_the_one_who_brings_it_is_killed_another_does(team: Team) -> None:
    team.site.fault("/big.bin", Stall(4 << 20), times=1)
    first = team.machine("first")
    config = team.home / "first.toml"
    config.write_text(f'push = true\nremote = "{team.remote}"\nstall_timeout = "60s"\n')
    child = subprocess.Popen(
        [sys.executable, "-c", _IMPATIENT, "fetch", "big", "--cache-dir", str(first.root)],
        env={
            **os.environ,
            "DSCACHE_CONFIG": str(config),
            "DSCACHE_REGISTRIES": str(first.shelf.folder),
        },
    )
    try:
        _wait_until(lambda: any(each.path == "/big.bin" for each in team.site.requests))
        second = team.machine("second", push=True)
        with ThreadPoolExecutor(1) as executor:
            fetching = executor.submit(second.fetch, "big")
            time.sleep(5)  # longer than the silence of a dead one
            assert not fetching.done()
            child.kill()
            assert fetching.result().unwrap().read_bytes() == BIG
    finally:
        child.kill()
        child.wait()
    assert [event.what for event in second.told(Waiting)] == ["shelf/big@1"]
    before = len(team.site.requests)
    third = team.machine("third", push=True)
    assert third.fetch("big").unwrap().read_bytes() == BIG
    assert len(team.site.requests) == before


def _wait_until(is_so: Callable[[], bool]) -> None:
    for _ in moments():
        if is_so():
            return
        time.sleep(0.02)


@pytest.mark.usefixtures("impatient")
def test_when_the_one_who_brings_it_fails_another_tries(team: Team) -> None:
    team.site.fault("/big.bin", Refuse(404), times=1)
    first, second = (team.machine(name, push=True) for name in ("first", "second"))
    assert first.fetch("big").error is not None
    assert second.fetch("big").error is None
    assert second.told(Waiting) == []


def test_who_waits_too_long_goes_alone(team: Team) -> None:
    first = team.machine("first", push=True)
    second = team.machine("second", push=True, lock_timeout=1)
    with Call(first.settings, first.hear) as call:
        claims = Claims(call)
        wish = Wish(call.lookup.find(Reference("big")))
        assert claims.attempt(wish)
        assert second.fetch("big").unwrap().read_bytes() == BIG
        claims.release(wish, is_done=False)
    assert "has not brought" in second.notices[0]


# --- Commands -------------------------------------------------------------------------------------


def test_cached_datasets_are_pushed_once(team: Team) -> None:
    desk = team.machine("first")
    desk.fetch("all").unwrap()
    done = desk.cache.push(["all"])
    assert (done.uploaded, done.skipped) == (len(FILES), 0)
    assert done.bytes == sum(map(len, FILES.values()))
    again = desk.cache.push(["all", "shelf/all@1"])
    assert (again.uploaded, again.skipped, again.bytes) == (0, len(FILES), 0)
    team.asked = len(team.site.requests)
    everything_is_here(team.machine("second"))
    assert team.requests == 0


def test_weak_ones_are_pushed_under_the_name_by_which_they_are_asked_for(team: Team) -> None:
    weak = artifact("small.bin", SMALL, team.site.url("/small.bin"), hash=md5(SMALL))
    desks = [team.machine(name) for name in ("first", "second")]
    for desk in desks:
        desk.offer("weak", weak)
    desks[0].fetch("weak").unwrap()
    desks[0].cache.push(["weak"])
    team.asked = len(team.site.requests)
    desks[1].fetch("weak").unwrap()
    assert team.requests == 0


def test_what_is_not_cached_is_not_pushed(team: Team) -> None:
    with pytest.raises(NotCached):
        team.machine("first").cache.push(["all"])


def test_what_has_rotted_here_is_not_pushed(team: Team) -> None:
    desk = team.machine("first")
    path = desk.fetch("small").unwrap()
    path.chmod(0o644)
    path.write_bytes(OTHER[:1] + SMALL[1:])
    with pytest.raises(IntegrityError):
        desk.cache.push(["small"])


def test_without_a_remote_there_is_nothing_to_push_to(home: Path) -> None:
    with pytest.raises(UsageError, match="no remote"):
        Desk(home / "alone").cache.remote_status()


def test_only_old_files_of_ours_are_removed(bucket: Team, store: Weed) -> None:
    name = bucket.remote.split("/")[2]
    for key in ("dscache/blobs/readme.txt", "dscache/registry.toml", "elsewhere"):
        store.client().put_object(Bucket=name, Key=key, Body=b"not ours")
    cache = bucket.machine("second").cache
    assert cache.prune_remote("1h").removed == 0
    assert cache.prune_remote(0, dry_run=True).removed == len(FILES)
    assert len(objects(store, bucket.remote)) == len(FILES) + 3
    done = cache.prune_remote(0)
    assert (done.removed, done.bytes) == (len(FILES), sum(map(len, FILES.values())))
    assert len(objects(store, bucket.remote)) == 3
    everything_is_here(bucket.machine("third"))


def test_what_a_killed_push_has_left_in_a_folder_is_removed_with_the_rest(
    home: Path, site: Site
) -> None:
    team = Team(home, site, str(home / "remote"))
    team.filled()
    blob = next(path for path in (home / "remote/blobs").rglob("*") if path.is_file())
    left = blob.with_name(f"{blob.name}.0123abcd.tmp")
    left.write_bytes(b"half of it")
    assert team.machine("second").cache.prune_remote(0).removed == len(FILES) + 1
    assert not left.exists()


def run(desk: Desk, *arguments: str, **environment: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "dscache", *arguments, "--json", "--cache-dir", str(desk.root)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_the_commands_tell_what_they_did(bucket: Team, store: Weed) -> None:
    desk = bucket.machine("first")
    url = {"DSCACHE_REMOTE": bucket.remote}
    status = {"url": bucket.remote, "reachable": True, "writable": True}
    assert run(desk, "remote", "status", **url) == (0, status)
    readable = {**url, **store.environment(reader=True)}
    assert run(desk, "remote", "status", **readable) == (0, {**status, "writable": False})
    down = {**url, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert run(desk, "remote", "status", **down) == (
        4,
        {**status, "reachable": False, "writable": False},
    )
    code, found = run(desk, "remote", "push", "all", **url)
    assert (code, found) == (0, {"uploaded": 0, "skipped": 3, "bytes": 0})
    code, found = run(desk, "remote", "prune", "--older-than", "0", **url)
    assert (code, found["removed"], found["dry_run"]) == (0, 3, False)
    code, found = run(desk, "remote", "push", "nothing", **url)
    assert (code, found["error"]["type"]) == (3, "NotCached")


def test_what_cannot_be_a_remote() -> None:
    for wrong in ("ftp://example.org/x", "nonsense://x"):
        with pytest.raises(UsageError, match="cannot be a remote"):
            Desk(Path("desk"), remote=wrong)
