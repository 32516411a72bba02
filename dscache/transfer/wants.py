"""What a call wants, and the name under which it is claimed and kept. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dscache.digest import Digest
from dscache.model import Artifact
from dscache.store import SMALL, key_of


@dataclass(frozen=True, slots=True)
class Want:
    """One artifact of one of the fetches of a call; `fetch` is the caller's number for it."""

    fetch: int
    artifact: Artifact


def is_small(artifact: Artifact) -> bool:
    """True for files that need neither lock nor journal."""
    return artifact.size is not None and artifact.size <= SMALL


def claim_key(artifact: Artifact) -> str:
    """The name of its lock and of its part: its identity, or its sources where it has none."""
    identity = artifact.identity
    if identity:
        return key_of(identity)
    sources = "\n".join(artifact.urls).encode()
    return key_of(Digest("sha256", hashlib.sha256(sources).hexdigest()))
