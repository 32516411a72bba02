"""Doctor: what it finds on real disks, in real configurations and of real servers; it breaks and
leaves nothing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache import filesystem
from dscache.cache import Cache
from dscache.doctor import locking
from dscache.doctor.mounts import mount_of
from dscache.results import Check, Diagnosis
from dscache.settings.proxies import proxy_for
from dscache.store import Store, exclusion, probes
from tests.children import forked, unprivileged
from tests.making import Shelf, artifact, content
from tests.mounts import MIB, PLAIN, REFLINKING, SMALLEST, mounted
from tests.origin import Refuse, origin
from tests.rooms import everything
from tests.servers import certificate, free_port, self_signed
from tests.views import refuse

REGISTRY = b'format = 1\nname = "team"\n'
PROBES = {
    "rename",
    "hard-links",
    "symbolic-links",
    "reflinks",
    "case",
    "unicode",
    "name-length",
    "sync",
    "clock",
    "time-stamps",
}


def diagnosed(root: Path | str | None = None, **options: Any) -> Diagnosis:
    """What doctor says of a folder; everything that is not fine has a hint."""
    found = Cache(root).diagnose(progress=lambda _: None, **options)
    for each in found.checks:
        assert each.status in ("ok", "warn", "fail")
        assert bool(each.hint) == (each.status != "ok")
        assert bool(each.code) == (each.status == "fail")
        assert each.detail
    return found


def of(found: Diagnosis, name: str) -> Check:
    """The one check of that name."""
    (check,) = (each for each in found.checks if each.name == name)
    return check


def troubles(found: Diagnosis) -> dict[str, str]:
    """The status of everything that is not fine."""
    return {each.name: each.status for each in found.checks if each.status != "ok"}


def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dscache", "doctor", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a dataset in it."""
    shelf = Shelf(home / "shelf")
    (shelf.folder / "a").write_bytes(content(3000))
    shelf.add("data", [artifact("a.bin", content(3000), "a")])
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
    dscache.fetch("data")
    return home / "cache"


# --- the command ----------------------------------------------------------------------------------


def test_a_cache_that_is_well(kept: Path) -> None:
    found = diagnosed(kept)
    assert troubles(found) == {}
    assert found.ok
    assert {each.name for each in found.checks} >= PROBES | {
        "settings",
        "folder",
        "writable",
        "filesystem",
        "space",
        "inodes",
        "locks",
        "permissions",
        "records",
        "parts",
        "durability",
    }
    assert of(found, "records").detail == "1"
    assert os.listdir(kept / "parts") == []


def test_the_document_and_the_lines(kept: Path) -> None:
    document = json.loads(run("--json").stdout)
    assert document.keys() == {"ok", "checks"}
    assert document["ok"] is True
    for each in document["checks"]:
        assert each.keys() == {"name", "status", "detail", "hint"}
    lines = run().stdout.splitlines()
    assert len(lines) == len(document["checks"])
    assert all(line.startswith("ok ") for line in lines)
    assert any(str(kept) in line for line in lines)


def test_problems_come_with_what_to_do(home: Path) -> None:
    (home / "cache").mkdir()
    (home / "cache/VERSION").write_text("2\n")
    done = run(code=6)
    assert "fail  folder" in done.stdout
    assert "hint: use a newer dscache" in done.stdout
    assert json.loads(run("--json", code=6).stdout)["ok"] is False
    assert os.listdir(home / "cache") == ["VERSION"]


def test_a_check_that_breaks_does_not_stop_the_others(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "somewhere")

    monkeypatch.setattr(filesystem, "link", broken)
    monkeypatch.setattr(filesystem, "sync", broken)
    found = diagnosed(kept)
    assert troubles(found) == {"hard-links": "fail", "sync": "fail"}
    assert found.code == 6
    assert "Input/output error" in of(found, "sync").detail
    assert os.listdir(kept / "parts") == []


# --- the folder -----------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_made_as_a_fetch_makes_it(home: Path) -> None:
    root = home / "not/yet"
    found = diagnosed(root)
    assert found.ok
    assert "made now" in of(found, "folder").detail
    assert (root / "VERSION").read_text() == "1\n"
    assert "made now" not in of(diagnosed(root), "folder").detail


