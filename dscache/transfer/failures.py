"""The one error for a file that no source gave: what it says, and which kind it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dscache.errors import (
    DscacheError,
    IntegrityError,
    ManualDownload,
    TransferError,
    UnsafeError,
)
from dscache.model import Artifact
from dscache.quantities import show_duration, show_size
from dscache.sources.exchange import Trouble
from dscache.transfer.download import Tried

_NEEDS_PERSON = frozenset({401, 403, 404, 410})
_TRANSIENT = frozenset({Trouble.CONNECTION, Trouble.BUSY, Trouble.SHORT, Trouble.RANGE})


def failure_of(
    artifact: Artifact, tried: Sequence[Tried], kept: int, samples: Iterable[str]
) -> DscacheError:
    """The one error for a file that no source gave, by the kinds of what went wrong.

    Args:
        kept: bytes that are left for a later attempt.
        samples: where wrong bytes were put, empty for none.
    """
    places = [each for each in samples if each]
    troubles = {each.failure.trouble for each in tried}
    statuses = {each.failure.status for each in tried}
    if artifact.manual and (statuses & _NEEDS_PERSON or not tried):
        return manual(artifact)
    lines = "".join(f"\n  {each.url}: {each.failure.reason}" for each in tried)
    facts: dict[str, Any] = {
        "path": artifact.path,
        "sources": [{"url": each.url, "reason": each.failure.reason} for each in tried],
        "quarantine": places,
        "bytes_kept": kept,
    }
    if len(statuses) == 1 and any(statuses):
        facts["status"] = statuses.pop()  # every server has answered that
    if troubles == {Trouble.UNSAFE}:
        return UnsafeError(f"{artifact.path} could not be fetched safely:{lines}", **facts)
    if Trouble.WRONG in troubles and not troubles & _TRANSIENT:
        known = [str(artifact.identity)] if artifact.identity else []
        known += [f"{artifact.size} bytes"] if artifact.size is not None else []
        expected = f" (expected {', '.join(known)})" if known else ""
        return IntegrityError(
            f"{artifact.path}: wrong bytes from every source{expected}:{lines}",
            hint=f"what came is kept in {', '.join(places)}" if places else "",
            **facts,
        )
    hints = [f"{show_size(kept)} are kept and will be used"] if kept else []
    if waits := [each.failure.retry_after for each in tried if each.failure.retry_after]:
        hints.append(f"the server asks to wait {show_duration(min(waits))}")
    if kept or troubles & _TRANSIENT:
        hints.append("run the same command again to go on")
    return TransferError(
        f"{artifact.path} could not be downloaded:{lines}", hint="; ".join(hints), **facts
    )


def manual(artifact: Artifact) -> ManualDownload:
    """The error for an artifact that a person must download."""
    return ManualDownload(
        f"{artifact.path} must be downloaded by hand:\n{artifact.manual.strip()}",
        hint="afterwards run `dscache import NAME FILE`",
        path=artifact.path,
        instructions=artifact.manual,
    )
