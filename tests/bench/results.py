"""The figures of a run as JSON, beside those of earlier runs on the same machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measuring import Row, Table


@dataclass
class Results:
    """Tables by key, each with its date, and the machine that all of them are from."""

    machine: dict[str, str]
    tables: dict[str, Table] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)

    def add(self, table: Table, date: str) -> None:
        """Keep a table instead of an older one."""
        self.tables[table.key] = table
        self.dates[table.key] = date

    def write(self, path: Path) -> None:
        """Write them all; without what programs said, in which folders have their names."""
        found = asdict(self)
        for table in found["tables"].values():
            for row in table["rows"]:
                del row["said"]
        path.write_text(f"{json.dumps(found, indent=1, ensure_ascii=False)}\n", "utf-8")


def read(path: Path) -> Results:
    """What was written; nothing where there is no such file."""
    if not path.exists():
        return Results({})
    found = json.loads(path.read_text("utf-8"))
    tables = {key: _table(each) for key, each in found["tables"].items()}
    return Results(found["machine"], tables, found["dates"])


def _table(found: dict[str, Any]) -> Table:
    return Table(**{**found, "rows": [Row(**row) for row in found["rows"]]})
