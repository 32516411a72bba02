"""Failing: the error for what cannot be downloaded, for programs that expect one of requests."""

from __future__ import annotations

from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import HTTPError

from dscache.errors import TransferError


class DownloadFailed(TransferError, HTTPError, NoConnection):
    """Every source failed. Which of the two Pooch would raise depends on the last of many tries.

    Its `response` and `request` are None.
    """
