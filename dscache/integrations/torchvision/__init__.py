"""torchvision on the cache: `torchvision.datasets.X(root, download=True)` links what is here.

    from dscache.integrations import torchvision as cached

    cached.enable()

What is downloaded goes through the cache and its engine, and stands under `root` where torchvision
expects it. What is replaced, and how it is put back, is in `patching`; what the replacements do is
in `routes`. Knows torchvision by a few names only, and looks at them before it touches anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    import torchvision.datasets  # noqa: F401 - so that the error below is the first one
except ImportError as error:
    raise ImportError(
        "dscache.integrations.torchvision needs torchvision: `pip install torchvision`"
    ) from error

from dscache import Cache
from dscache.integrations.torchvision import patching
from dscache.integrations.torchvision.routes import Routes

__all__ = ["disable", "enable", "enabled"]


def enable(cache: Cache | None = None) -> None:
    """Have torchvision's datasets download through a cache, in this process, from now on.

    Where it is enabled already, the cache given now takes the place of the other.

    Args:
        cache: default: the configured one.

    Raises:
        UsageError: this version of torchvision is none that is known; nothing was changed.
    """
    patching.check()
    patching.put(Routes(cache or Cache(), patching.originals()))


def disable() -> None:
    """Give torchvision its own functions back, however often `enable` was called."""
    patching.put(None)


@contextmanager
def enabled(cache: Cache | None = None) -> Iterator[None]:
    """As `enable`, for a `with` block; at its end everything is as it was before.

    Raises:
        UsageError: as `enable`.
    """
    before = patching.current()
    enable(cache)
    try:
        yield
    finally:
        patching.put(before)
