"""Buckets of object stores: opening one for a URL, and addresses under which HTTP serves its files.

Credentials, endpoint and region are what obstore finds in the usual variables of each store. A
signed address holds a signature that is as good as a password for its hour: it is made for one
request, and nobody but the connection sees it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dscache.errors import TransferError, UsageError
from dscache.settings import endpoint

if TYPE_CHECKING:
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

#: The protocols of object stores, each with the extra that installs what it needs.
SCHEMES = {"s3": "s3", "gs": "gcs", "az": "azure"}

_SIGNED_FOR = timedelta(hours=1)
_CONNECT_TIMEOUT, _TIMEOUT = timedelta(seconds=10), timedelta(minutes=10)
#: How long one request is tried again. A caller knows better than to wait longer.
_RETRIES, _RETRY_TIMEOUT = 4, timedelta(seconds=60)


def is_bucket(url: str) -> bool:
    """True for the URL of something in an object store."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


def open_bucket(url: str) -> S3Store | GCSStore | AzureStore:
    """The store at a URL such as `s3://bucket/prefix`; nothing is asked yet.

    Raises:
        UsageError: the package for object stores is missing, or the URL names no bucket.
    """
    scheme = url.partition("://")[0].lower()
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise UsageError(
            f"{scheme}:// needs the package obstore, which is not here",
            hint=f"pip install 'dscache[{SCHEMES[scheme]}]'",
        ) from error
    kinds: dict[str, type[S3Store | GCSStore | AzureStore]] = {
        "s3": S3Store,
        "gs": GCSStore,
        "az": AzureStore,
    }
    where = endpoint(scheme)
    options: ClientConfig = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "timeout": _TIMEOUT,
        # The endpoint is the user's own word; elsewhere nothing leads to http.
        "allow_http": where.startswith("http://"),
    }
    retries: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT}
    known: dict[str, Any] = {"endpoint": where} if where else {}
    try:
        return kinds[scheme].from_url(
            url.rstrip("/"), client_options=options, retry_config=retries, **known
        )
    except (BaseError, ValueError) as error:
        raise UsageError(f"{url} cannot be used: {reason(error)}") from error


@lru_cache(maxsize=1)
def _home() -> int:
    return os.getpid()


def has_left_home() -> bool:
    """True in a process that was forked from one in which obstore has been at work: its threads are
    not here, and whoever waits for an answer from them waits for ever.
    """
    return _home() != os.getpid()


class Signing:
    """Makes HTTP addresses for files in buckets; each bucket is opened once."""

    def __init__(self) -> None:
        self._buckets: dict[str, S3Store | GCSStore | AzureStore] = {}

    def __call__(self, url: str) -> str:
        """An address that serves `url` by GET for an hour.

        Raises:
            TransferError: there are no credentials to sign with.
            UsageError: as `open_bucket`.
        """
        scheme, _, rest = url.partition("://")
        bucket, _, path = rest.partition("/")
        top = f"{scheme}://{bucket}"
        if top not in self._buckets:
            self._buckets[top] = open_bucket(top)
        import obstore  # it is there, since a bucket was opened
        from obstore.exceptions import BaseError

        has_left_home()  # so that a child knows, where this is the first use
        try:
            return obstore.sign(self._buckets[top], "GET", unquote(path), _SIGNED_FOR)
        except BaseError as error:
            raise TransferError(f"{url}: {reason(error)}", hint=CREDENTIALS, url=url) from error


CREDENTIALS = (
    "credentials come from the store's usual variables, such as AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)


def reason(error: Exception) -> str:
    """The first line of what a library of stores says: the rest repeats it, with all its parts."""
    return str(error).partition("\n")[0].partition(": <?xml")[0]
