"""The CSV files of a report, byte for byte, from made-up runs of which two are missing."""

import hashlib
from pathlib import Path

import pytest
import report_samples as samples

from steadyspike.report import write_report

GOLDEN = Path(__file__).parent / "golden"
FIGURE3 = "82476163415cd85f61555228f03b539955b484b9f38220f7707b4195620a9c4b"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = samples.write_pipeline(tmp_path_factory.mktemp("run"), leave_out=("linear", "osr"))
    write_report(folder, folder / "reports")
    return folder / "reports"


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.stem)
def test_csv(reports: Path, path: Path) -> None:
    assert (reports / path.name).read_bytes() == path.read_bytes()


def test_the_histograms_of_figure3(reports: Path) -> None:
    content = (reports / "figure3.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == FIGURE3
