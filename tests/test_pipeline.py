"""The DVC pipelines: what they name exists, and a tiny copy of the default one runs through."""

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

from steadyspike.train.params import merge, read_params, read_yaml
from tiny import REPOSITORY, environment, python, write_data

EXPERIMENTS = list(read_params(REPOSITORY / "params.yaml"))
PIPELINE: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
FILES = [REPOSITORY / "dvc.yaml", *sorted(REPOSITORY.glob("pipelines/*/dvc.yaml"))]
RESTORED = {"data", "datasets"}
MADE = {"runs", "reports"}


def stages(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name; of a `foreach` what is done for each."""
    return {name: stage.get("do", stage) for name, stage in pipeline["stages"].items()}


# What is written


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_dependency_is_there_or_made(path: Path) -> None:
    for name, stage in stages(yaml.safe_load(path.read_text())).items():
        folder = path.parent / stage.get("wdir", ".")
        for dependency in stage.get("deps", ()):
            parts = Path(dependency).parts
            if parts[0] not in RESTORED and not MADE & set(parts):
                assert (folder / dependency).exists(), f"{name}: {dependency}"


def test_the_report_and_every_plot_know_every_experiment() -> None:
    report = stages(PIPELINE)["report"]["deps"]
    for name in EXPERIMENTS:
        assert f"runs/{name}" in report
    assert PIPELINE["plots"]
    for plot in PIPELINE["plots"]:
        (drawn,) = plot.values()
        assert list(drawn["y"]) == [f"runs/{name}/history.csv" for name in EXPERIMENTS]


def test_every_column_drawn_is_one_that_training_writes() -> None:
    from steadyspike.train.history import history_csv

    columns = history_csv([]).strip().split(",")
    for plot in PIPELINE["plots"]:
        for drawn in plot.values():
            assert {drawn["x"], *drawn["y"].values()} <= set(columns)


def test_training_depends_on_all_the_code_it_runs() -> None:
    """Or a change of it would leave the old results in place."""
    program = (
        "import sys, steadyspike.train.run, steadyspike.pins; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('steadyspike')))"
    )
    # What only tells of mistakes or of progress, starts the program or writes a file cannot change
    # a result.
    harmless = {"__init__.py", "errors.py", "files.py", "telling.py"}
    dependencies = [REPOSITORY / place for place in stages(PIPELINE)["train"]["deps"]]
    package = REPOSITORY / "src" / "steadyspike"
    for file in map(Path, python(program).stdout.split()):
        if file.parent == package and file.name in harmless:
            continue
        if file == package / "evaluate" / "__init__.py":
            continue
        assert any(place == file or place in file.parents for place in dependencies), file


def test_the_outputs_hold_nothing_that_differs_from_run_to_run() -> None:
    """Times and machines lie beside the outputs, and no later stage may depend on them."""
    for name, stage in stages(PIPELINE).items():
        named = json.dumps([stage.get(key, []) for key in ("deps", "outs", "metrics")])
        for file in ("timing.json", "environment.json", "checkpoint.pt"):
            assert file not in named, name


# A tiny copy of it, run


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
    result = subprocess.run(
        ["dvc", *arguments],
        cwd=root,
        env=dvc_environment(root),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def ran(root: Path, *arguments: str) -> list[str]:
    """The stages that a command of DVC ran."""
    return re.findall(r"^Running stage '(.*)':$", dvc(root, *arguments), re.MULTILINE)


def test_tables_figures_and_page_appear(project: Path) -> None:
    reports = project / "reports"
    for table in ("table2", "table4"):
        for kind in ("md", "csv", "json"):
            assert (reports / f"{table}.{kind}").stat().st_size > 100
    for figure in ("figure2a", "figure2b", "figure3"):
        assert (reports / f"{figure}.svg").read_text().startswith("<svg")
        assert (reports / f"{figure}.csv").stat().st_size > 50
    assert "<html" in (reports / "index.html").read_text()
    assert json.loads((reports / "digests.json").read_text()).keys() == set(EXPERIMENTS)


def test_runs_hold_what_is_promised(project: Path) -> None:
    for name in EXPERIMENTS:
        files = {path.name for path in (project / "runs" / name).iterdir() if path.is_file()}
        assert files == {
            "model.safetensors",
            "best.safetensors",
            "history.csv",
            "digests.json",
            "metrics.json",
            "layers.json",
            "environment.json",
            "timing.json",
        }


def test_metrics_of_every_experiment_are_shown(project: Path) -> None:
    shown = json.loads(dvc(project, "metrics", "show", "--json"))[""]["data"]
    for name in EXPERIMENTS:
        metrics = shown[f"runs/{name}/metrics.json"]["data"]
        assert metrics["experiment"] == name
        assert 0 <= metrics["accuracy"]["last"] <= 100


def test_the_lock_stays_as_it_is_when_a_stage_runs_again(project: Path) -> None:
    """The same results, and no time or machine among what is recorded."""
    before = (project / "dvc.lock").read_text()
    timing = (project / "runs" / "osr" / "timing.json").read_text()
    assert ran(project, "repro", "--force", "--single-item", "train@osr") == ["train@osr"]
    assert (project / "runs" / "osr" / "timing.json").read_text() != timing
    assert ran(project, "repro") == []
    assert (project / "dvc.lock").read_text() == before


def test_a_changed_override_reruns_that_experiment_alone(project: Path) -> None:
    document = read_yaml(project / "params.yaml")
    document["experiments"]["linear"] = merge(
        document["experiments"]["linear"], {"model": {"tau": 3.0}}
    )
    before = (project / "runs" / "linear" / "history.csv").read_bytes()
    write(project, document)
    assert ran(project, "repro") == ["train@linear", "evaluate@linear", "report"]
    assert (project / "runs" / "linear" / "history.csv").read_bytes() != before
