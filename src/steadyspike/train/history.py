"""A row an epoch, with enough digits to compare and none that differ from run to run."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class EpochRow:
    """What one epoch came to. Losses are means per image, accuracies in percent."""

    epoch: int  # from 1
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    osr_fallbacks: int  # layers and steps in which OSR fell back to a step's own statistics
    silent_layers: str = ""  # names of spiking layers that never fired in training, by spaces
    exploding_layers: str = ""  # names of norms with a running variance out of proportion


def history_csv(rows: Sequence[EpochRow]) -> str:
    """history.csv: a header and a line an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: f"{value:.6g}" if isinstance(value, float) else value
                for key, value in asdict(row).items()
            }
        )
    return text.getvalue()


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """The epoch of the highest test accuracy, the earliest of equals."""
    return max(rows, key=lambda row: (row.test_accuracy, -row.epoch))
