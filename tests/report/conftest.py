"""Reports that several tests read."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from report import samples
from steadyspike.report import write_report

Reports = Callable[..., Path]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """The folder of the report of a pipeline in which the given experiments were not run."""

    @cache
    def written(*left_out: str) -> Path:
        folder = samples.write_pipeline(tmp_path_factory.mktemp("run"), left_out)
        assert write_report(folder, folder / "out") == sorted((folder / "out").iterdir())
        return folder / "out"

    return written
