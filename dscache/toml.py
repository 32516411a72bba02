"""TOML: a text becomes tables, and none of it becomes more memory than it is worth.

Where the text comes from and which keys it may have is for others to say.
"""

from __future__ import annotations

import re
from typing import Any

import tomli

# tomli needs memory by the square of a key's depth: 200 kB of `a.a.a…` would take 40 GB. Our
# deepest key has three parts; a text of so many words, joined by dots alone, is no loss either.
_DEEP = 16
_DEEP_KEY = re.compile(
    rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_DEEP}}}""", re.ASCII
)


def parse(data: bytes) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ValueError: it is not UTF-8 or not TOML, or has numbers of thousands of digits.
        RecursionError: it is nested too deeply.
    """
    text = data.decode("utf-8-sig")  # editors of Windows put a mark before it
    if any(map(_has_deep_key, text.split("\n"))):  # a key stands on one line
        raise ValueError(f"a key of more than {_DEEP} parts")
    return tomli.loads(text)


def _has_deep_key(line: str) -> bool:
    """Counting the dots first takes a tenth of the time."""
    return line.count(".") >= _DEEP and _DEEP_KEY.search(line) is not None
