from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.errors import UserError
from steadyspike.train.history import EpochRow, best_row, history_csv, read_history

HEADER = (
    "epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy,osr_fallbacks,"
    "silent_layers,exploding_layers\n"
)


def row(epoch: int, **values: Any) -> EpochRow:
    measured = {
        "learning_rate": 0.1,
        "train_loss": 2.0,
        "train_accuracy": 10.0,
        "test_loss": 2.0,
        "test_accuracy": 10.0,
        "osr_fallbacks": 0,
    }
    return EpochRow.model_validate({"epoch": epoch, **measured, **values})


def test_the_whole_text() -> None:
    rows = [
        row(1, train_loss=1.23456789, test_accuracy=100 / 3, osr_fallbacks=12),
        row(2, learning_rate=0.0146446609407, test_loss=1e-7, silent_layers=("a.1", "b")),
    ]
    assert history_csv(rows) == (
        HEADER + "1,0.1,1.23457,10,2,33.3333,12,,\n2,0.0146447,2,10,1e-07,10,0,a.1 b,\n"
    )
    assert history_csv([]) == HEADER


numbers = st.floats(1e-6, 100)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 10**9)), min_size=1, max_size=5))
def test_reads_back_to_six_digits(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, float, int]]
) -> None:
    rows = [
        row(
            place + 1,
            train_loss=loss,
            test_accuracy=accuracy,
            osr_fallbacks=fallbacks,
            silent_layers=("a.0", "b")[: place % 3],
        )
        for place, (loss, accuracy, fallbacks) in enumerate(values)
    ]
    path = tmp_path_factory.getbasetemp() / "history.csv"
    path.write_text(history_csv(rows))
    for read, written in zip(read_history(path, ""), rows, strict=True):
        assert read.train_loss == pytest.approx(written.train_loss, rel=5e-6)
        assert read.test_accuracy == pytest.approx(written.test_accuracy, rel=5e-6)
        assert read.osr_fallbacks == written.osr_fallbacks
        assert read.silent_layers == written.silent_layers
    assert history_csv(read_history(path, "")) == path.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"history\.csv: not found: train it first"),
        ("", "epoch: expected a column of this name"),
        ("epoch,learning_rate\n1,0.1\n", "train_loss: expected a column of this name"),
        (HEADER, "expected at least one row below the header"),
        (HEADER + "1,0.1,2,10,2,10,0,,\n2,0.1,x,10,2,10,0,,\n", "line 3, train_loss: .* number"),
        (HEADER + "1,0.1,nan,10,2,10,0,,\n", "line 2, train_loss: .* finite"),
        (HEADER + "1,0.1,2,101,2,10,0,,\n", "line 2, train_accuracy: .* 100"),
        (HEADER + "1,0.1,2\n", "line 2, train_accuracy"),
        (b"\xff\0", "not a CSV file: .*utf-8"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "history.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_history(path, "train it first")


@given(st.lists(st.sampled_from([10.0, 20.0, 30.0]), min_size=1, max_size=8))
def test_the_best_is_the_earliest_of_the_highest(accuracies: list[float]) -> None:
    rows = [row(place + 1, test_accuracy=value) for place, value in enumerate(accuracies)]
    best = best_row(rows)
    assert best.test_accuracy == max(accuracies)
    assert best.epoch == accuracies.index(max(accuracies)) + 1
