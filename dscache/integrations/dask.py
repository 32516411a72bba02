"""Dask: datasets come once to every host of a cluster that is running, before its tasks need them.

    from distributed import Client
    from dscache.integrations.dask import warm

    for found in warm(Client("tcp://scheduler:8786"), ["imagenet-val"]):
        print(found.host, found.status, found.bytes_downloaded, found.seconds)

One worker of each host is asked; it goes by its own configuration, and so by the cache of its host.
Nothing is sent from here but names and options, and nothing comes back but plain values, since the
dscache of a worker may be another one than ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from dscache import Cache, __version__, errors
from dscache.errors import DscacheError, TransferError, UsageError

try:
    from distributed import Client
    from distributed.comm import CommClosedError, get_address_host
except ImportError as error:
    raise ImportError(
        "dscache.integrations.dask needs distributed: `pip install 'dscache[dask]'`",
        name="distributed",
    ) from error

#: What an answer has of a fetch that went well, by the names of both structs.
_FACTS = ("version", "registry", "status", "bytes_downloaded", "bytes_resumed", "size", "seconds")


class Warmed(msgspec.Struct, frozen=True):
    """What came of one dataset on one host.

    Attributes:
        host: as Dask knows it, mostly its IP address.
        worker: the address of the worker that was asked.
        path: where the dataset stands on that host; None where `error` says why it does not.
        status: "cached" (it stood there), "linked" (the bytes were there under another name) or
            "downloaded".
        bytes_downloaded: bytes that the host has downloaded in this call.
        bytes_resumed: bytes that earlier attempts had left there.
        size: bytes of what was asked for.
    """

    host: str
    worker: str
    name: str
    version: str = ""
    registry: str = ""
    path: str | None = None
    status: str = ""
    bytes_downloaded: int = 0
    bytes_resumed: int = 0
    size: int = 0
    seconds: float = 0.0
    error: DscacheError | None = None


def warm(
    client: Client,
    names: Iterable[str],
    *,
    files: str | Iterable[str] | None = None,
    refresh: bool = False,
    cache_dir: str | None = None,
) -> list[Warmed]:
    """Bring datasets to every host of a Dask cluster, once per host.

    A host that fails stops no other one: its error stands in its results. Hosts that share a cache
    folder download once, where its locks work between them. What the workers have begun they
    complete, even if this call is interrupted; a worker that has brought a dataset holds it, so
    that no prune takes it, until the worker ends.

    Args:
        client: connected to the cluster, and not asynchronous.
        names: `[registry/]name[@version]`; each host looks them up with its own configuration.
        files: patterns (fnmatch on the whole path); only matching files are fetched.
        refresh: ask remote registries now instead of using what a host has read before.
        cache_dir: the cache folder on the hosts; default: as each of them is configured.

    Returns:
        A result for each host and name.

    Raises:
        UsageError: the client is asynchronous.
        TransferError: the cluster has no workers, or its scheduler has gone away.
    """
    if client.asynchronous:
        raise UsageError("warm needs a client that is not asynchronous")
    wanted = list(dict.fromkeys(names))
    try:
        asked = _one_of_each_host(client)
        answers = client.run(
            bring_here,
            wanted,
            files=[files] if isinstance(files, str) else list(files or ()),
            refresh=refresh,
            cache_dir=cache_dir,
            workers=list(asked),
            on_error="return",
        )
    except CommClosedError as error:
        raise TransferError(f"the scheduler has gone away: {error}", hint=_AGAIN) from error
    return [
        found
        for worker, host in asked.items()
        for found in _results(host, worker, wanted, answers[worker])
    ]


@contextmanager
def connected(address: str, *, timeout: float) -> Iterator[Client]:
    """A client of the scheduler at an address such as tcp://host:8786.

    Raises:
        TransferError: it does not answer within so many seconds.
        UsageError: the address is malformed.
    """
    try:
        get_address_host(address)  # a client that finds that out itself leaves a loop behind
    except ValueError as error:
        hint = "one is such as tcp://host:8786"
        message = f"{address} is not the address of a Dask scheduler: {error}"
        raise UsageError(message, hint=hint) from error
    try:
        client = Client(address, timeout=timeout, set_as_default=False)  # type: ignore[no-untyped-call]
    except OSError as error:
        message = f"no Dask scheduler answers at {address}: {error}"
        raise TransferError(message, hint="is it running, and is that its address?") from error
    with client:
        yield client


async def bring_here(
    names: Sequence[str], *, files: Sequence[str], refresh: bool, cache_dir: str | None
) -> list[dict[str, Any]]:
    """What a worker is asked to do: fetch. Meanwhile its event loop, and so its heartbeat, goes on.

    Returns:
        For each name what came of it, in plain values.
    """

    def bring() -> list[dict[str, Any]]:
        try:
            found = Cache(cache_dir).fetch_all(names, files=files or None, refresh=refresh)
        except DscacheError as error:  # a configuration of that host
            return [{"name": name, "error": _told(error)} for name in names]
        return [
            {"name": each.name, "error": _told(each.error)}
            if each.error
            else {"name": each.name, "path": str(each.path)}
            | {fact: getattr(each, fact) for fact in _FACTS}
            for each in found
        ]

    return await asyncio.to_thread(bring)


_LACKING = ("ImportError(", "ModuleNotFoundError(", "AttributeError(")
_AGAIN = "what has arrived is kept, and the same call goes on from there"


def _one_of_each_host(client: Client) -> dict[str, str]:
    """A worker of each host, with the host."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise TransferError("the cluster has no workers", hint="start some, or wait for them")
    first: dict[str, str] = {}
    for address in sorted(workers):
        first.setdefault(workers[address]["host"], address)
    return {address: host for host, address in first.items()}


def _results(host: str, worker: str, names: Sequence[str], answer: Any) -> Iterator[Warmed]:
    """What a worker has answered, or why it has not, for each name."""
    if isinstance(answer, BaseException):
        error = _why(answer)
        yield from (Warmed(host, worker, name, error=error) for name in names)
        return
    for each in answer:
        if "error" in each:
            yield Warmed(host, worker, each["name"], error=_heard(**each["error"]))
        else:
            yield msgspec.convert({"host": host, "worker": worker, **each}, Warmed)


def _why(trouble: BaseException) -> DscacheError:
    """Why a worker has not answered."""
    # What it could not even unpickle, our function for instance, arrives as a text.
    said = str(trouble) if type(trouble) is Exception else repr(trouble)
    if said.startswith(_LACKING):
        hint = f"install the dscache there that is used here, {__version__}"
        return UsageError(f"the worker's dscache is missing or too old: {said}", hint=hint)
    if isinstance(trouble, OSError):
        return TransferError(f"the worker was lost under way: {said}", hint=_AGAIN)
    return DscacheError(f"the worker has failed: {said}")


def _told(error: DscacheError) -> dict[str, Any]:
    """An error in plain values."""
    kind = type(error).__name__
    return {"kind": kind, "message": error.message, "hint": error.hint, "facts": error.facts}


def _heard(*, kind: str, message: str, hint: str, facts: dict[str, Any]) -> DscacheError:
    """The error that a worker has told; one of the root where this dscache does not know it."""
    found = vars(errors).get(kind, DscacheError)
    known = found if isinstance(found, type) and issubclass(found, DscacheError) else DscacheError
    return known(message, hint=hint, **facts)
