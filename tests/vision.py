"""Small data of the right shape for torchvision's datasets, and the classes made to expect it.

It owns names, folders and hashes; the bytes are made here, since the real ones are not to be had in
a test. `Wing.expect` puts the hashes into the classes; it needs torchvision, and the file that it
reads nothing else, so that another process can do the same.

    wing = build(folder)                       # wing.files is what a server has to serve
    wing.configure(server.url, configuration)  # a `[rewrite]` of every origin
    wing.expect()
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from tests.archives import File, Folder, packed

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ORIGINS = {_CIFAR: "cifar/", _MNIST: "mnist/", _FLOWERS: "flowers/", _PETS: "pets/"}

VAL, TRAIN, DEVKIT = (
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
)
WNIDS = ("n01440764", "n01443537")
COUNT = 20


@dataclass(frozen=True)
class Wing:
    """What was made: the served files, those that people download, and the md5 of all by name."""

    folder: Path

    @property
    def files(self) -> Path:
        """The root of a server."""
        return self.folder / "served"

    @property
    def manual(self) -> Path:
        """The archives of ImageNet."""
        return self.folder / "manual"

    @property
    def md5(self) -> dict[str, str]:
        """The md5 of each file and of each batch of CIFAR10."""
        found: dict[str, str] = json.loads((self.folder / "md5.json").read_text())
        return found

    def configure(self, server: str, configuration: Path) -> None:
        """Send everybody to a server instead of the origins."""
        rows = (f'"{origin}" = "{server}/{place}"\n' for origin, place in ORIGINS.items())
        configuration.write_text("[rewrite]\n" + "".join(rows))

    def expect(self) -> None:
        """Have the classes of torchvision expect these bytes, in this process."""
        for owner, name, value in self.expected():
            setattr(owner, name, value)

    def expected(self) -> Iterable[tuple[Any, str, Any]]:
        """What to set: class or module, attribute, value."""
        from torchvision.datasets import CIFAR10, MNIST, Flowers102, OxfordIIITPet, imagenet

        md5 = self.md5
        yield MNIST, "resources", [(name, md5[name]) for name, _ in MNIST.resources]
        yield CIFAR10, "tgz_md5", md5[CIFAR10.filename]
        yield CIFAR10, "train_list", [[name, md5[name]] for name, _ in CIFAR10.train_list]
        yield CIFAR10, "test_list", [[name, md5[name]] for name, _ in CIFAR10.test_list]
        yield CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]}
        named = {key: (name, md5[name]) for key, (name, _) in Flowers102._file_dict.items()}
        yield Flowers102, "_file_dict", named
        pets = tuple((url, md5[url.rpartition("/")[2]]) for url, _ in OxfordIIITPet._RESOURCES)
        yield OxfordIIITPet, "_RESOURCES", pets
        archives = imagenet.ARCHIVE_META.items()
        yield imagenet, "ARCHIVE_META", {key: (name, md5[name]) for key, (name, _) in archives}


def build(folder: Path) -> Wing:
    """Make everything."""
    wing = Wing(folder)
    batches = _batches()
    _write(wing.files, {**_mnist(), **_cifar(batches), **_flowers(), **_pets()})
    _write(wing.manual, _imagenet())
    named = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    sums = {name: hashlib.md5(data).hexdigest() for name, data in (batches | named).items()}
    (folder / "md5.json").write_text(json.dumps(sums))
    return wing


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _noise(*shape: int) -> Any:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def _image(number: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def _mat(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, arrays)
    return buffer.getvalue()


def _mnist() -> dict[str, bytes]:
    """Files of idx: a magic, the sizes, the bytes (yann.lecun.com/exdb/mnist)."""
    found = {}
    for split, count in (("train", COUNT), ("t10k", COUNT // 2)):
        images = struct.pack(">4I", 0x803, count, 28, 28) + _noise(count, 28, 28).tobytes()
        labels = struct.pack(">2I", 0x801, count) + bytes(range(count))
        found[f"mnist/{split}-images-idx3-ubyte.gz"] = gzip.compress(images, mtime=0)
        found[f"mnist/{split}-labels-idx1-ubyte.gz"] = gzip.compress(labels, mtime=0)
    return found


def _batches() -> dict[str, bytes]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    found = {
        name: pickle.dumps({"data": _noise(COUNT, 3072) ^ number, "labels": [0] * COUNT})
        for number, name in enumerate(names)
    }
    return found | {"batches.meta": pickle.dumps({"label_names": ["airplane"]})}


def _cifar(batches: Mapping[str, bytes]) -> dict[str, bytes]:
    files = (File(f"cifar-10-batches-py/{name}", data) for name, data in batches.items())
    return {"cifar/cifar-10-python.tar.gz": packed("tar.gz", *files)}


def _flowers() -> dict[str, bytes]:
    numbers = range(1, COUNT + 1)
    images = (File(f"jpg/image_{number:05}.jpg", _image(number)) for number in numbers)
    ids = np.array(numbers)
    return {
        "flowers/102flowers.tgz": packed("tar.gz", Folder("jpg"), *images),
        "flowers/imagelabels.mat": _mat(labels=ids),
        "flowers/setid.mat": _mat(trnid=ids[:10], valid=ids[10:15], tstid=ids[15:]),
    }


def _pets() -> dict[str, bytes]:
    names = [f"Abyssinian_{number}" for number in range(COUNT)]
    images = (File(f"images/{name}.jpg", _image(at)) for at, name in enumerate(names))
    maps = (File(f"annotations/trimaps/{name}.png", _image(1, "PNG")) for name in names)
    lines = "".join(f"{name} 1 1 1\n" for name in names).encode()
    lists = (File(f"annotations/{split}.txt", lines) for split in ("trainval", "test"))
    return {
        "pets/images.tar.gz": packed("tar.gz", *images),
        "pets/annotations.tar.gz": packed("tar.gz", *maps, *lists),
    }


def _imagenet() -> dict[str, bytes]:
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    synsets = np.zeros(len(WNIDS), dtype=[*kinds, ("num_children", "O")])
    for number, wnid in enumerate(WNIDS):
        synsets[number] = (number + 1, wnid, f"fish {number}, swimmer", "a fish", 0)
    truth = "".join(f"{number % 2 + 1}\n" for number in range(COUNT)).encode()
    data = "ILSVRC2012_devkit_t12/data"
    inner = (
        File(f"{wnid}.tar", packed("tar", File(f"{wnid}_1.JPEG", _image(at))))
        for at, wnid in enumerate(WNIDS)
    )
    names = (f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, COUNT + 1))
    return {
        VAL: packed("tar", *(File(name, _image(at)) for at, name in enumerate(names))),
        TRAIN: packed("tar", *inner),
        DEVKIT: packed(
            "tar.gz",
            File(f"{data}/meta.mat", _mat(synsets=synsets)),
            File(f"{data}/ILSVRC2012_validation_ground_truth.txt", truth),
        ),
    }
