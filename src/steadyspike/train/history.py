"""history.csv: one row an epoch, written and read by one schema."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from steadyspike.records import read_rows

Percent = Annotated[float, Field(ge=0, le=100)]
#: Names of layers, separated by spaces in the file.
Layers = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda cell: tuple(cell.split()) if isinstance(cell, str) else cell),
]


class EpochRow(BaseModel):
    """The results of one epoch: losses are means per image, accuracies in percent."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    epoch: Annotated[int, Field(ge=1)]
    learning_rate: float
    train_loss: float
    train_accuracy: Percent
    test_loss: float
    test_accuracy: Percent
    #: Layers and steps in which OSR fell back to the statistics of a single step.
    osr_fallbacks: Annotated[int, Field(ge=0)]
    #: Spiking layers without a single spike in the epoch's training.
    silent_layers: Layers = ()
    #: Norms whose running variance exploded.
    exploding_layers: Layers = ()


COLUMNS = tuple(EpochRow.model_fields)


def history_csv(rows: Sequence[EpochRow]) -> str:
    """The text of history.csv; floats have six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)
    return text.getvalue()


def _cell(value: int | float | tuple[str, ...]) -> int | str:
    if isinstance(value, tuple):
        return " ".join(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def read_history(path: Path, remedy: str) -> list[EpochRow]:
    """The rows of a history.csv, at least one.

    Raises:
        UserError: the file is missing (the message ends with ``remedy``) or malformed (it names
            line and column).
    """
    return read_rows(path, EpochRow, remedy)


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """The epoch of the highest test accuracy, the earliest of equals."""
    return max(rows, key=lambda row: (row.test_accuracy, -row.epoch))
