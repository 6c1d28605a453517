"""The default pipeline: its dependencies are complete, and a tiny copy of it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from steadyspike.train.params import merge, read_yaml
from tiny import REPOSITORY, environment, python, write_data

EXPERIMENTS = ["osr_ots", "bptt"]  # of the tiny copy


def test_training_depends_on_all_the_code_it_runs() -> None:
    """Otherwise a change of the code would leave old results in place."""
    program = (
        "import sys, steadyspike.train.run, steadyspike.pins; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('steadyspike')))"
    )
    package = REPOSITORY / "src" / "steadyspike"
    # These read and write results, raise and print, and cannot change a result.
    names = ("__init__.py", "errors.py", "files.py", "records.py", "console.py")
    harmless = {package / name for name in names}
    train = read_yaml(REPOSITORY / "dvc.yaml")["stages"]["train"]["do"]
    dependencies = {REPOSITORY / path for path in train["deps"]}
    for file in map(Path, python(program).stdout.split()):
        assert dependencies & {file, *file.parents} or file in harmless, file


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default pipeline with a few images and an epoch each, run once."""
    if not shutil.which("dvc", path=dvc_environment(Path())["PATH"]):
        pytest.skip("DVC is not installed")
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("dvc.yaml", ".dvcignore", "requirements.lock"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    write_data(root, train=60, test=20)
    document = read_yaml(REPOSITORY / "params.yaml")
    tiny = {
        "model": {"widths": [4, "P", 4]},
        "training": {"epochs": 1, "batch": 20, "steps": 2, "chunk": 2},
        "evaluation": {"steps": 2},
    }
    document["defaults"] = merge(document["defaults"], tiny)
    document["experiments"] = {name: document["experiments"][name] for name in EXPERIMENTS}
    write(root, document)
    dvc(root, "init", "--no-scm", "--quiet")
    dvc(root, "config", "core.check_update", "false")
    assert ran(root, "repro") == [
        "check_data",
        *(f"train@{name}" for name in EXPERIMENTS),
        *(f"evaluate@{name}" for name in EXPERIMENTS),
        "memory",
        "report",
    ]
    return root


def write(root: Path, document: dict[str, Any]) -> None:
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def dvc_environment(root: Path) -> dict[str, str]:
    own = environment(
        PYTHONPATH=str(root / "src"),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        DVC_NO_ANALYTICS="1",
        DVC_SITE_CACHE_DIR=str(root / ".site"),
        DVC_GLOBAL_CONFIG_DIR=str(root / ".config"),
        DVC_SYSTEM_CONFIG_DIR=str(root / ".config"),
    )
    return {key: value for key, value in own.items() if not key.startswith("GIT_")}


def dvc(root: Path, *arguments: str) -> str:
    own = dvc_environment(root)
    result = subprocess.run(["dvc", *arguments], cwd=root, env=own, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def ran(root: Path, *arguments: str) -> list[str]:
    """The stages that a command of DVC ran."""
    return re.findall(r"^Running stage '(.*)':$", dvc(root, *arguments), re.MULTILINE)


@pytest.mark.slow
def test_outputs_appear(project: Path) -> None:
    reports = project / "reports"
    for table in ("table2", "table4"):
        for kind in ("md", "csv", "json"):
            assert (reports / f"{table}.{kind}").stat().st_size > 100
    for figure in ("figure2a", "figure2b", "figure3"):
        assert (reports / f"{figure}.svg").read_text().startswith("<svg")
        assert (reports / f"{figure}.csv").stat().st_size > 50
    assert "<html" in (reports / "index.html").read_text()
    assert json.loads((reports / "digests.json").read_text()).keys() == set(EXPERIMENTS)
    shown = json.loads(dvc(project, "metrics", "show", "--json"))[""]["data"]
    for name in EXPERIMENTS:
        metrics = shown[f"runs/{name}/metrics.json"]["data"]
        assert metrics["experiment"] == name
        assert 0 <= metrics["accuracy"]["last"] <= 100


@pytest.mark.slow
def test_the_lock_stays_as_it_is_when_a_stage_runs_again(project: Path) -> None:
    """The same results, and no time or machine among what is recorded."""
    before = (project / "dvc.lock").read_text()
    timing = (project / "runs" / "osr_ots" / "timing.json").read_text()
    assert ran(project, "repro", "--force", "--single-item", "train@osr_ots") == ["train@osr_ots"]
    assert (project / "runs" / "osr_ots" / "timing.json").read_text() != timing
    assert ran(project, "repro") == []
    assert (project / "dvc.lock").read_text() == before


@pytest.mark.slow
def test_a_changed_override_reruns_that_experiment_alone(project: Path) -> None:
    document = read_yaml(project / "params.yaml")
    document["experiments"]["bptt"]["model"]["tau"] = 3.0
    before = (project / "runs" / "bptt" / "history.csv").read_bytes()
    write(project, document)
    assert ran(project, "repro") == ["train@bptt", "evaluate@bptt", "memory", "report"]
    assert (project / "runs" / "bptt" / "history.csv").read_bytes() != before
