"""What the tests of the harness share."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from project import NAME, Project, make_project

REPOSITORY = Path(__file__).parents[2]
#: One epoch of few batches: what takes time is Python's start.
SHORT = {
    "training": {"epochs": 1, "batch": 20, "steps": 2, "chunk": 2, "precision": "float64"},
    "evaluation": {"steps": 2},
}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A short one, run from the working tree, with what other tests have compiled of torch."""
    made = make_project(tmp_path_factory.mktemp("reliability"), **SHORT)
    compiled = Path(tempfile.gettempdir()) / "steadyspike-pycache"
    more = {"PYTHONPYCACHEPREFIX": str(compiled)}
    return replace(made, source=REPOSITORY / "src", more=more)


@pytest.fixture(scope="session")
def whole(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`project`, trained without a break."""
    made = project.fresh(tmp_path_factory.mktemp("reliability") / "whole")
    status, err = made.run("train", NAME)
    assert status == 0, err
    return made
