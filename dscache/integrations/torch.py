"""PyTorch: the files of a dataset as a map-style dataset, and its tar shards as an iterable one.

Every process of a job may make these: one on each machine downloads, the others wait for it, by the
locks of the cache alone. A dataset that is sent to another process is sent as what was asked for,
and asked for again there.
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from glob import escape
from pathlib import Path
from typing import Any

from dscache import Cache
from dscache.errors import IntegrityError, NotFound, UsageError
from dscache.events import Emit
from dscache.integrations.ahead import fetched_ahead
from dscache.integrations.samples import samples

try:
    import torch
    from torch import distributed
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as error:
    raise ImportError(
        "dscache.integrations.torch needs PyTorch: `pip install 'dscache[torch]'`"
    ) from error

__all__ = ["DatasetFolder", "Files", "Shards", "read_bytes"]

Loader = Callable[[str], Any]
Transform = Callable[[Any], Any]


def read_bytes(path: str) -> bytes:
    """The loader of those who name none: what is in the file."""
    return Path(path).read_bytes()


class Files(Dataset[Any]):
    """The files of a dataset, in the order of their paths; an item is what the loader gives.

    Fetches what is missing when it is made, and keeps it from every prune as long as the process
    lives.

    Args:
        name: `[registry/]name[@version]`.
        files: patterns (fnmatch on the whole path); only matching files are fetched.
        loader: called with the path of a file.
        transform: called with what the loader gives.
        cache: default: the configured one.

    Attributes:
        root: the folder of the dataset.
        paths: the files, as they can be opened.

    Raises:
        As `dscache.fetch`.
    """

    #: What is found out of the paths, and not sent with a dataset.
    _derived: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        files: str | Iterable[str] | None = None,
        *,
        loader: Loader = read_bytes,
        transform: Transform | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.loader = loader
        self.transform = transform
        self._name = name
        self._patterns = files if files is None or isinstance(files, str) else tuple(files)
        self._cache = cache or Cache()
        self._find()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        item = self.loader(self.paths[index])
        return self.transform(item) if self.transform else item

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("paths", *self._derived)
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        sent = self.root
        self._find()
        if self.root.name != sent.name:  # it has the version, and a part of the content's hash
            raise IntegrityError(
                f"{self._name} has other content here than in the process that sent it",
                hint="a project's lock keeps a version from moving",
            )

    def _find(self) -> None:
        found = self._cache.fetch_all([self._name], files=self._patterns)[0]
        found.unwrap()
        self._name = f"{found.registry}/{found.name}@{found.version}"
        listing = self._cache.files(self._name, files=self._patterns)
        if listing.folder is None:
            raise NotFound(f"{self._name} was here a moment ago", hint="try again")
        self.root = listing.folder
        self._take([each.path for each in listing.files])

    def _take(self, paths: list[str]) -> None:
        """Note the files, which are sorted."""
        self.paths = [f"{self.root}/{path}" for path in paths]


class DatasetFolder(Files):
    """Files in one folder for each class, as `torchvision.datasets.DatasetFolder` finds them.

    An item is a pair: what the loader gives, and the number of the class. Order and numbers are
    torchvision's.

    Args:
        name, loader, transform, cache: as for `Files`.
        folder: the folder of the dataset in which those of the classes are.
        files: patterns (fnmatch on the whole path below `folder`); only matching files are fetched.
            A class without any does not count.
        target_transform: called with the number of the class.

    Attributes:
        classes: names of the classes, sorted.
        class_to_idx: number of each class.
        samples: path and number of the class of each file.
        targets: the numbers alone.

    Raises:
        As `dscache.fetch`; NotFound also where no file is in a folder of a class.
    """

    _derived = ("classes", "class_to_idx", "samples", "targets")

    def __init__(
        self,
        name: str,
        folder: str = "",
        files: str | Iterable[str] = "*",
        *,
        loader: Loader = read_bytes,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.target_transform = target_transform
        self._folder = f"{folder.strip('/')}/" if folder.strip("/") else ""
        patterns = [files] if isinstance(files, str) else files
        below = [f"{escape(self._folder)}{pattern}" for pattern in patterns]
        super().__init__(name, below, loader=loader, transform=transform, cache=cache)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        target = self.targets[index]
        item = super().__getitem__(index)
        return item, self.target_transform(target) if self.target_transform else target

    def _take(self, paths: list[str]) -> None:
        rows = sorted((self._class_of(path), *posixpath.split(path)) for path in paths)
        rows = [row for row in rows if row[0]]
        if not rows:
            raise NotFound(f"{self._name} has no folders of classes with such files")
        super()._take([f"{folder}/{file}" for _, folder, file in rows])
        self.classes = sorted({row[0] for row in rows})
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.targets = [self.class_to_idx[row[0]] for row in rows]
        self.samples = list(zip(self.paths, self.targets, strict=True))

    def _class_of(self, path: str) -> str:
        """The folder below that of the classes; empty for a file that stands in none."""
        name, slash, _ = path.removeprefix(self._folder).partition("/")
        return name if slash else ""


class Shards(IterableDataset[Any]):
    """The samples of tar shards, one after the other, while later shards are still downloaded.

    The shards are sorted by path and divided among the ranks of the job and the workers of the
    `DataLoader`. Samples are those of WebDataset: `__key__`, `__url__`, and bytes by suffix. A
    shard is verified before its first sample is given out.

    Args:
        name: `[registry/]name[@version]`.
        files: patterns (fnmatch on the whole path) that say which files are shards.
        transform: called with each sample; an item is what it returns.
        shuffle: give the shards another order in each epoch, the same in all processes.
        seed: what the orders depend on, with the epoch.
        place: rank of this process and their number; default: those of `torch.distributed`, where
            it is initialised, else there is one process.
        ahead: so many shards are brought before they are needed.
        cache: default: the configured one.

    Raises:
        UsageError: the place is none, or there are more processes than shards.
        As `dscache.fetch`, while it is iterated over.
    """

    def __init__(
        self,
        name: str,
        files: str | Iterable[str] = "*.tar",
        *,
        transform: Transform | None = None,
        shuffle: bool = False,
        seed: int = 0,
        place: tuple[int, int] | None = None,
        ahead: int = 2,
        cache: Cache | None = None,
    ) -> None:
        if ahead < 0:
            raise UsageError("`ahead` is a number of shards, 0 or more")
        self.transform = transform
        self.shuffle = shuffle
        self.seed = seed
        self.ahead = ahead
        self._place = place
        self._cache = cache or Cache()
        found = self._cache.files(name, files=files)
        self.name = f"{found.registry}/{found.name}@{found.version}"
        self.shards = tuple(each.path for each in found.files)
        # Workers that live on from epoch to epoch see it change.
        epoch: Any = torch.zeros((), dtype=torch.int64)
        self._epoch = epoch.share_memory_()
        self._divided()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the shards of an epoch; to be called in every rank before it."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Any]:
        with closing(fetched_ahead(self._fetch, self._divided(), self.ahead)) as shards:
            for shard, path in shards:
                for sample in samples(path, f"dscache://{self.name}/{shard}"):
                    yield self.transform(sample) if self.transform else sample

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is not forked knows nothing of the job.
        return vars(self) | {"_place": self._rank_and_size()}

    def _divided(self) -> list[str]:
        """The shards of this worker of this process, in the order of this epoch."""
        rank, size = self._rank_and_size()
        if not 0 <= rank < size:
            raise UsageError(f"{rank} is no rank of {size} processes")
        if size > len(self.shards):
            raise UsageError(
                f"{size} processes cannot share {len(self.shards)} shards",
                hint="make smaller shards, or divide the samples after they are read",
            )
        shards = list(self.shards)
        if self.shuffle:
            random.Random(self.seed + int(self._epoch)).shuffle(shards)
        worker = get_worker_info()
        part = shards[rank::size]
        return part[worker.id :: worker.num_workers] if worker else part

    def _rank_and_size(self) -> tuple[int, int]:
        if self._place:
            return self._place
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def _fetch(self, shard: str, emit: Emit) -> Path:
        found = self._cache.fetch(self.name, files=escape(shard), progress=emit)
        return found / shard if found.is_dir() else found