def test_no_half_a_cache_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem, "write", full)
    found = diagnosed(home / "new")
    assert of(found, "folder").status == "fail"
    assert found.code == 6
    assert not (home / "new").exists()


def test_a_folder_of_other_things_is_left_alone(home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine/thesis.tex").write_text("…")
    before = everything(home)
    assert of(diagnosed(home / "mine"), "folder").status == "warn"
    assert everything(home) == before
    (home / "file").touch()
    assert of(diagnosed(home / "file"), "folder").status == "fail"


def test_a_cache_that_cannot_be_written_is_said_to_serve(kept: Path) -> None:
    folders = [kept, *kept.rglob("*")]
    for each in folders:
        each.chmod(0o555 if each.is_dir() else 0o444)
    before = everything(kept)
    try:
        found = unprivileged(lambda: diagnosed(kept))
    finally:
        for each in folders:
            each.chmod(0o755 if each.is_dir() else 0o444)
    assert troubles(found) == {"writable": "warn"}
    assert found.ok
    assert not PROBES & {each.name for each in found.checks}
    assert before.keys() == everything(kept).keys()


def test_a_cache_that_cannot_be_read(kept: Path) -> None:
    kept.chmod(0)
    try:
        found = unprivileged(lambda: diagnosed(kept))
    finally:
        kept.chmod(0o755)
    assert of(found, "folder").status == "fail"


def test_records_that_make_no_sense(kept: Path) -> None:
    (path,) = (kept / "records").rglob("*.json")
    path.write_bytes(b"{")
    found = diagnosed(kept)
    assert troubles(found) == {"records": "warn"}
    assert str(path) in of(found, "records").detail


# --- filesystems ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext4", *REFLINKING, *PLAIN])
def test_what_a_filesystem_can_do(home: Path, kind: str) -> None:
    with mounted(kind, SMALLEST[kind], home / "a disk") as disk:
        found = diagnosed(disk / "cache")
        said = of(found, "filesystem").detail
        assert str(disk) in said
        if kind != "exfat":  # where the kernel does not know it, it is some FUSE
            assert said.startswith(kind)
        expected = {"space": "warn"}
        if kind in PLAIN:
            expected |= {"hard-links": "warn", "symbolic-links": "warn", "case": "warn"}
        assert troubles(found) | expected == expected
        assert ("yes" in of(found, "reflinks").detail) == (kind in REFLINKING)
        assert os.listdir(disk / "cache/parts") == []


def fill(make: Callable[[int], object]) -> None:
    """Make files until no more can be made."""
    with pytest.raises(OSError, match="No space"):
        list(map(make, range(1_000_000)))


def test_a_disk_that_is_full(home: Path) -> None:
    with mounted("tmpfs", MIB, home / "disk") as disk:
        Store(str(disk / "cache")).prepare()
        fill(lambda number: (disk / f"ballast{number}").write_bytes(bytes(4096)))
        found = diagnosed(disk / "cache")
        assert troubles(found)["space"] == "fail"
        assert "free some space" in of(found, "space").hint
        assert os.listdir(disk / "cache/parts") == []


def test_a_disk_without_free_inodes(home: Path) -> None:
    with mounted("ext4", SMALLEST["ext4"], home / "disk") as disk:
        Store(str(disk / "cache")).prepare()
        (disk / "many").mkdir()
        fill(lambda number: (disk / f"many/{number}").touch())
        found = diagnosed(disk / "cache")
        assert troubles(found)["inodes"] == "fail"
        assert found.code == 6


def test_a_disk_that_is_mounted_read_only(home: Path) -> None:
    with mounted("ext4", SMALLEST["ext4"], home / "disk") as disk:
        Store(str(disk / "cache")).prepare()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        found = diagnosed(disk / "cache")
        assert troubles(found) == {"writable": "warn", "space": "warn"}
        found = diagnosed(disk / "other")
        assert troubles(found) == {"folder": "fail", "space": "warn"}


def test_where_a_system_tells_no_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "other")
    assert mount_of("/") is None


