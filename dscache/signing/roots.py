"""The roots of an author's registry: the first one, and later ones with other keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import JSONSerializer

from dscache import disk, filesystem
from dscache.errors import InvalidFile, StorageError, UsageError
from dscache.signing import signers, verdicts
from dscache.signing.keys import Keys
from dscache.signing.roles import ONLINE, ROOT, expiry, metadata_file, root_versions


def start(folder: str, keys: Keys) -> bytes:
    """Make the keys and the first root of a registry; the root.

    Raises:
        StorageError: it is signed already, or keys or root cannot be written.
    """
    if root_versions(folder):
        raise StorageError(
            f"{folder} is signed already", hint="`dscache registry rotate` changes its keys"
        )
    root = Root(version=1, expires=expiry(ROOT), consistent_snapshot=True)
    signer = signers.new(keys, ROOT)
    root.add_key(signer.public_key, ROOT)
    _set_online(root, signers.new(keys, ONLINE[0]))
    return _write(folder, root, [signer])


def rotate(folder: str, keys: Keys, *, root_key: bool) -> bytes:
    """Make another key, and a root that says so; the root.

    Args:
        root_key: of the root itself; else the key that signs at each publishing.

    Raises:
        UsageError: the registry is not signed, or the root's key is not among the keys.
        StorageError: keys or root cannot be read or written.
    """
    root = newest(folder).signed
    signing = [signers.of_role(keys, root, ROOT)]
    root.version += 1
    root.expires = expiry(ROOT)
    if root_key:
        signing.append(signers.new(keys, ROOT))
        for keyid in list(root.roles[ROOT].keyids):
            root.revoke_key(keyid, ROOT)
        root.add_key(signing[-1].public_key, ROOT)
    else:
        _set_online(root, signers.new(keys, ONLINE[0]))
    return _write(folder, root, signing)


def newest(folder: str) -> Metadata[Root]:
    """The newest root of an author's registry; raises as `all_of`."""
    return decode(all_of(folder)[-1])


def all_of(folder: str) -> list[bytes]:
    """The roots of an author's registry from version 1 on.

    Raises:
        UsageError: the registry is not signed.
        StorageError: one cannot be read, or is missing.
    """
    versions = root_versions(folder)
    if not versions:
        raise UsageError(
            f"{folder} is not signed", hint="`dscache registry init DIR --sign` makes its keys"
        )
    with disk.storage_errors("a root of the registry cannot be read"):
        return [
            Path(folder, metadata_file(ROOT, each)).read_bytes()
            for each in range(1, versions[-1] + 1)
        ]


def decode(data: bytes) -> Metadata[Root]:
    """A root that its own keys have signed.

    Raises:
        InvalidFile: it is none.
    """
    try:
        found = Metadata[Root].from_bytes(data)
        if not isinstance(found.signed, Root):
            raise InvalidFile("this is signed metadata, but no root")
        found.signed.verify_delegate(ROOT, found.signed_bytes, found.signatures)
    except verdicts.REFUSALS as error:
        raise InvalidFile(
            f"not a root of signed metadata: {error}",
            hint="it is the file metadata/<n>.root.json of its registry",
        ) from error
    return found


def _set_online(root: Root, signer: Signer) -> None:
    for role in ONLINE:
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(signer.public_key, role)


def _write(folder: str, root: Root, signing: Sequence[Signer]) -> bytes:
    made = Metadata(root)
    for signer in signing:
        made.sign(signer, append=True)
    data = made.to_bytes(JSONSerializer())
    decode(data)
    path = f"{folder}/{metadata_file(ROOT, root.version)}"
    with disk.storage_errors("a root cannot be written"):
        filesystem.publish_bytes(data, path, durable=True)
    return data
