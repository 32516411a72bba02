"""Registry files as text, for people to read and edit: the inverse of `tables`. Pure.

A small writer of TOML for the shapes we have: texts, numbers, flags, lists of texts, tables. What
it writes, any TOML reader reads back as the same values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dscache.registry.tables import Alias, Entry, RegistryEntry, load_toml

_WIDTH = 100
_ESCAPES = {"\\": "\\\\", "\b": "\\b", "\t": "\\t", "\f": "\\f", "\r": "\\r", '"': '\\"'}


def render(value: Entry | Alias | RegistryEntry) -> bytes:
    """A whole file; keys in the order of the type, those that say nothing left out."""
    table: dict[str, Any] = msgspec.to_builtins(value)
    return toml(table).encode()


def with_key(data: bytes, key: str, value: str | list[str]) -> bytes | None:
    """A file with one key at its top level set, comments and all else as it was; None where that
    cannot be done by changing one line.
    """
    line = f"{key} = {_value(value)}"
    before = data.decode()
    old = re.compile(rf"^{key}[ \t]*=.*$", re.MULTILINE)
    after, changed = old.subn(lambda _: line, before, count=1)
    if not changed:
        version = re.compile(r"^version[ \t]*=.*$", re.MULTILINE)
        after = version.sub(lambda found: f"{found[0]}\n{line}", before, count=1)
    changed_data = after.encode()
    try:
        same = load_toml(changed_data) == {**load_toml(data), key: value}
    except ValueError:  # the line was part of something longer
        return None
    return changed_data if same else None


def toml(table: Mapping[str, Any]) -> str:
    """A table of texts, numbers, flags, lists of texts, tables and lists of tables as TOML."""
    parts = [_lines(table)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            parts.append(f"[{_key(key)}]\n{_lines(value)}")
        elif _is_tables(value):
            parts += (f"[[{_key(key)}]]\n{_lines(each)}" for each in value)
    return "\n".join(part for part in parts if part)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(
        f"{_key(key)} = {_value(value)}\n"
        for key, value in table.items()
        if value is not None and not isinstance(value, Mapping) and not _is_tables(value)
    )


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key, re.ASCII) else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return _list([_value(each) for each in value])
    return _long_text(value) if isinstance(value, str) and "\n" in value else _text(str(value))


def _list(values: list[str]) -> str:
    line = ", ".join(values)
    if len(values) < 2 or (len(line) < _WIDTH and "\n" not in line):
        return f"[{line}]"
    return "[\n" + "".join(f"    {value},\n" for value in values) + "]"


def _text(text: str) -> str:
    return f'"{_escaped(text)}"'.replace("\n", "\\n")


def _long_text(text: str) -> str:
    quotes = re.sub(r'\\"(?!\\"|\Z)', '"', _escaped(text))
    return f'"""\n{quotes}"""'


def _escaped(text: str) -> str:
    return "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\u{ord(char):04x}" if char != "\n" and (char < " " or char == "\x7f") else char
