"""Sizes, rates and times as people write them, and back: `100GB`, `512MiB`, `30d`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dscache.errors import UsageError

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base ** (power + 1)
    for suffix, base in (("b", 1000), ("ib", 1024))
    for power, prefix in enumerate("kmgtp")
}
# No disk and no life is that long; infinity, and numbers that overflow a float, are mistakes.
_TOO_MUCH = 10**18

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> int:
    """Bytes: `100GB` is 10**11, `100GiB` is 100 * 2**30, a bare number is bytes."""
    return int(_quantity(value, _UNITS, "a size such as '100GB' or '512MiB'"))


def parse_duration(value: object) -> float:
    """Seconds: `30d`, `12h`, `10m`, `30s`; a bare number is seconds."""
    return _quantity(value, _SECONDS, "a time such as '30d', '12h', '10m' or '30s'")


def _quantity(value: object, units: Mapping[str, int], wanted: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _TOO_MUCH:
        return value
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-zA-Z]*)\s*", value, re.ASCII)
        if found and found[2].lower() in units:
            number, unit = found[1], units[found[2].lower()]
            return float(number) * unit if "." in number else int(number) * unit
    raise UsageError(f"{value!r} is not {wanted}")


def show_size(count: float) -> str:
    """A size in decimal units with three figures: `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"


def show_duration(seconds: float) -> str:
    """A time in its largest sensible unit: `45 s`, `12 min`, `3.5 h`, `8 d`."""
    for unit, length, limit in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:.0f} d"