def test_links_that_cannot_be_had(kept: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, errno.EPERM, "link")
        found = diagnosed(kept)
    assert troubles(found) == {}
    assert "symbolic links take their place" in of(found, "hard-links").detail


def test_names_that_are_cut(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = filesystem.create

    def short(path: str, **how: bool) -> int:
        if len(os.path.basename(path)) > 143:  # as eCryptfs
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        return create(path, **how)

    monkeypatch.setattr(filesystem, "create", short)
    found = diagnosed(kept)
    assert troubles(found) == {"name-length": "fail"}
    assert "143" in of(found, "name-length").detail


@pytest.mark.parametrize("error", [3600.0, -3600.0])
def test_a_clock_that_differs_from_that_of_the_disk(kept: Path, error: float) -> None:
    def child() -> Diagnosis:
        right = time.time
        time.time = lambda: right() + error
        return diagnosed(kept)

    found = forked(child)
    assert troubles(found) == {"clock": "warn"}
    assert ("behind" if error > 0 else "ahead of") in of(found, "clock").detail


def test_where_the_boot_has_no_name(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dscache.doctor.folder.this_boot", lambda: None)
    assert "cannot be named" in of(diagnosed(kept), "durability").detail
    monkeypatch.undo()


# --- locks ----------------------------------------------------------------------------------------


def test_locks_that_lie_are_a_warning_and_are_not_used(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *_: None)
        found = diagnosed(kept)
    assert troubles(found) == {"locks": "warn"}
    assert "mount" in of(found, "locks").hint
    store = Store(str(kept), emit=lambda _: None)
    assert store.locks.attempt("key")
    assert os.path.exists(store.layout.marker("key"))
    assert troubles(diagnosed(kept)) == {}  # the lie has ended, and that is remembered, too
    assert Store(str(kept)).locks.attempt("key")
    assert os.path.exists(store.layout.lock("key"))


def test_what_cannot_be_found_out_is_said(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusion, "second_process_gets", lambda _: None)
    assert "not known" in of(diagnosed(kept), "locks").detail


def test_nobody_comes(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "PATIENCE", 0.2)
    found = diagnosed(kept, peer=True)
    assert troubles(found) == {"peer": "fail"}
    assert os.listdir(kept / "parts") == []


# --- who shares it --------------------------------------------------------------------------------


def test_a_cache_for_a_group(home: Path) -> None:
    root = home / "shared"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o002)
    try:
        assert troubles(diagnosed(root)) == {}
        os.umask(0o022)
        found = diagnosed(root)
        assert troubles(found) == {"permissions": "warn"}
        assert "umask 002" in of(found, "permissions").hint
        os.umask(0o002)
        (root / "parts").chmod(0o755)
        found = diagnosed(root)
        assert str(root / "parts") in of(found, "permissions").detail
        (root / "parts").chmod(0o2775)
        root.chmod(0o775)
        assert "chmod g+s" in of(diagnosed(root), "permissions").hint
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_files_of_others_in_a_cache_of_ones_own() -> None:
    """As after a `sudo dscache`, which leaves folders that their owner cannot write to."""
    diagnosed()  # imports all there is, which another user could not read
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        Store(f"{folder}/cache").prepare()
        for path in (root / "cache", *(root / "cache").iterdir()):
            if path.name == "CACHEDIR.TAG":
                continue
            os.chown(path, 7001, 7001)

        def child() -> Diagnosis:
            os.setgroups([])
            os.setgid(7001)
            os.setuid(7001)
            os.environ["DSCACHE_CONFIG"] = f"{folder}/none.toml"
            os.chdir(folder)
            return diagnosed(f"{folder}/cache")

        found = forked(child)
        assert troubles(found) == {"permissions": "warn"}
        assert "CACHEDIR.TAG belongs to others" in of(found, "permissions").detail
        assert any(each.name == "protected-hardlinks" for each in found.checks)


# --- the configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.toml", "jobs = ", "not valid TOML"),
        ("config.toml", "jbos = 3\n", "no such setting"),
        ("config.toml", "jobs = 0\n", "jobs"),
        ("dscache.toml", 'cache_dir = "/elsewhere"\n', "a project may not set this"),
    ],
)
def test_a_file_that_cannot_be_used(home: Path, file: str, text: str, said: str) -> None:
    (home / file).write_text(text)
    found = diagnosed()
    assert troubles(found) == {"configuration": "fail"}
    assert said in of(found, "configuration").detail
    assert str(home / file) in of(found, "configuration").detail
    assert found.code == 8
    run(code=8)


