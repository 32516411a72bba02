"""What The Update Framework's refusals mean: which rule is broken, and what to do about it."""

from __future__ import annotations

from tuf.api import exceptions

from dscache.errors import IntegrityError
from dscache.urls import redacted

_ASK = "do not use it; ask its owner, by another way than its server, what has happened"
_WAIT = (
    "if it was being published just now, try again; else a server may be hiding newer content, "
    "so ask its owner"
)
_RENEW = (
    "its owner has to publish again (`dscache registry publish` renews what has expired); "
    "and see whether this machine's clock is right"
)

#: By kind of refusal, the first that fits: name of the rule, what happened, what to do.
_RULES: tuple[tuple[type[Exception], str, str, str], ...] = (
    (exceptions.ExpiredMetadataError, "freeze", "its signed metadata has expired", _RENEW),
    (exceptions.BadVersionNumberError, "rollback", "it is older than what was seen before", _WAIT),
    (exceptions.UnsignedMetadataError, "signature", "the trusted keys have not signed it", _ASK),
    (exceptions.LengthOrHashMismatchError, "tampering", "it is not what was signed", _ASK),
    (exceptions.DownloadLengthMismatchError, "tampering", "it is longer than it may be", _ASK),
    (exceptions.DownloadHTTPError, "missing", "a signed file is not there", _WAIT),
    (exceptions.RepositoryError, "malformed", "its signed metadata cannot be used", _ASK),
)

#: What may be refused.
REFUSALS = (exceptions.RepositoryError, exceptions.DownloadError)


def refusal(error: Exception, what: str) -> IntegrityError:
    """The error for one refusal of tuf's; `what` is the address or file that was refused."""
    for kind, rule, happened, hint in _RULES:
        if isinstance(error, kind):
            return broken(what, rule, f"{happened} ({_reason(error)})", hint)
    return broken(what, "malformed", f"it cannot be verified ({_reason(error)})", _ASK)


def broken(what: str, rule: str, happened: str, hint: str = _ASK) -> IntegrityError:
    """The error for a rule that a signed registry breaks."""
    return IntegrityError(
        f"{redacted(what)} is refused: {happened} [{rule}]; nothing of it was used",
        hint=hint,
        rule=rule,
    )


def expired(what: str, when: str) -> IntegrityError:
    """The error for a server that cannot be asked whether the expired is still the newest."""
    happened = f"it cannot be asked, and what it said earlier was good until {when}"
    return broken(what, "freeze", happened, "try again when it can be reached")


def missing(what: str) -> IntegrityError:
    """The error for a file that is signed, or must be, and is not there."""
    return broken(what, "missing", "a signed file is not there", _WAIT)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
