"""Settings: which source rules, what a value may be, and what a project may not say."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache import settings
from dscache.errors import DscacheError, InvalidFile, UsageError
from dscache.quantities import parse_duration, parse_size, show_duration, show_size
from dscache.settings import Auth


@pytest.fixture
def config(home: Path) -> Path:
    """The user's configuration file; not there yet."""
    return home / "config.toml"


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a project in whose subfolder we stand; not there yet."""
    folder = home / "project"
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "down")
    return folder / "dscache.toml"


def test_precedence(config: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(**arguments: object) -> tuple[int, str]:
        found = settings.load(**arguments)
        return found.jobs, found.sources["jobs"]

    assert seen() == (16, "default")
    config.write_text("jobs = 2")
    assert seen() == (2, str(config))
    project.write_text("jobs = 3")
    assert seen() == (3, str(project))
    monkeypatch.setenv("DSCACHE_JOBS", "4")
    assert seen() == (4, "DSCACHE_JOBS")
    assert seen(jobs=5) == (5, "argument")
    assert seen(jobs=None) == (4, "DSCACHE_JOBS")


def test_an_empty_variable_says_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("offline = true")
    monkeypatch.setenv("DSCACHE_OFFLINE", "")
    assert settings.load().offline


@pytest.mark.parametrize(
    "url", ["https://me:hush@example.org/r", "s3://bucket/r?key=hush", "https://me:hush@[x/r"]
)
def test_addresses_hold_no_credentials_and_none_is_shown(
    url: str, config: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(kind: type[DscacheError]) -> None:
        with pytest.raises(kind) as caught:
            settings.load()
        assert "hush" not in f"{caught.value!r} {caught.value.hint} {caught.value.facts}"
        _, problems = settings.salvaged()
        assert [type(each) for each in problems] == [kind]

    for file in (config, project):
        file.write_text(f'[registries]\nteam = "{url}"')
        refused(InvalidFile)
        file.unlink()
    config.write_text(f'remote = "{url}"')
    refused(InvalidFile)
    config.unlink()
    monkeypatch.setenv("DSCACHE_REGISTRIES", f"/folder;{url}")
    refused(UsageError)
    monkeypatch.delenv("DSCACHE_REGISTRIES")
    monkeypatch.setenv("DSCACHE_REMOTE", url)
    refused(UsageError)


@pytest.mark.parametrize("url", ["http://[::1", "https://h:port/", "https:///r", "s3://"])
def test_addresses_are_urls_that_lead_somewhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCACHE_REGISTRIES", url)
    with pytest.raises(UsageError, match="DSCACHE_REGISTRIES: "):
        settings.load()


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE"])
def test_words_for_true(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCACHE_OFFLINE", word)
    assert settings.load().offline


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "No"])
def test_words_for_false(word: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("offline = true")
    monkeypatch.setenv("DSCACHE_OFFLINE", word)
    assert not settings.load().offline


def test_a_malformed_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCACHE_JOBS", "many")
    with pytest.raises(UsageError, match="DSCACHE_JOBS"):
        settings.load()


def test_every_key_of_the_documentation(config: Path) -> None:
    config.write_text(
        """
        cache_dir = "/cache"
        jobs = 8
        limit_rate = "1MB"
        connect_timeout = "5s"
        stall_timeout = 20
        stall_rate = "10KiB"
        retries = 0
        max_retry_wait = "1m"
        lock_timeout = "2h"
        ca_bundle = "/ca.pem"
        durability = "sync"
        link = "copy"
        keep_archives = false
        max_size = "100GiB"
        auto_prune = true
        prune_grace = "2m"
        part_max_age = "1d"
        quarantine_max_age = "2d"
        lease_ttl = "3d"
        root_grace = "4d"
        max_unknown_size = "1TB"
        offline = true
        registry_max_age = "10m"
        read_from = ["/other"]
        remote = "s3://bucket"
        push = true
        keys = "keyring:"
        [registries]
        team = "https://data.example.org/registry"
        [roots]
        team = "roots/team.json"
        [rewrite]
        "https://a/" = "http://b/"
        [auth."data.example.org"]
        token_env = "TOKEN"
        [unpack]
        max_members = 10
        max_bytes = "1GB"
        max_ratio = 5
        """
    )
    found = settings.load()
    assert all(source != "default" for key, source in found.sources.items() if key != "cache_dir")
    assert found.limit_rate == 10**6
    assert found.stall_rate == 10 * 2**10
    assert found.max_size == 100 * 2**30
    assert found.lock_timeout == 7200
    assert found.auth["data.example.org"] == Auth(token_env="TOKEN")
    assert found.unpack_max_bytes == 10**9
    assert found.registries == {"team": "https://data.example.org/registry"}
    assert found.roots == {"team": str(config.parent / "roots/team.json")}


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [("job = 3", "job", "jobs"), ("[unpack]\nmax_member = 3", "unpack.max_member", "max_members")],
)
def test_an_unknown_key_and_the_nearest(config: Path, text: str, key: str, near: str) -> None:
    config.write_text(text)
    with pytest.raises(InvalidFile) as failure:
        settings.load()
    assert failure.value.facts == {"file": str(config), "key": key}
    assert near in failure.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "jobs = 0",
        "jobs = true",
        'jobs = "many"',
        "jobs = -1",
        'limit_rate = "fast"',
        "limit_rate = inf",
        "lock_timeout = nan",
        'link = "magic"',
        "registries = 3",
        "registries = { Team = 'x' }",
        "read_from = '/other'",
        "auth = { host = { secret = 'x' } }",
        "unpack = 3",
        "unpack_max_members = 3",
        "jobs = " + "1" * 5000,
        "jobs",
        "a = " + "[" * 5000,
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
    ],
)
def test_a_malformed_file_is_named(config: Path, text: str) -> None:
    config.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidFile, match=r"config\.toml"):
        settings.load()


def test_a_file_that_cannot_be_read(config: Path) -> None:
    config.mkdir()
    with pytest.raises(InvalidFile, match=r"config\.toml"):
        settings.load()


def test_a_file_of_absurd_length(config: Path) -> None:
    with config.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InvalidFile, match=r"config\.toml"):
        settings.load()


@pytest.mark.parametrize(
    "text",
    [
        "auth = {}",
        "rewrite = {}",
        "cache_dir = '/x'",
        "ca_bundle = '/x'",
        "remote = 's3://x'",
        "push = true",
        "auto_prune = true",
        "max_size = '1'",
        "prune_grace = '0s'",
        "root_grace = '0s'",
    ],
)
def test_a_project_may_not(project: Path, text: str) -> None:
    project.write_text(text)
    with pytest.raises(InvalidFile, match="a project may not set this"):
        settings.load()


def test_a_project_is_found_upwards(project: Path) -> None:
    assert settings.load().project is None
    project.write_text('[datasets]\nmnist = "*"')
    assert settings.load().project == str(project.parent)


def test_registries_of_project_and_user(config: Path, project: Path) -> None:
    config.write_text('[registries]\nmine = "here"\nother = "~/there"')
    project.write_text('[registries]\nteam = "data"\nfar = "https://example.org/r"')
    found = settings.load()
    assert found.registries == {
        "mine": str(config.parent / "here"),
        "other": os.path.expanduser("~/there"),
    }
    assert found.project_registries == {
        "team": str(project.parent / "data"),
        "far": "https://example.org/r",
    }


def test_folders_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCACHE_REGISTRIES", " /a ;https://b/r;; ")
    assert settings.load().extra_registries == ("/a", "https://b/r")


def test_the_certificates_of_other_programs(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/requests.pem")
    monkeypatch.setenv("CURL_CA_BUNDLE", "/curl.pem")
    assert settings.load().ca_bundle == "/curl.pem"
    config.write_text('ca_bundle = "/mine.pem"')
    assert settings.load().ca_bundle == "/mine.pem"


def test_a_change_of_the_file_is_seen(config: Path) -> None:
    config.write_text("jobs = 2")
    assert settings.load().jobs == 2
    config.write_text("jobs = 11")
    assert settings.load().jobs == 11


def test_a_working_folder_that_is_gone(home: Path) -> None:
    gone = home / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert settings.load().project is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100GB", 10**11),
        ("100GiB", 100 * 2**30),
        ("1.5 kb", 1500),
        ("7", 7),
        (7, 7),
        ("0", 0),
        ("2MiB", 2 << 20),
        ("1TB", 10**12),
        ("3B", 3),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("10m", 600), ("30s", 30), (1.5, 1.5)]
)
def test_times(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.binary())
def test_quantities_are_finite_or_refused(value: object) -> None:
    for parse in (parse_size, parse_duration):
        try:
            number = parse(value)
        except UsageError:
            continue
        assert 0 <= number < math.inf


@given(st.integers(0, 10**15))
def test_sizes_are_shown_with_three_figures(size: int) -> None:
    number, unit = show_size(size).split()
    factor = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    assert math.isclose(float(number) * factor, size, rel_tol=0.006, abs_tol=0.5)


def test_times_are_shown() -> None:
    assert [show_duration(seconds) for seconds in (45, 720, 12600, 700000)] == [
        "45 s",
        "12 min",
        "3.5 h",
        "8 d",
    ]
