"""Checks of the configuration: what cannot be used of it, and what is set by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dscache.doctor.checks import failure, fine
from dscache.errors import DscacheError
from dscache.results import Check
from dscache.settings import Settings
from dscache.settings.keys import KEYS
from dscache.urls import redacted

_MEND = "mend it; until then commands other than `doctor` stop with this error"


def checks(settings: Settings, problems: Sequence[DscacheError]) -> Iterator[Check]:
    """What is wrong with files and variables, and every setting that is not the default."""
    for error in problems:
        yield failure("configuration", str(error), error.hint or _MEND, error.code)
    chosen = [
        f"{key} = {_shown(key, getattr(settings, name))} ({source})"
        for key, name in KEYS.items()
        if (source := settings.sources.get(name, "default")) != "default"
    ]
    if settings.extra_registries:
        shown = ";".join(map(redacted, settings.extra_registries))
        chosen.append(f"registries: {shown} (DSCACHE_REGISTRIES)")
    where = f"{settings.config_file}" + (f" and {settings.project}" if settings.project else "")
    yield fine("settings", "; ".join(chosen) or f"all are the defaults ({where} set none)")


def _shown(key: str, value: object) -> str:
    """A value without what may be secret: of credentials only the hosts, of URLs what is plain."""
    if isinstance(value, Mapping):
        if key == "auth":
            return ", ".join(sorted(value))
        return ", ".join(
            f"{redacted(name)} = {redacted(str(each))}" for name, each in value.items()
        )
    if isinstance(value, tuple):
        return ", ".join(map(redacted, value))
    return redacted(str(value))
