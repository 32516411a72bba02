"""CIFAR10 as torchvision has it, in size and shape: made, and downloaded in a process of its own.

    … make ARCHIVE          writes the archive, and beside it the hashes that torchvision compares
    … plain|dscache URL HASHES FOLDER    prints the seconds of `CIFAR10(FOLDER, download=True)`

Pixels are noise of as many values as let gzip make of it what it makes of the real ones, 0.92.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
import tarfile
import time
from pathlib import Path

_IMAGES, _BYTES, _VALUES = 10_000, 3072, 170
_FOLDER = "cifar-10-batches-py"


def make(archive: str) -> None:
    """Write the archive and its hashes."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    md5 = {}
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for number, name in enumerate((*names, "batches.meta")):
            data = pickle.dumps(
                _batch(number) if name in names else {"label_names": [str(n) for n in range(10)]}
            )
            md5[name] = hashlib.md5(data).hexdigest()
            member = tarfile.TarInfo(f"{_FOLDER}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with open(archive, "rb") as file:
        md5["archive"] = hashlib.file_digest(file, "md5").hexdigest()
    Path(f"{archive}.json").write_text(json.dumps(md5))


def _batch(number: int) -> dict[str, object]:
    import numpy as np

    random = np.random.default_rng(number)
    return {
        "batch_label": f"batch {number}",
        "labels": random.integers(0, 10, _IMAGES).tolist(),
        "data": random.integers(0, _VALUES, (_IMAGES, _BYTES), dtype=np.uint8),
        "filenames": [f"image_{image:06}.png" for image in range(_IMAGES)],
    }


def run(kind: str, url: str, hashes: str, folder: str) -> None:
    """Have the dataset under a folder; torch is imported before the clock runs."""
    from torchvision.datasets import CIFAR10

    md5 = json.loads(Path(hashes).read_text())
    CIFAR10.url, CIFAR10.tgz_md5 = url, md5["archive"]
    CIFAR10.train_list = [[name, md5[name]] for name, _ in CIFAR10.train_list]
    CIFAR10.test_list = [[name, md5[name]] for name, _ in CIFAR10.test_list]
    CIFAR10.meta = {**CIFAR10.meta, "md5": md5["batches.meta"]}
    if kind == "dscache":
        from dscache.integrations import torchvision as cached

        cached.enable()
    began = time.perf_counter()
    CIFAR10(folder, download=True)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    make(*sys.argv[2:]) if sys.argv[1] == "make" else run(*sys.argv[1:])
