"""Where everything lies below the cache root. All path building of the store is in this module.

    CACHEDIR.TAG                    tells backup programs to leave the cache out
    VERSION                         one integer: the format of everything below
    blobs/sha256/ab/cdef…           verified bytes, read-only, never changed
    proofs/ab/cdef….json            for larger blobs: what was measured when, and in which boot
    aliases/<algorithm>/ab/cdef…    another hash of a blob: its sha256 in hex and a newline
    parts/<key>.<token>.part        bytes in progress, one file per attempt
    parts/<key>.<token>.json        the journal of that attempt, written before its part
    parts/<key>.<token>.tree/       a tree in the making
    trees/ab/cdef….<recipe>-<n>/    an unpacked blob: its files in files/, the list of them in
                                    members, and tree.json, which says whether it can be believed
    datasets/<registry>/<name>/<version>+<8 hex>/…      what fetch returns
    records/<registry>/<name>@<version>+<8 hex>.json    a finished fetch; its time is the last use
    registries/<key>/…              entries of remote registries, as last read
    registries/<key>-<root>/…       those of a signed one, verified, for each pinned root
    registries/<key>-<root>-metadata/…      what vouches for them
    locks/<key>.lock                never removed; <key>.holder beside it says who has it
    locks/<key>.taken/<token>       a marker: the lock where those of the system do not exclude
    locks/hosts/<host>.json         whether they do, as found out on that host; .lock beside it
    parts/probe.<token>/            files of `doctor`, removed at its end
    parts/meeting.<token>/          two hosts that find out whether locks exclude between them
    quarantine/…                    wrong bytes, kept for a look
    verify.json                     how far a verification has come that was interrupted
    leases/<owner>/_owner.json      a process that is using something
    leases/<owner>/<registry>/<name>@<version>+<8 hex>  a dataset that it uses
    leases/<owner>/_digests         what a fetch is bringing, a line each, before it looks for it
    roots/pins/<registry>/<name>@<version>+<8 hex>      a dataset that is to stay
    roots/<kind>/<key>.json         a project or a folder of a user that needs datasets
    removals/<token>.json           what a prune is about to remove, while it does
    counters/<host>                 hits and bytes, a line for each time something was counted

Human names appear only under datasets/ and records/, after the grammar of `model` let them pass.
Everything else is short lower-case hex, safe on every filesystem.
"""

from __future__ import annotations

import hashlib

import msgspec

from dscache.digest import Digest

#: The number in VERSION. A change that older programs would misread raises it.
FORMAT = 1

#: How recipes unpack, as part of a tree's name. A change that makes other trees raises it.
UNPACKING = 1

CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder is a cache of datasets, made by dscache. See https://bford.info/cachedir/\n"
)


class Layout(msgspec.Struct, frozen=True, gc=False):
    """The paths of one cache root. Nothing here touches the disk."""

    root: str

    @property
    def version(self) -> str:
        return f"{self.root}/VERSION"

    @property
    def tag(self) -> str:
        return f"{self.root}/CACHEDIR.TAG"

    @property
    def blobs(self) -> str:
        return f"{self.root}/blobs/sha256"

    @property
    def parts(self) -> str:
        return f"{self.root}/parts"

    @property
    def records(self) -> str:
        return f"{self.root}/records"

    @property
    def proofs(self) -> str:
        return f"{self.root}/proofs"

    @property
    def aliases(self) -> str:
        return f"{self.root}/aliases"

    @property
    def views(self) -> str:
        return f"{self.root}/datasets"

    @property
    def locks(self) -> str:
        return f"{self.root}/locks"

    @property
    def quarantine(self) -> str:
        return f"{self.root}/quarantine"

    @property
    def leases(self) -> str:
        return f"{self.root}/leases"

    @property
    def roots(self) -> str:
        return f"{self.root}/roots"

    @property
    def removals(self) -> str:
        return f"{self.root}/removals"

    @property
    def counters(self) -> str:
        return f"{self.root}/counters"

    @property
    def verification(self) -> str:
        return f"{self.root}/verify.json"

    def aside(self, token: str, name: str) -> str:
        return f"{self.root}/quarantine/{token}-{name}"

    def blob(self, sha256: str) -> str:
        return f"{self.root}/blobs/sha256/{sha256[:2]}/{sha256[2:]}"

    def proof(self, sha256: str) -> str:
        return f"{self.root}/proofs/{sha256[:2]}/{sha256[2:]}.json"

    def alias(self, digest: Digest) -> str:
        return f"{self.root}/aliases/{digest.algorithm}/{digest.hex[:2]}/{digest.hex[2:]}"

    def part(self, key: str, token: str) -> str:
        return f"{self.root}/parts/{key}.{token}.part"

    def journal(self, key: str, token: str) -> str:
        return f"{self.root}/parts/{key}.{token}.json"

    def draft(self, key: str, token: str) -> str:
        return f"{self.root}/parts/{key}.{token}.tree"

    @property
    def trees(self) -> str:
        return f"{self.root}/trees"

    def tree(self, sha256: str, recipe: str) -> str:
        return f"{self.root}/trees/{sha256[:2]}/{sha256[2:]}.{recipe}-{UNPACKING}"

    def lock(self, key: str) -> str:
        return f"{self.root}/locks/{key}.lock"

    def holder(self, key: str) -> str:
        return f"{self.root}/locks/{key}.holder"

    def marker(self, key: str) -> str:
        return f"{self.root}/locks/{key}.taken"

    def host(self, key: str) -> str:
        return f"{self.root}/locks/hosts/{key}.json"

    def host_lock(self, key: str) -> str:
        return f"{self.root}/locks/hosts/{key}.lock"

    def probe(self, token: str) -> str:
        return f"{self.root}/parts/probe.{token}"

    def meeting(self, token: str) -> str:
        return f"{self.root}/parts/meeting.{token}"

    def record(self, mark: str) -> str:
        return f"{self.root}/records/{mark}.json"

    def view(self, mark: str) -> str:
        registry, _, rest = mark.partition("/")
        name, _, version = rest.partition("@")
        return f"{self.root}/datasets/{registry}/{name}/{version}"

    @property
    def registries(self) -> str:
        return f"{self.root}/registries"

    def registry(self, url: str) -> str:
        return f"{self.root}/registries/{hashlib.sha256(url.encode()).hexdigest()[:16]}"

    def signed_registry(self, url: str, root: str) -> str:
        """`root` is the sha256 of the pinned root."""
        return f"{self.registry(url)}-{root[:16]}"

    def signed_metadata(self, url: str, root: str) -> str:
        return f"{self.signed_registry(url, root)}-metadata"


def key_of(digest: Digest) -> str:
    """The name of a digest in parts/ and locks/."""
    return f"{digest.algorithm}-{digest.hex}"