def test_every_file_and_variable_is_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text("jbos = 3\n")
    (home / "dscache.toml").write_text("[")
    monkeypatch.setenv("DSCACHE_JOBS", "many")
    found = diagnosed()
    assert [each.status for each in found.checks if each.name == "configuration"] == ["fail"] * 3
    assert of(found, "folder").status == "ok"


def test_what_is_set_by_whom_and_no_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text(
        'retries = 7\n[auth."data.example.org"]\npassword_env = "SECRET_NAME"\nuser = "me"\n'
        '[rewrite]\n"https://a.example.org/" = "http://user:hush@127.0.0.1/?key=hush"\n'
    )
    (home / "dscache.toml").write_text("stall_timeout = 7\n")
    monkeypatch.setenv("DSCACHE_JOBS", "4")
    shown = of(diagnosed(), "settings").detail
    assert f"retries = 7 ({home}/config.toml)" in shown
    assert f"stall_timeout = 7 ({home}/dscache.toml)" in shown
    assert "jobs = 4 (DSCACHE_JOBS)" in shown
    assert "data.example.org" in shown
    assert "hush" not in shown
    assert "me" not in shown.split()


# --- registries -----------------------------------------------------------------------------------


def configure(home: Path, url: str, more: str = "") -> None:
    text = f'connect_timeout = "3s"\nstall_timeout = "3s"\n{more}[registries]\nteam = "{url}"\n'
    (home / "config.toml").write_text(text)


def test_a_registry_that_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origin({"/r/registry.toml": REGISTRY}) as site:
        configure(home, site.url("/r"))
        found = diagnosed()
        assert troubles(found) == {}
        assert "without a proxy" in of(found, "registry:team").detail
        assert of(found, "registry:team:clock").status == "ok"
        assert of(found, "certificates").status == "ok"
        assert len(site.requests) == 1

        def late() -> Diagnosis:
            right = time.time
            time.time = lambda: right() - 3600
            return diagnosed()

        assert troubles(forked(late))["registry:team:clock"] == "warn"
        monkeypatch.setenv("DSCACHE_OFFLINE", "1")
        asked = len(site.requests)
        assert "offline mode (DSCACHE_OFFLINE)" in of(diagnosed(), "registry:team").detail
        assert len(site.requests) == asked


def test_a_proxy_is_named_without_its_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, "http://registry.example.org/")
    monkeypatch.setenv("http_proxy", f"http://me:hush@127.0.0.1:{free_port()}")
    found = diagnosed()
    assert found.code == 4
    said = of(found, "registry:team")
    assert "through the proxy http://127.0.0.1:" in said.detail
    assert "(http_proxy)" in said.detail
    assert "hush" not in said.detail
    assert "proxy" in said.hint


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [(404, 8, "no registry"), (403, 4, "credentials"), (503, 4, "network"), (407, 4, "password")],
)
def test_a_registry_that_refuses(home: Path, status: int, code: int, hint: str) -> None:
    with origin({"/registry.toml": REGISTRY}) as site:
        site.fault("/registry.toml", Refuse(status))
        configure(home, site.url("/"))
        found = diagnosed()
    assert troubles(found) == {"registry:team": "fail"}
    assert str(status) in of(found, "registry:team").detail
    assert hint in of(found, "registry:team").hint
    assert found.code == code
    assert len(site.requests) == 1


def test_a_server_that_is_down(home: Path) -> None:
    configure(home, f"http://127.0.0.1:{free_port()}/")
    found = diagnosed()
    assert troubles(found) == {"registry:team": "fail"}
    assert found.code == 4


