"""Keys that sign: made new, or loaded from where they are kept."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.metadata import Root

from dscache.errors import StorageError, UsageError
from dscache.signing.keys import Keys
from dscache.signing.roles import ROOT

_NAMES = {ROOT: ROOT}
_ONLINE = "online"


def new(keys: Keys, role: str) -> CryptoSigner:
    """Make a key (Ed25519) for a role and keep it."""
    signer = CryptoSigner.generate_ed25519()
    keys.save(_name(role, signer.public_key.keyid), signer.private_bytes)
    return signer


def of_role(keys: Keys, root: Root, role: str) -> Signer:
    """The key that signs for a role, by the word of a root.

    Raises:
        UsageError: it is not among the keys.
        StorageError: it cannot be read, or is another one.
    """
    wanted = root.roles[role].keyids
    for keyid in wanted:
        if pem := keys.load(_name(role, keyid)):
            return _signer(pem, root.keys[keyid], keys.where)
    names = " or ".join(_name(role, keyid) for keyid in wanted)
    raise UsageError(
        f"the private key {names} is needed, and not in {keys.where}",
        hint="--keys and DSCACHE_KEYS say where the keys are",
    )


def _signer(pem: bytes, public: Key, where: str) -> Signer:
    try:
        found = CryptoSigner(load_pem_private_key(pem, None))
    except (TypeError, ValueError) as error:  # a passphrase, or no key at all
        raise StorageError(
            f"a private key in {where} cannot be used: {error}",
            hint="keys are PEM files (PKCS 8) without a passphrase",
        ) from error
    if found.public_key.keyval != public.keyval:
        raise StorageError(f"a private key in {where} is not the one that its name says")
    found.public_key.keyid = public.keyid
    return found


def _name(role: str, keyid: str) -> str:
    return f"{_NAMES.get(role, _ONLINE)}-{keyid[:16]}"
