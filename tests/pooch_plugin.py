"""Points Pooch's own tests at the drop-in: a plugin of pytest, loaded before they are imported.

It owns what is replaced in Pooch, the servers that stand for the internet, and the list of tests
that are left out, each with its reason. `DROP_IN_URL` serves Pooch's test data.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pooch
import pooch.core
import pooch.processors
import pooch.tests.utils
import pytest

from dscache.integrations import pooch as drop_in
from tests.ftp import ftp_server

_DOI = "asks doi.org and a repository on the internet"
_SFTP = "asks a server on the internet"
_HASHING = "replaces a function of Pooch by which the drop-in does not hash"

#: What deliberately differs, or cannot run here: ends of test ids, and why.
LEFT_OUT = {
    "test_pooch_custom_url[figshare]": _DOI,
    "test_pooch_custom_url[zenodo]": _DOI,
    "test_pooch_custom_url[dataverse]": _DOI,
    "test_pooch_download[figshare]": _DOI,
    "test_pooch_download[zenodo]": _DOI,
    "test_pooch_download[dataverse]": _DOI,
    "test_load_registry_from_doi[figshare]": _DOI,
    "test_load_registry_from_doi[zenodo]": _DOI,
    "test_load_registry_from_doi[dataverse]": _DOI,
    "test_load_registry_from_doi_zenodo_with_slash": _DOI,
    "test_invalid_doi_repository": _DOI,
    "test_doi_url_not_found": _DOI,
    "test_figshare_url_file_not_found[figshare]": _DOI,
    "test_figshare_url_file_not_found[zenodo]": _DOI,
    "test_figshare_url_file_not_found[dataverse]": _DOI,
    "test_doi_downloader[figshare]": _DOI,
    "test_doi_downloader[zenodo]": _DOI,
    "test_doi_downloader[dataverse]": _DOI,
    "test_zenodo_downloader_with_slash_in_fname": _DOI,
    "test_figshare_unspecified_version": _DOI,
    "test_downloader_progressbar[figshare]": _DOI,
    "test_figshare_data_repository_versions[1-LC08_L2SP_218074_20190114_20200829_02_T1-cropped"
    ".tar.gz-cropped-before.tar.gz]": _DOI,
    "test_figshare_data_repository_versions[2-cropped-before.tar.gz-LC08_L2SP_218074_20190114_"
    "20200829_02_T1-cropped.tar.gz]": _DOI,
    "test_sftp_downloader": _SFTP,
    "test_sftp_downloader_fail_if_file_object": _SFTP,
    "test_downloader_progressbar_sftp": _SFTP,
    "test_downloader_arbitrary_progressbar": "counts the bytes of GitHub's compressed answer",
    # What these want of the drop-in is in test_pooch_drop_in: retries and their log.
    "test_pooch_download_retry_off_by_default": _HASHING,
    "test_pooch_download_retry": _HASHING,
    "test_pooch_download_retry_fails_eventually": _HASHING,
}


def pytest_configure(config: pytest.Config) -> None:
    """Replace what the drop-in has of its own, and tell Pooch's tests where their data are."""
    for mark in ("network", "figshare"):
        config.addinivalue_line("markers", mark)
    for module, names in (
        (pooch.core, ("Pooch", "create", "retrieve")),
        (pooch.processors, ("Unzip", "Untar", "Decompress")),
    ):
        for name in names:
            setattr(module, name, getattr(drop_in, name))
            setattr(pooch, name, getattr(drop_in, name))
    pooch.tests.utils.pooch_test_url = lambda: os.environ["DROP_IN_URL"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is on the list."""
    left_out = [item for item in items if item.name in LEFT_OUT]
    assert {item.name for item in left_out} == LEFT_OUT.keys(), "one of the tests has another name"
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache of its own, which is empty, and so has Pooch."""
    monkeypatch.setenv("DSCACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def ftpserver(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """As that of pytest-localftpserver."""
    folder = tmp_path / "ftp"
    folder.mkdir()
    with ftp_server(folder) as port:
        yield SimpleNamespace(anon_root=str(folder), server_port=port)


@pytest.fixture
def httpserver() -> Iterator[Any]:
    """As that of pytest-httpserver: JSON documents at paths."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Documents) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield _Server(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()


class _Server:
    def __init__(self, base: str) -> None:
        self._base = base
        self._documents: dict[str, bytes] = {}
        _Documents.documents = self._documents

    def url_for(self, path: str) -> str:
        return self._base + path

    def expect_request(self, path: str) -> SimpleNamespace:
        def respond(document: object) -> None:
            self._documents[path] = json.dumps(document).encode()

        return SimpleNamespace(respond_with_json=respond)


class _Documents(BaseHTTPRequestHandler):
    documents: dict[str, bytes]

    def do_GET(self) -> None:
        found = self.documents.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""
