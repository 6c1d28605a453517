"""`make`: every target is listed with what it does, and its recipe can be expanded."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", "--warn-undefined-variables", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_make_alone_lists_targets_that_exist() -> None:
    lines = make().stdout.splitlines()
    targets = [re.fullmatch(r"make (\S+) +\S.*", line)[1] for line in lines]  # type: ignore[index]
    assert {"setup", "train", "test", "lint", "types", "bench", "audit"} <= set(targets)
    for target in targets:
        assert make("--dry-run", "--always-make", target).stderr == ""
