"""The command line as a program: documents on stdout, talk on stderr, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.making import Shelf, artifact, content
from tests.origin import Drip, Refuse, Site, origin

ONE, BIG = content(20_000, 1), content(4 << 20, 3)
DSCACHE = f"{sys.executable} -m dscache"
_BYTES = pytest.mark.skipif(
    sys.platform != "linux", reason="on this system the names of files are text"
)
RESULT_KEYS = {
    "name",
    "version",
    "registry",
    "path",
    "status",
    "bytes_downloaded",
    "bytes_resumed",
    "size",
    "seconds",
}


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/one.bin": ONE, "/big.bin": BIG}) as found:
        yield found


@pytest.fixture
def shelf(shelf: Shelf, site: Site) -> Shelf:
    shelf.add(
        "one",
        [artifact("one.bin", ONE, site.url("/one.bin"))],
        summary="the first",
        license="CC0-1.0",
        homepage="https://example.org",
    )
    shelf.add("big", [artifact("big.bin", BIG, site.url("/big.bin"))])
    return shelf


def dscache(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dscache", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def document(*words: str | Path, code: int = 0) -> Any:
    return json.loads(dscache(*words, "--json", code=code).stdout)


def test_fetch_prints_the_path_and_nothing_else_on_stdout(shelf: Shelf) -> None:
    done = dscache("fetch", "one")
    assert Path(done.stdout.rstrip("\n")).read_bytes() == ONE
    assert "20 kB downloaded" in done.stderr
    assert "nothing downloaded" in dscache("fetch", "one").stderr


def test_fetch_as_a_document(shelf: Shelf) -> None:
    (found,) = document("fetch", "one")
    assert found.keys() == RESULT_KEYS
    assert (found["name"], found["version"], found["registry"]) == ("one", "1", "shelf")
    assert (found["status"], found["bytes_downloaded"], found["size"]) == (
        "downloaded",
        20000,
        20000,
    )
    (again,) = document("fetch", "one", "--into", "here")
    assert (again["status"], again["bytes_downloaded"]) == ("cached", 0)
    assert again["path"] == str(Path.cwd() / "here/one.bin")
    assert again["link"] in ("reflink", "hardlink")


def test_one_failure_is_one_error(shelf: Shelf) -> None:
    error = document("fetch", "nothing-like-it", code=3)["error"]
    assert (error["code"], error["type"]) == (3, "NotFound")
    assert error["message"]
    assert error["hint"]


def test_with_several_names_the_others_go_on(shelf: Shelf) -> None:
    first, second = document("fetch", "nothing-like-it", "one", code=3)
    assert first["error"]["code"] == 3
    assert second["status"] == "downloaded"


@pytest.mark.parametrize(
    "words",
    [
        ["fetch", "--no-such-option", "one"],
        ["fetch"],
        ["fetch", "A B"],
        ["fetch", "one", "--jobs", "none"],
        ["fetch", "one", "--limit-rate", "fast"],
        ["fetch", "one", "--link", "glue"],
        ["fetch", "one", "--into", ""],
        ["registry", "init", ""],
        ["registry", "publish", "shelf", "--to", ""],
        ["no-such-command"],
    ],
)
def test_wrong_usage(shelf: Shelf, words: list[str]) -> None:
    assert document(*words, code=2)["error"]["code"] == 2
    assert dscache(*words, code=2).stdout == ""


def test_path(shelf: Shelf) -> None:
    assert document("path", "one", code=3)["error"]["type"] == "NotCached"
    dscache("fetch", "one")
    found = document("path", "one")
    assert found.keys() == {"name", "version", "registry", "path"}
    assert dscache("path", "one").stdout == f"{found['path']}\n"


def test_list(shelf: Shelf) -> None:
    assert document("list") == []
    dscache("fetch", "one")
    (row,) = document("list")
    assert row.keys() == {"name", "version", "registry", "bytes", "last_used", "pinned"}
    assert row["bytes"] == len(ONE)
    assert "shelf/one" in dscache("list").stdout


def test_list_available_and_search(shelf: Shelf) -> None:
    rows = document("list", "--available")
    assert {"shelf", "samples", "vision", "science"} <= {row["registry"] for row in rows}
    (row,) = document("search", "THE FIRST")
    assert row == {
        "name": "one",
        "version": "1",
        "registry": "shelf",
        "size": len(ONE),
        "summary": "the first",
        "cached": False,
    }


def test_info(shelf: Shelf, site: Site) -> None:
    found = document("info", "one")
    assert found["artifacts"] == [
        {
            "path": "one.bin",
            "size": len(ONE),
            "hash": artifact("one.bin", ONE)["hash"],
            "checksums": [],
            "urls": [site.url("/one.bin")],
            "unpack": "",
            "manual": "",
        }
    ]
    assert (found["license"], found["cached"], found["path"]) == ("CC0-1.0", False, None)
    assert (found["trust"], found["versions"]) == ("registry", ["1"])
    assert "the first" in dscache("info", "one").stdout


def test_imagenet_is_complete() -> None:
    found = document("info", "imagenet-val")
    (file,) = found["artifacts"]
    assert (file["size"], file["path"]) == (6744924160, "ILSVRC2012_img_val.tar")
    assert file["hash"].startswith("sha256:")
    assert "md5:29b22e2961454d5413ddabcf34fc5622" in file["checksums"]
    assert file["urls"]
    assert "dscache import imagenet-val" in file["manual"]


def test_usage(shelf: Shelf) -> None:
    dscache("fetch", "one", "penguins")
    found = document("usage")
    assert found.keys() == {"root", "bytes", "blobs", "saved_bytes", "counters", "datasets"}
    assert found["blobs"] == 2
    assert found["datasets"][0]["name"] == "one", "the largest first"
    assert "saved by sharing" in dscache("usage").stdout
    groups = document("usage", "--by", "dataset")["groups"]
    assert groups[0] == {"key": "shelf/one@1", "bytes": 20_000, "datasets": 1}
    assert document("usage", "--by", "registry")["groups"][0]["key"] == "shelf"


def test_config(shelf: Shelf, home: Path) -> None:
    (home / "config.toml").write_text("jobs = 3\n[unpack]\nmax_ratio = 7\n")
    found = document("config")
    assert found["jobs"] == {"value": 3, "source": str(home / "config.toml")}
    assert found["unpack.max_ratio"]["value"] == 7
    assert found["cache_dir"]["source"] == "DSCACHE_DIR"
    assert found["retries"] == {"value": 5, "source": "default"}
    assert document("config", "--cache-dir", "elsewhere")["cache_dir"]["source"] == "argument"


def test_a_malformed_configuration_names_file_and_key(home: Path) -> None:
    (home / "config.toml").write_text("jbos = 3\n")
    error = document("list", code=8)["error"]
    assert "config.toml" in error["message"]
    assert "jobs" in error["hint"]


def test_import(shelf: Shelf, home: Path) -> None:
    shelf.add("closed", [artifact("one.bin", ONE, manual="By hand.")])
    done = dscache("fetch", "closed", code=3)
    assert "By hand." in done.stderr
    (home / "file").write_bytes(ONE)
    (found,) = document("import", "closed", home / "file")
    assert found.keys() == RESULT_KEYS
    assert document("fetch", "closed")[0]["status"] == "cached"
    (home / "file").write_bytes(b"wrong")
    assert document("import", "closed", home / "file", code=5)["error"]["type"] == "IntegrityError"
    assert document("import", "closed", home / "none", code=3)["error"]["code"] == 3


def test_retrieve(site: Site) -> None:
    done = dscache("retrieve", site.url("/one.bin"), "--hash", artifact("x", ONE)["hash"])
    assert Path(done.stdout.strip()).read_bytes() == ONE
    assert document("retrieve", site.url("/one.bin"), "--hash", "md5:12", code=2)["error"]
    wrong = artifact("x", BIG)["hash"]
    assert document("retrieve", site.url("/one.bin"), "--hash", wrong, code=5)["error"]["code"] == 5


def test_a_transfer_that_fails(shelf: Shelf, site: Site, home: Path) -> None:
    (home / "config.toml").write_text("retries = 1\n")
    site.fault("/one.bin", Refuse(500))
    error = document("fetch", "one", code=4)["error"]
    assert error["sources"] == [{"url": site.url("/one.bin"), "reason": "the server answered 500"}]


def test_registries_are_added_listed_and_removed(shelf: Shelf, home: Path) -> None:
    other = Shelf(home / "other", "ignored")
    (home / "config.toml").write_text("# mine\njobs = 4\n")
    dscache("registry", "add", "team", other.folder)
    text = (home / "config.toml").read_text()
    assert "# mine" in text
    rows = {row["name"]: row for row in document("registry", "list")}
    assert rows["team"] == {
        "name": "team",
        "url": str(other.folder),
        "datasets": 0,
        "signed": False,
    }
    assert document("registry", "add", "team", shelf.folder, code=2)["error"]["code"] == 2
    assert document("registry", "add", "none", home / "none", code=4)["error"]["code"] == 4
    dscache("registry", "remove", "team")
    assert document("registry", "remove", "team", code=3)["error"]["code"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_at_once_and_keep_what_came(
    shelf: Shelf, site: Site, number: signal.Signals, code: int
) -> None:
    site.fault("/big.bin", Drip(size=256 << 10, every=0.1), times=1)
    command = [sys.executable, "-m", "dscache", "fetch", "big"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while site.sent("/big.bin") < 1 << 20:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=5)
    assert process.returncode == code
    assert "kept" in said
    (found,) = document("fetch", "big")
    assert found["bytes_resumed"] >= 512 << 10
    assert Path(found["path"]).read_bytes() == BIG


def test_progress_is_drawn_on_a_terminal_only(shelf: Shelf, site: Site) -> None:
    site.fault("/big.bin", Drip(size=1 << 20, every=0.1))
    screen, end = pty.openpty()
    command = [sys.executable, "-m", "dscache", "fetch", "big"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, env=environment)
    os.close(end)
    drawn = _read_all(screen)
    assert process.wait() == 0
    assert b"big.bin" in drawn
    assert b"4.19 MB" in drawn
    assert process.stdout is not None
    assert Path(process.stdout.read().decode().strip()).read_bytes() == BIG
    process.stdout.close()


def test_completion_knows_the_names(shelf: Shelf) -> None:
    environment = os.environ | {
        "_DSCACHE_COMPLETE": "bash_complete",
        "COMP_WORDS": "dscache fetch peng",
        "COMP_CWORD": "2",
    }
    program = Path(sys.executable).parent / "dscache"
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert "plain,penguins" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "code"),
    [("list --available", 0), ("--help", 0), ("fetch --help", 0), ("fetch no --json", 3)],
)
def test_a_reader_that_goes_away_is_no_error(words: str, code: int) -> None:
    done = shell(f"{DSCACHE} {words} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (code, "")


def test_closed_streams_change_nothing(shelf: Shelf) -> None:
    assert shell(f"{DSCACHE} fetch one <&- >&- 2>&-").returncode == 0
    assert Path(shell(f"{DSCACHE} fetch one <&- 2>&-").stdout.rstrip("\n")).read_bytes() == ONE
    assert shell(f"{DSCACHE} fetch none >&- 2>&-").returncode == 3
    assert shell(f"{DSCACHE} run one <&- 2>&- >&- -- true").returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_an_error_of_stdout_alone(shelf: Shelf) -> None:
    for words in ("config", "list --available --json", "--help"):
        done = shell(f"{DSCACHE} {words} >/dev/full")
        assert done.returncode == 6
        assert done.stderr == "error: stdout cannot be written: No space left on device\n"
    assert shell(f"{DSCACHE} fetch none 2>/dev/full").returncode == 3
    assert shell(f"{DSCACHE} no-such-command 2>/dev/full").returncode == 2


def test_a_folder_that_was_removed_under_our_feet(shelf: Shelf, home: Path) -> None:
    gone = f"mkdir gone; cd gone; rmdir ../gone; {DSCACHE}"
    assert Path(shell(f"{gone} fetch one").stdout.rstrip("\n")).read_bytes() == ONE
    done = shell(f"{gone} add one --json")
    assert (done.returncode, json.loads(done.stdout)["error"]["type"]) == (6, "StorageError")


@_BYTES
def test_a_path_that_is_no_text(shelf: Shelf, home: Path) -> None:
    root = os.fsencode(home) + b"/no \xff text"
    command = [*map(os.fsencode, DSCACHE.split()), b"fetch", b"one", b"--cache-dir", root]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    plain = subprocess.run(command, capture_output=True, check=True, env=strict).stdout
    assert plain.startswith(root)
    assert Path(os.fsdecode(plain.rstrip(b"\n"))).read_bytes() == ONE
    said = subprocess.run([*command, b"--json"], capture_output=True, check=True).stdout
    assert os.fsencode(json.loads(said)[0]["path"]) == plain.rstrip(b"\n")


@_BYTES
def test_folders_whose_names_are_no_text(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(os.fsdecode(os.fsencode(home) + b"/no \xff text"))
    root.mkdir()
    (root / "one.bin").write_bytes(ONE)
    dscache("registry", "init", root / "own", "--name", "own")
    dscache("registry", "new", "one", root / "one.bin", "--registry", root / "own")
    assert document("registry", "add", "own", root / "own", code=2)["error"]["code"] == 2
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(root / "own"))
    (found,) = document("fetch", "one", "--into", root / "in")
    assert Path(found["path"]).read_bytes() == ONE
    assert document("fetch", "one", "--files", os.fsdecode(b"\xff"), code=3)["error"]["code"] == 3
    monkeypatch.chdir(root)
    document("add", "one")
    (found,) = document("sync", "--locked")
    assert found["status"] == "cached"


def test_the_options_of_a_command_to_run_are_its_own(shelf: Shelf) -> None:
    done = dscache("run", "none", "--", "true", "--json", code=3)
    assert (done.stdout, done.stderr.splitlines()[0]) == ("", "error: no dataset none")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


def _read_all(fd: int) -> bytes:
    """All that a terminal shows; reading it fails once its other end is closed (Linux)."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            os.close(fd)
            return b"".join(chunks)
        chunks.append(chunk)


