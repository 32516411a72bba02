"""The examples of the guide to PyTorch run as they stand there."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.archives import File, packed, tar_of
from tests.making import Shelf, artifact
from tests.origin import origin

pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` has it")
pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("webdataset", reason="webdataset is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

#: Each new process imports PyTorch, which takes seconds.
pytestmark = pytest.mark.timeout(600)

GUIDE = Path(__file__).parents[1] / "docs/guide/pytorch.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    image.new("RGB", (8, 8), (number, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_examples(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [File(f"train/{'ab'[n % 2]}/{n}.jpg", photo(n)) for n in range(12)]
    pairs = [(File(f"{n}.jpg", photo(n)), File(f"{n}.cls", b"%d" % n)) for n in range(12)]
    shards = {f"{n}.tar": tar_of(*pairs[n], *pairs[n + 4], *pairs[n + 8]) for n in range(4)}
    flowers = packed("tar", *photos)
    with origin({"/flowers.tar": flowers} | {f"/{n}": data for n, data in shards.items()}) as site:
        shelf = Shelf(home / "shelf")
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
        url = site.url("/flowers.tar")
        shelf.add("flowers", [artifact("flowers.tar", flowers, url, unpack="tar")])
        rows = [artifact(name, data, site.url(f"/{name}")) for name, data in shards.items()]
        shelf.add("flowers-shards", rows)
        *examples, job = EXAMPLES
        names: dict[str, Any] = {}
        for example in examples:
            exec(compile(example, GUIDE, "exec"), names)
        assert len(list(names["dataset"])) == 12
        Path("train.py").write_text(job)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*torchrun, "--standalone", "train.py"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[12, 12]\n"
        assert len(site.requests) == 5
