"""The CSV files of a report, byte for byte, from made-up runs of which two are missing."""

import hashlib
from pathlib import Path

import pytest

from .conftest import Reports

GOLDEN = Path(__file__).parent / "golden"
FIGURE3 = "cdb08e70f7d875ebc981148d618facaae0230577e6a1f92d455f9abd7e2eda60"


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.stem)
def test_csv(reports: Reports, path: Path) -> None:
    assert (reports("linear", "osr") / path.name).read_bytes() == path.read_bytes()


def test_the_histograms_of_figure3(reports: Reports) -> None:
    content = (reports("linear", "osr") / "figure3.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == FIGURE3
