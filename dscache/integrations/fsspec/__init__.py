"""fsspec: `dscache://name/path` for whatever opens files through fsspec, and `dscache::URL`.

    pandas.read_csv("dscache://penguins/penguins.csv")

fsspec finds this module by its entry point. Installed by `pip install 'dscache[fsspec]'`.
"""

from __future__ import annotations

try:
    import fsspec
except ImportError as error:
    raise ImportError(
        "dscache.integrations.fsspec needs fsspec: `pip install 'dscache[fsspec]'`"
    ) from error

# In older ones nobody but fsspec's own caches can stand before `::`, or only there.
_OLDEST = (2025, 12)

if tuple(map(int, fsspec.__version__.split(".")[:2])) < _OLDEST:
    raise ImportError(
        f"dscache:// needs fsspec {'.'.join(map(str, _OLDEST))} or newer, and this is "
        f"{fsspec.__version__}: `pip install 'dscache[fsspec]'`"
    )

from dscache.integrations.fsspec.names import DscacheFileSystem  # noqa: E402 - it needs that

__all__ = ["DscacheFileSystem"]