def test_what_is_no_registry(home: Path) -> None:
    with origin({"/registry.toml": b"<html>log in</html>"}) as site:
        configure(home, site.url("/"))
        found = diagnosed()
    assert troubles(found) == {"registry:team": "fail"}
    assert found.code == 8


@pytest.mark.parametrize(
    "make", [certificate, self_signed, lambda folder: certificate(folder, days=-1)]
)
def test_a_certificate_that_is_not_trusted(home: Path, make: Callable[[Path], Any]) -> None:
    made = make(home / "tls")
    with origin({"/registry.toml": REGISTRY}, tls=made.pair) as site:
        configure(home, site.url("/"))
        found = diagnosed()
    assert troubles(found) == {"registry:team": "fail"}
    assert "certificate is not trusted" in of(found, "registry:team").hint
    assert found.code == 4


def test_authorities_of_ones_own(home: Path) -> None:
    made = certificate(home / "tls")
    with origin({"/registry.toml": REGISTRY}, tls=made.pair) as site:
        configure(home, site.url("/"), f'ca_bundle = "{made.authority}"\n')
        found = diagnosed()
        assert troubles(found) == {}
        assert str(made.authority) in of(found, "certificates").detail
        configure(home, site.url("/"), 'ca_bundle = "/no/such/file"\n')
        found = diagnosed()
    assert troubles(found)["certificates"] == "fail"
    assert "config.toml" in of(found, "certificates").hint


def test_registries_in_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Shelf(home / "one", "same"), Shelf(home / "other", "same")
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"{one.folder};{home / 'gone'}")
    found = diagnosed()
    assert troubles(found) == {f"registry:{home / 'gone'}": "fail"}
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"{one.folder};{other.folder}")
    found = diagnosed()
    assert troubles(found) == {f"registry:{other.folder}": "fail"}
    assert "two registries are named" in of(found, f"registry:{other.folder}").detail
    assert found.code == 2


@pytest.mark.parametrize(
    ("url", "variables", "found"),
    [
        ("http://a.org/", {"http_proxy": "p"}, ("p", "http_proxy")),
        ("http://a.org/", {"HTTP_PROXY": "p"}, ("", "")),
        ("https://a.org/", {"HTTPS_PROXY": "p"}, ("p", "HTTPS_PROXY")),
        ("https://a.org/", {"http_proxy": "p", "ALL_PROXY": "q"}, ("q", "ALL_PROXY")),
        ("https://a.org/", {"https_proxy": "p", "all_proxy": "q"}, ("p", "https_proxy")),
        ("https://a.org/", {"all_proxy": "q", "no_proxy": "a.org"}, ("", "no_proxy")),
        ("https://x.a.org/", {"all_proxy": "q", "NO_PROXY": "b.org, .a.org"}, ("", "NO_PROXY")),
        ("https://xa.org/", {"all_proxy": "q", "no_proxy": "a.org"}, ("q", "all_proxy")),
        ("https://a.org/", {"all_proxy": "q", "no_proxy": "*"}, ("", "no_proxy")),
        ("http://10.1.2.3/", {"http_proxy": "q", "no_proxy": "10.0.0.0/8"}, ("", "no_proxy")),
        ("ftp://a.org/", {"http_proxy": "q"}, ("", "")),
    ],
)
def test_which_proxy_applies(
    url: str, variables: dict[str, str], found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == found


# --- nothing is left ------------------------------------------------------------------------------


def test_what_was_tried_is_gone_after_an_error(home: Path) -> None:
    store = Store(str(home / "cache"))
    store.prepare()
    with suppress(KeyboardInterrupt), probes.probing(store.layout) as folder:
        Path(folder, "file").touch()
        raise KeyboardInterrupt
    assert os.listdir(store.layout.parts) == []


def test_nothing_outside_the_cache_changes(kept: Path, home: Path) -> None:
    around = {path: state for path, state in everything(home).items() if kept not in path.parents}
    diagnosed(kept)
    after = {path: state for path, state in everything(home).items() if kept not in path.parents}
    assert after == around
    shutil.rmtree(kept)
