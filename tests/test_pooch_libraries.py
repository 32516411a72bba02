"""Libraries on the drop-in, unchanged but for what `import pooch` gives them.

The files of scikit-image are those that its package carries. A local server stands for the sites
that the libraries name.
"""

from __future__ import annotations

import hashlib
import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.children import running
from tests.servers import nginx

_START = """
import os, sys
from dscache.integrations import pooch
sys.modules["pooch"] = pooch  # in place of a change of the import
"""
_SCIKIT_IMAGE = """
from pathlib import Path
from skimage import data
from skimage.data import _fetchers
fetcher, empty = _fetchers._image_fetcher, Path(sys.argv[1])
assert type(fetcher) is pooch.Pooch
shipped = [name for name in fetcher.registry if Path(_fetchers._DISTRIBUTION_DIR, name).exists()]
for name in fetcher.registry.keys() - set(shipped):
    del fetcher.registry[name]
_fetchers._DISTRIBUTION_DIR = str(empty)  # else it would not ask for them
camera = data.camera()
assert camera.shape == (512, 512) and camera.flags.writeable
data.download_all()
data.download_all(sys.argv[2])
for name in shipped:
    assert os.path.samefile(Path(sys.argv[2], name), fetcher.abspath / name)
print(len(shipped))
"""
_SCIPY = """
from scipy import datasets
from scipy.datasets import _fetchers, _registry
fetcher, (base, known) = _fetchers.data_fetcher, sys.argv[1:]
assert type(fetcher) is pooch.Pooch
for table in (fetcher.urls, _registry.registry_urls):
    table["ascent.dat"] = f"{base}/ascent.dat"
for table in (fetcher.registry, _registry.registry):
    for name in table.keys() - {"ascent.dat"}:
        del table[name]
    table["ascent.dat"] = known
print(datasets.ascent().shape)
datasets.download_all(os.path.abspath("mine"))
assert os.path.samefile("mine/ascent.dat", fetcher.abspath / "ascent.dat")
"""


def said(code: str, *words: str) -> str:
    """What a program of a library prints."""
    with running(_START + code, *words) as process:
        output, trouble = process.communicate()
    assert process.returncode == 0, trouble
    return output.strip()


@pytest.mark.skipif(find_spec("skimage") is None, reason="no scikit-image")
def test_scikit_image(home: Path, tmp_path: Path) -> None:
    spec = find_spec("skimage")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    for folder in ("server", "empty/data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "empty/data/README.txt").touch()
    with nginx(package / "data", tmp_path / "server") as server:
        site = "https://gitlab.com/scikit-image/data/-/raw"
        lines = [f'"{site}/{commit}/" = "{server.url}/"' for commit in _commits(package)]
        (home / "config.toml").write_text("\n".join(["[rewrite]", *lines]), "utf-8")
        count = int(said(_SCIKIT_IMAGE, str(tmp_path / "empty"), str(tmp_path / "mine")))
        assert count > 30
        seen = server.requests(at_least=count)
        assert len({each.path for each in seen}) == len(seen) == count  # and nobody for another one


def _commits(package: Path) -> set[str]:
    """The commits in the URLs of its registry."""
    text = (package / "data" / "_registry.py").read_text("utf-8")
    return {word for word in text.split("/") if len(word) == 40 and word.isalnum()}


@pytest.mark.skipif(find_spec("scipy") is None, reason="no scipy")
def test_scipy_datasets(tmp_path: Path) -> None:
    data = pickle.dumps([[0] * 4] * 3)
    for folder in ("files", "server"):
        (tmp_path / folder).mkdir()
    (tmp_path / "files/ascent.dat").write_bytes(data)
    with nginx(tmp_path / "files", tmp_path / "server") as server:
        assert said(_SCIPY, server.url, hashlib.sha256(data).hexdigest()) == "(3, 4)"
        assert len(server.requests(at_least=1)) == 1
