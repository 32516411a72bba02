"""The drop-in for Pooch: what `import pooch` offers, with the downloads and the files of the cache.

    import dscache.integrations.pooch as pooch

Files appear in the folder that Pooch would use, as links to the cache. Modules are named as in
Pooch, since programs write `pooch.processors.Unzip`. What is not defined here is Pooch's own.
"""

from __future__ import annotations

from pooch import (
    DOIDownloader,
    FTPDownloader,
    HTTPDownloader,
    SFTPDownloader,
    __version__,
    check_version,
    downloaders,
    file_hash,
    get_logger,
    hashes,
    make_registry,
    os_cache,
    test,
    typing,
    utils,
)

from dscache.integrations.pooch import core, processors
from dscache.integrations.pooch.core import Pooch, create, retrieve
from dscache.integrations.pooch.processors import Decompress, Untar, Unzip

__all__ = [
    "DOIDownloader",
    "Decompress",
    "FTPDownloader",
    "HTTPDownloader",
    "Pooch",
    "SFTPDownloader",
    "Untar",
    "Unzip",
    "__version__",
    "check_version",
    "core",
    "create",
    "downloaders",
    "file_hash",
    "get_logger",
    "hashes",
    "make_registry",
    "os_cache",
    "processors",
    "retrieve",
    "test",
    "typing",
    "utils",
]