def test_a_registry_is_written_checked_and_used(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a.bin").write_bytes(ONE)
    dscache("registry", "init", "mine", "--title", "Mine")
    dscache("registry", "new", "data", "a.bin", site.url("/big.bin"), "--registry", "mine")
    report = document("registry", "check", "mine")
    assert report["errors"] == []
    assert {each["key"] for each in report["warnings"]} >= {"license", "homepage"}
    dscache("registry", "index", "mine")
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(home / "mine"))
    path = Path(dscache("fetch", "data").stdout.strip())
    assert (path / "a.bin").read_bytes() == ONE
    assert (path / "big.bin").read_bytes() == BIG
    lines = dscache("registry", "export", "data").stdout.splitlines()
    assert f"a.bin {artifact('a.bin', ONE)['hash']}" in lines
    dscache("registry", "yank", "data@1", "--reason", "wrong labels", "--registry", "mine")
    assert "wrong labels" in dscache("fetch", "data", "--into", "x").stderr


def test_a_pooch_registry_becomes_a_dataset(site: Site, home: Path) -> None:
    dscache("registry", "init", "mine")
    (home / "registry.txt").write_text(f"one.bin {artifact('one.bin', ONE)['hash']}\n")
    words = ["--from-pooch", "registry.txt", "--base-url", site.url("/"), "--registry", "mine"]
    dscache("registry", "new", "old", *words)
    dscache("registry", "add", "mine", home / "mine")
    assert Path(dscache("fetch", "mine/old").stdout.strip()).read_bytes() == ONE


def test_a_hostile_registry_is_reported_whole(home: Path) -> None:
    shelf = Shelf(home / "bad", "bad")
    shelf.add("up", [artifact("../up", ONE, "https://example.org/up")])
    shelf.add(
        "twins", [artifact("A", ONE, "https://a.org/a"), artifact("a", ONE, "https://a.org/a")]
    )
    (shelf.folder / "torn.toml").write_text("version = ")
    report = document("registry", "check", "bad", code=8)
    assert {each["file"] for each in report["errors"]} == {"up.toml", "twins.toml", "torn.toml"}
