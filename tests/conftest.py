"""Every test has a home of its own: cache, configuration and working folder."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.making import Shelf
from tests.weed import Weed, weed

# How long an example takes says more about the machine than about the code.
settings.register_profile("dscache", deadline=None)
settings.load_profile("dscache")

# A shell that runs the tests in the background has Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_KEPT_OUT = (
    "DSCACHE_REGISTRIES",
    "DSCACHE_OFFLINE",
    "DSCACHE_JOBS",
    "DSCACHE_REMOTE",
    "DSCACHE_KEYS",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "AWS_CA_BUNDLE",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for one test, in which its cache and configuration are, and where it stands."""
    folder = tmp_path_factory.mktemp("home")
    for name in _KEPT_OUT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DSCACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("DSCACHE_CONFIG", str(folder / "config.toml"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shelf(home: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """An empty registry, the only one besides the bundled ones; modules put their datasets in."""
    made = Shelf(home / "shelf")
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(made.folder))
    return made


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with weed(tmp_path_factory.mktemp("weed")) as store:
        yield store


@pytest.fixture
def store(_store: Weed, monkeypatch: pytest.MonkeyPatch) -> Weed:
    """An object store that all tests share, each with buckets of its own, and our way in."""
    for name, value in _store.environment().items():
        monkeypatch.setenv(name, value)
    return _store
