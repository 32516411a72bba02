"""Exporting: a dataset as a Pooch registry file."""

from __future__ import annotations

from collections.abc import Iterable

from dscache import fetching, retrieving
from dscache.call import Call
from dscache.model import Artifact, Dataset, Reference
from dscache.registry import manifest, pooch
from dscache.wishes import Wish


def pooch_registry(call: Call, reference: Reference) -> str:
    """The lines of a Pooch registry file for a dataset; its manifest is fetched if it has one.

    Raises:
        As `Cache.fetch`.
    """
    dataset = call.lookup.find(reference)
    return pooch.export(dataset, _listed(call, dataset))


def _listed(call: Call, dataset: Dataset) -> Iterable[Artifact] | None:
    if dataset.manifest is None:
        return None
    wish = Wish(retrieving.as_dataset(dataset.manifest.file))
    path = fetching.fetch(call, [wish])[wish].unwrap()
    return manifest.read(str(path), dataset.manifest, local=dataset.base.startswith("file:"))
