"""Checks of the registries in use: can each be read, by which way, and what time is it there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

from dscache.doctor.checks import careful, failure, fine, warning
from dscache.doctor.locking import CLOCKS
from dscache.errors import InvalidFile, TransferError, UnsafeError, UsageError
from dscache.events import Emit, to_log
from dscache.quantities import show_duration
from dscache.registry.entries import decode_header
from dscache.registry.order import bundled, header
from dscache.registry.places import HEADER, Folder
from dscache.registry.tables import MAX_ENTRY
from dscache.results import Check
from dscache.settings import Settings
from dscache.settings.proxies import proxy_for
from dscache.signing import pins
from dscache.signing.reading import Means, open_signed
from dscache.sources.answers import time_of
from dscache.sources.dispatch import Sources, rewritten
from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.sources.file import path_of
from dscache.sources.options import default_ca_bundle
from dscache.sources.retry import policy_of
from dscache.sources.small import Answer, read_small
from dscache.store import Layout, Store
from dscache.urls import redacted

_LOOK = 0.25


def checks(settings: Settings, emit: Emit) -> Iterator[Check]:
    """Every registry in the order of look-up, each on its own."""
    found: dict[str, str] = {}
    remote = False
    with closing(Sources(settings, Layout(settings.cache_dir).parts, emit)) as sources:
        for given, address in _users(settings):
            remote |= "://" in address and not address.startswith("file:")
            name = f"registry:{given or redacted(address)}"
            ask = partial(_registry, settings, sources, (name, given, address), found)
            yield from careful(name, ask)
    if remote:
        yield _authorities(settings)
    for registry in bundled():
        if registry.name not in found:
            yield fine(f"registry:{registry.name}", "comes with dscache")


def _users(settings: Settings) -> list[tuple[str, str]]:
    """The user's registries: name, empty where they name themselves, and address."""
    return [
        *settings.project_registries.items(),
        *(("", address) for address in settings.extra_registries),
        *settings.registries.items(),
    ]


def _registry(
    settings: Settings, sources: Sources, which: tuple[str, str, str], found: dict[str, str]
) -> Iterator[Check]:
    label, given, address = which
    own_name, said = "", []
    if "://" not in address or address.startswith("file:"):
        place = Folder(path_of(address) if "://" in address else address)
        own_name = header(place).name
        said.append(fine(label, f"{given or own_name} can be read: {place.url}"))
    elif not address.startswith(("http://", "https://")):
        raise UsageError(f"{redacted(address)} cannot be a registry")
    elif settings.offline:
        source = settings.sources.get("offline", "argument")
        what = f"not asked: offline mode ({source}); what it said earlier is used"
        said.append(fine(label, what))
    else:
        own_name, said = _server(settings, sources, label, address)
    said += _signature(settings, sources, label, address)
    name = given or own_name
    if name and found.setdefault(name, address) != address:
        raise UsageError(
            f"two registries are named {name!r}: {redacted(found[name])} and {redacted(address)}",
            hint=f"`dscache registry remove {name}`, then add one under another name",
        )
    yield from said


def _signature(settings: Settings, sources: Sources, label: str, address: str) -> list[Check]:
    """Whether a signed registry is what its pinned root vouches for; raises what is wrong."""
    root = pins.pinned(settings, address)
    if root is None:
        return []
    if settings.offline:
        return [fine(f"{label}:signed", "not verified: offline mode")]

    def read(url: str, limit: int) -> Answer:
        return read_small(sources, url, limit=limit, policy=policy_of(settings))

    now = settings.override(registry_max_age=0)
    means = Means(read, Store(settings.cache_dir), now, to_log)
    header(open_signed(address, root, means))
    return [fine(f"{label}:signed", f"the root {pins.fingerprint(root)} vouches for it")]


def _server(
    settings: Settings, sources: Sources, label: str, address: str
) -> tuple[str, list[Check]]:
    """The name of a registry by its server's word, and what there is to say of the two."""
    url = f"{address.rstrip('/')}/{HEADER}"
    way = _way(rewritten(url, settings.rewrite))
    head, data, trouble = _asked(sources, url)
    if trouble:
        return "", [_unreachable(label, url, way, trouble)]
    name = decode_header(data).name
    said = [fine(label, f"{redacted(address)} answers, {way}")]
    if head and (there := time_of(head.date)) is not None:
        said.append(_clock(f"{label}:clock", there - time.time()))
    return name, said


def _asked(sources: Sources, url: str) -> tuple[Head | None, bytes, Failure | None]:
    """Ask once, as a fetch does, without trying again."""
    exchange = sources.start(Request(url))
    data = bytearray()
    try:
        while not exchange.done and len(data) <= MAX_ENTRY:
            sources.wait(_LOOK)
            data += b"".join(exchange.take())
        data += b"".join(exchange.take())
    finally:
        exchange.cancel()
    return exchange.head, bytes(data), exchange.failure


def _way(url: str) -> str:
    proxy, variable = proxy_for(url)
    if proxy:
        return f"through the proxy {redacted(proxy)} ({variable})"
    return f"without a proxy{f' ({variable})' if variable else ''}"


def _unreachable(label: str, url: str, way: str, trouble: Failure) -> Check:
    what = f"{redacted(url)}, {way}: {trouble.reason}"
    if trouble.trouble is Trouble.CERTIFICATE:
        hint = (
            "its certificate is not trusted here: if your network has an authority of its own, set "
            "`ca_bundle` to its file; if the certificate has expired, tell who runs the server; "
            "and see whether this machine's clock is right"
        )
        return failure(label, what, hint, TransferError.code)
    if trouble.trouble is Trouble.UNSAFE:
        return failure(label, what, "tell who runs the server", UnsafeError.code)
    if trouble.status in (404, 410):
        hint = "there is no registry at that address: look for a mistake in it"
        return failure(label, what, hint, InvalidFile.code)
    if trouble.status in (401, 403):
        hint = 'give credentials for its host in [auth."host"] of the configuration, or in netrc'
        return failure(label, what, hint, TransferError.code)
    if trouble.status == 407:
        hint = "put user name and password into the proxy's URL, in the variable that names it"
        return failure(label, what, hint, TransferError.code)
    hint = (
        "look at network, name server and proxy (`https_proxy`, `no_proxy`); offline mode goes on"
    )
    return failure(label, what, hint, TransferError.code)


def _clock(label: str, ahead: float) -> Check:
    if abs(ahead) <= CLOCKS:
        return fine(label, "the server's agrees with ours")
    shown = f"{show_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} ours"
    hint = "set this machine's clock (NTP), unless it is the server's that is wrong"
    return warning(label, f"the server's is {shown}", hint)


def _authorities(settings: Settings) -> Check:
    """The file of authorities by which servers are trusted."""
    bundle = settings.ca_bundle or default_ca_bundle()
    source = settings.sources.get("ca_bundle", "default") if settings.ca_bundle else "certifi"
    if os.path.isdir(bundle) or (os.path.isfile(bundle) and os.access(bundle, os.R_OK)):
        return fine("certificates", f"authorities are those of {bundle} ({source})")
    hint = f"correct it where it is set ({source}), or leave it out to use those of certifi"
    return failure("certificates", f"{bundle} cannot be read", hint, InvalidFile.code)
