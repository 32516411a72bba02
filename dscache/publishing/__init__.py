"""Publishing a registry: from an author's folder to where readers find it, a folder or a bucket.

Plan, show, execute. Looking: `source` reads what the author has, `standing` what the destination
has. Deciding, in pure functions: `forms` says in which form an entry is published, `rules` what may
take the place of what, `listing` what the index says afterwards; `planning` puts it together.
Doing: `executing` uploads, `signed` has signed registries signed, and `contention` says how often
what others change is tried again.

There is no local state: what was published is known from the destination alone, so that whoever has
the folder can publish, and a publishing that was interrupted is finished by the next one.

*Must*: a reader never sees a name whose bytes are not there, since each thing is put only after all
that it names; what a version holds never changes.
"""

from __future__ import annotations

from dscache import signing
from dscache.call import Call
from dscache.depots import open_depot
from dscache.depots.asking import Interruptible
from dscache.publishing import executing, planning, signed, source
from dscache.registry import author
from dscache.results import Publication


def publish(
    call: Call, folder: str, url: str, *, with_blobs: bool, dry_run: bool, keys: str
) -> Publication:
    """Publish the registry in a folder; with `dry_run` only say what that would do.

    Args:
        with_blobs: also put there what the entries have at URLs; it is fetched if it is not here.
        keys: where the private keys of a signed registry are, if not as configured.

    Raises:
        As `Keeping.publish`.
    """
    depot = Interruptible(open_depot(url))
    own = source.read(call, folder, with_blobs=with_blobs)
    signer = None
    if signing.is_signed(own.folder):
        place = signing.keys_of(call.settings, author.name_of(own.folder), keys)
        signer = signed.Signer(own, place, depot)
        signer.try_out()
    else:
        signed.refuse_unsigned(depot, own.folder)
    plan = planning.plan(own, depot, signer.listing() if signer else None)
    return plan.summary if dry_run else executing.execute(call, plan, depot, signer)
