"""The default pipeline: its dependencies are complete, and a tiny copy of it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from steadyspike.train.params import merge, read_yaml
from tiny import (
    REPOSITORY,
    audit_tools,
    environment,
    in_process,
    python,
    refused,
    write_data,
)

EXPERIMENTS = ["osr_ots", "bptt"]  # of the tiny copy


def test_training_depends_on_all_the_code_it_runs() -> None:
    """Otherwise a change of the code would leave old results in place."""
    program = (
        "import sys, steadyspike.train.run, steadyspike.pins; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('steadyspike')))"
    )
    package = REPOSITORY / "src" / "steadyspike"
    # These read and write results and variables, raise and print, and cannot change a result.
    names = ("__init__.py", "errors.py", "files.py", "records.py", "console.py", "variables.py")
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
def test_the_documented_command_prints_a_few_metrics(project: Path) -> None:
    page = (REPOSITORY / "docs" / "trying-parameters.md").read_text()
    command = re.search(r"^dvc metrics show .*$", page, re.MULTILINE)
    assert command is not None
    shown = subprocess.run(
        command[0], cwd=project, env=dvc_environment(project), shell=True, stdout=subprocess.PIPE
    )
    header, _, *rows = shown.stdout.decode().strip().splitlines()
    columns = [column.strip() for column in header.split("|")]
    assert columns == ["Path", "accuracy.last", "after_steps.gap", "firing_rate.gross"]
    assert len(rows) == len(EXPERIMENTS)


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


# The crate


@pytest.fixture(scope="module")
def crate(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished project, described by `report --crate`."""
    root = tmp_path_factory.mktemp("crate") / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".dvc", "__pycache__"))
    result = in_process(root, "report", "--crate")
    assert (result.returncode, result.stdout) == (0, "ro-crate-metadata.json\n"), result.stderr
    return root


def entities(root: Path) -> dict[str, dict[str, Any]]:
    graph = json.loads((root / "ro-crate-metadata.json").read_text())["@graph"]
    assert len({entity["@id"] for entity in graph}) == len(graph)
    return {entity["@id"]: entity for entity in graph}


def names(references: Any) -> set[str]:
    return {each["@id"] for each in (references if isinstance(references, list) else [references])}


@pytest.mark.slow
def test_a_public_validator_accepts_the_crate(crate: Path, tmp_path: Path) -> None:
    python_of_tools = audit_tools() / "bin/python"

    def validate(root: Path) -> "subprocess.CompletedProcess[str]":
        command = [python_of_tools, REPOSITORY / "tools/validate_crate.py", root]
        return subprocess.run(command, capture_output=True, text=True)

    result = validate(crate)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "REQUIRED" not in result.stdout.replace("RECOMMENDED", "")
    (tmp_path / "ro-crate-metadata.json").write_text(
        (crate / "ro-crate-metadata.json").read_text().replace('"mainEntity"', '"mentions"')
    )
    assert validate(tmp_path).returncode == 1


@pytest.mark.slow
def test_the_crate_holds_the_run_that_dvc_recorded(crate: Path) -> None:
    found = entities(crate)
    stages = read_yaml(crate / "dvc.lock")["stages"]
    assert {f"#stage/{name.replace('@', '%40')}" for name in stages} <= found.keys()
    train = found["#stage/train%40osr_ots"]
    assert train["description"] == "python -m steadyspike train osr_ots"
    assert "runs/osr_ots/model.safetensors" in names(train["result"])
    assert {"src/steadyspike/train/", "#parameters/osr_ots"} <= names(train["object"])
    for file in stages["train@osr_ots"]["outs"]:
        entity = found[file["path"] + ("/" if (crate / file["path"]).is_dir() else "")]
        assert entity["identifier"] == f"md5:{file['md5']}"
    for entity in found.values():
        if entity["@type"] in ("File", "Dataset") and not entity["@id"].startswith("#"):
            assert (crate / entity["@id"]).exists()


@pytest.mark.slow
def test_every_number_of_a_table_has_its_commit_parameters_and_command(crate: Path) -> None:
    found = entities(crate)
    digests = json.loads((crate / "reports/digests.json").read_text())
    count = 0
    for name in ("table2", "table4", "operations", "experiments"):
        table = json.loads((crate / f"reports/{name}.json").read_text())
        for row in table["rows"]:
            for key, value in row.items():
                if isinstance(value, str):
                    continue
                cell = found[f"#{name}/{row['experiment']}/1/{key}"]
                assert cell["value"] == value
                assert cell["measurementTechnique"] == f"dvc repro evaluate@{row['experiment']}"
                assert cell["version"]
                (parameters,) = names(cell["valueReference"])
                assert found[parameters]["value"] == digests[row["experiment"]]["fingerprint"]
                count += 1
    assert count > 10


@pytest.mark.slow
def test_what_cannot_be_described(crate: Path, tmp_path: Path) -> None:
    def refuses(message: str, change: Callable[[Path], object], *arguments: str) -> None:
        root = shutil.copytree(crate, tmp_path / "project", dirs_exist_ok=True)
        (root / "ro-crate-metadata.json").unlink()
        change(root)
        refused(in_process(root, "report", "--crate", *arguments), message)
        assert not (root / "ro-crate-metadata.json").exists()

    refuses("--crate: expected without --paper and --out", lambda root: None, "--paper")
    history = "runs/osr_ots/history.csv"
    refuses(rf"{history}: not found: fetch it", lambda root: (root / history).unlink())
    refuses(rf"{history}: not the file that", lambda root: (root / history).write_text("epoch\n"))
    refuses(r"dvc\.lock: stages: expected", lambda root: (root / "dvc.lock").write_text("a: 1\n"))
    refuses(r"dvc\.lock: not found: run the pipeline", lambda root: (root / "dvc.lock").unlink())
