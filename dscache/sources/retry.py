"""When to try again: pure decisions about failures, delays and the budget of a call."""

from __future__ import annotations

import msgspec

from dscache.settings import Settings
from dscache.sources.exchange import Failure, Trouble

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
_RETRYABLE = frozenset({Trouble.CONNECTION, Trouble.BUSY})
#: Retries that a whole call may use without finishing a file, as a multiple of those of one file.
_BUDGET_FACTOR = 20


class Policy(msgspec.Struct, frozen=True):
    """Attempts beyond the first per file and source, and the longest wait a server may ask for."""

    retries: int = 5
    max_retry_wait: float = 300


def policy_of(settings: Settings) -> Policy:
    """The policy that the user has configured."""
    return Policy(settings.retries, settings.max_retry_wait)


class Budget:
    """Retries left for a whole call, so that many failing files end soon. Success refills it."""

    def __init__(self, policy: Policy) -> None:
        self._most = policy.retries * _BUDGET_FACTOR
        self._left = self._most

    def spend(self) -> bool:
        """Use one retry; False if there is none left."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def refill(self) -> None:
        """A file is complete, or much of one has come: the network works."""
        self._left = min(self._most, self._left + 1)


def delay(failure: Failure, attempt: int, policy: Policy) -> float | None:
    """Seconds to wait before the same source is asked again; None means not to ask it again.

    `attempt` counts the failures in a row without progress, from 1. The wait doubles each time,
    with jitter, and is never shorter than what the server asks for (RFC 9110, 10.2.3).
    """
    import random  # late: most calls never try again

    if failure.trouble not in _RETRYABLE or attempt > policy.retries:
        return None
    asked = failure.retry_after or 0.0
    if asked > policy.max_retry_wait:
        return None
    doubled = _FIRST_DELAY * 2.0 ** (attempt - 1)
    own = min(_LONGEST_DELAY, doubled) * random.uniform(0.5, 1.5)
    return max(asked, own)
