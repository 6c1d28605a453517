"""One small project for all samples of tools/reliability."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools" / "reliability"))  # scripts, no package
from project import Project, make_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of two epochs, in float64: other orders of summation differ by 1e-9 at most."""
    training = {"epochs": 2, "batch": 20, "precision": "float64"}
    return make_project(tmp_path_factory.mktemp("reliability"), training=training)


@pytest.fixture(scope="session")
def whole(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`project`, trained without an interruption."""
    whole = project.fresh(tmp_path_factory.mktemp("reliability") / "whole")
    whole.finish("train", "small")
    return whole
