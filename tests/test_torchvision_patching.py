"""What is replaced in torchvision, what comes back, and which versions are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip(
    "torchvision.datasets", reason="torchvision is not installed (`make test-torch`)"
)

from torchvision.datasets import cifar, imagenet, mnist, utils

from dscache import Cache
from dscache.errors import UsageError
from dscache.integrations import torchvision as cached
from dscache.integrations.torchvision import patching

NAMES = (
    "check_integrity",
    "download_and_extract_archive",
    "download_url",
    "extract_archive",
    "_verify_archive",
    "parse_train_archive",
)


def everything() -> dict[tuple[str, str], object]:
    """What every module of torchvision's datasets has under every name."""
    return {
        (module.__name__, name): value
        for key, module in list(sys.modules.items())
        if key.startswith("torchvision.datasets")
        for name, value in vars(module).items()
    }


def test_all_comes_back_however_often_it_was_enabled(tmp_path: Path) -> None:
    before = everything()
    cached.enable()
    cached.enable(Cache(tmp_path))
    changed = {key for key, value in everything().items() if value is not before[key]}
    assert {name for _, name in changed} == set(NAMES)
    assert {module for module, name in changed if name == "download_and_extract_archive"} > {
        "torchvision.datasets.utils",
        "torchvision.datasets.mnist",
        "torchvision.datasets._stereo_matching",
    }
    cached.disable()
    cached.disable()
    assert everything() == before


def failing() -> None:
    """Enable once more, and fail."""
    with cached.enabled():
        raise ZeroDivisionError


def test_a_block_in_a_block_ends_with_what_was_before(tmp_path: Path) -> None:
    own = utils.download_url
    with cached.enabled(Cache(tmp_path)):
        outer = patching.current()
        with cached.enabled():
            assert patching.current() not in (None, outer)
        assert patching.current() is outer
        with pytest.raises(ZeroDivisionError):
            failing()
        assert patching.current() is outer
        cached.disable()
        assert utils.download_url is own
    assert utils.download_url is own


def test_a_module_that_is_imported_later_takes_part() -> None:
    own = utils.download_url
    late = ModuleType("torchvision.datasets.late")
    sys.modules[late.__name__] = late
    try:
        with cached.enabled():
            exec("from torchvision.datasets.utils import download_url", vars(late))
            assert vars(late)["download_url"] is utils.download_url is not own
        assert vars(late)["download_url"] is own
    finally:
        del sys.modules[late.__name__]


def test_what_was_kept_does_as_torchvision_does_afterwards(tmp_path: Path) -> None:
    with cached.enabled():
        kept = utils.extract_archive
    assert kept.__doc__ == utils.extract_archive.__doc__
    with pytest.raises(RuntimeError, match="no suffixes"):
        kept(tmp_path / "a")
    assert patching.current() is None


def test_of_other_names_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = lambda *_: None  # noqa: E731 - somebody's own function
    monkeypatch.setattr(cifar, "check_integrity", mine)
    with cached.enabled():
        assert cifar.check_integrity is mine
        assert mnist.check_integrity is utils.check_integrity
    assert cifar.check_integrity is mine


def with_one_more(url: str, root: str, filename: str, md5: str, retries: int = 3) -> None:
    """As a future `download_url` might be."""


def with_another_default(fpath: str, md5: str = "") -> bool:
    """As a future `check_integrity` might be."""
    return True


def without(file: str, root: str) -> str:
    """As a future `_detect_file_type` might be."""
    return ""


@pytest.mark.parametrize(
    ("module", "name", "fake", "said"),
    [
        (utils, "download_url", with_one_more, "takes (url, root, filename, md5, retries=3)"),
        (utils, "check_integrity", with_another_default, "takes (fpath, md5='') instead of"),
        (utils, "_detect_file_type", without, "takes (file, root) instead of (file)"),
        (imagenet, "_verify_archive", None, "there is no torchvision.datasets.imagenet._verify"),
    ],
)
def test_a_version_that_does_not_fit_is_refused_and_left_alone(
    module: ModuleType,
    name: str,
    fake: Callable[..., Any] | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, fake)
    before = everything()
    with pytest.raises(UsageError) as caught:
        cached.enable()
    assert said in caught.value.message
    assert patching.KNOWN in caught.value.hint
    assert everything() == before
