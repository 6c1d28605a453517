import csv
import io
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steadyspike.train.history import EpochRow, best_row, history_csv

COLUMNS = [
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "osr_fallbacks",
    "silent_layers",
    "exploding_layers",
]


def row(epoch: int, **values: Any) -> EpochRow:
    measured = {
        "learning_rate": 0.1,
        "train_loss": 2.0,
        "train_accuracy": 10.0,
        "test_loss": 2.0,
        "test_accuracy": 10.0,
        "osr_fallbacks": 0,
    }
    return EpochRow(epoch, **(measured | values))


def test_the_whole_text() -> None:
    rows = [
        row(1, train_loss=1.23456789, test_accuracy=100 / 3, osr_fallbacks=12),
        row(2, learning_rate=0.0146446609407, test_loss=1e-7, silent_layers="a.1 b"),
    ]
    assert history_csv(rows) == (
        "epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy,osr_fallbacks,"
        "silent_layers,exploding_layers\n"
        "1,0.1,1.23457,10,2,33.3333,12,,\n"
        "2,0.0146447,2,10,1e-07,10,0,a.1 b,\n"
    )


def test_no_epoch_is_a_header() -> None:
    assert history_csv([]) == ",".join(COLUMNS) + "\n"


numbers = st.floats(1e-6, 1e6)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 10**9)), min_size=1, max_size=5))
def test_reads_back_to_six_digits(values: list[tuple[float, float, int]]) -> None:
    rows = [
        row(place + 1, train_loss=loss, test_accuracy=accuracy, osr_fallbacks=fallbacks)
        for place, (loss, accuracy, fallbacks) in enumerate(values)
    ]
    read = list(csv.DictReader(io.StringIO(history_csv(rows))))
    assert [list(cells) for cells in read] == [COLUMNS] * len(rows)
    for cells, (loss, accuracy, fallbacks) in zip(read, values, strict=True):
        assert math.isclose(float(cells["train_loss"]), loss, rel_tol=5e-6)
        assert math.isclose(float(cells["test_accuracy"]), accuracy, rel_tol=5e-6)
        assert int(cells["osr_fallbacks"]) == fallbacks


@given(st.lists(st.sampled_from([10.0, 20.0, 30.0]), min_size=1, max_size=8))
def test_the_best_is_the_earliest_of_the_highest(accuracies: list[float]) -> None:
    rows = [row(place + 1, test_accuracy=value) for place, value in enumerate(accuracies)]
    best = best_row(rows)
    assert best.test_accuracy == max(accuracies)
    assert best.epoch == accuracies.index(max(accuracies)) + 1
