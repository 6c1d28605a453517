"""history.csv read back."""

import csv
from pathlib import Path
from typing import get_type_hints

from steadyspike.errors import UserError
from steadyspike.train.history import EpochRow

_TYPES = get_type_hints(EpochRow)


def read_history(path: Path, remedy: str) -> list[EpochRow]:
    """The rows of a history.csv, at least one; UserError if it is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path}: not found: {remedy}")
    try:
        with path.open(newline="") as lines:
            rows = [
                EpochRow(**{name: kind(row[name]) for name, kind in _TYPES.items()})
                for row in csv.DictReader(lines)
            ]
    except (KeyError, ValueError, TypeError, OSError, csv.Error):
        rows = []
    if not rows:
        raise UserError(f"{path}: expected the columns {', '.join(_TYPES)} with a row an epoch")
    return rows
