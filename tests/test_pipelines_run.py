"""Small copies of pipelines/, run by DVC: they fill the paper's tables."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from data import test_cifar
from steadyspike.data.cifar import CIFAR10
from steadyspike.report.paper import own_cells
from steadyspike.report.table import MARK
from steadyspike.train.config import load_experiments
from steadyspike.train.params import merge
from test_pipeline import REPOSITORY, dvc_environment
from test_pipelines import NAMES

TINY: dict[str, Any] = {
    "device": "cpu",
    "training": {"epochs": 2, "batch": 4},
    "evaluation": {"batch": 4},
}
# Widths of 8: oneDNN hangs in the gradient of a 1x1 convolution of stride 2 with fewer channels.
NETWORKS: dict[str, Any] = {
    "vggsnn": {"widths": [4, "P", 4, "P", 8]},
    "resnet19": {"widths": [8, 8, 8], "blocks": [1, 1, 1], "hidden_width": 8},
    "sew_resnet34": {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]},
    "nf_resnet34": {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]},
}
DATA: dict[str, Any] = {
    "cifar10": {"training": {"batch": 10}, "evaluation": {"batch": 8}, "seeds": [0, 1]},
}


def shrink(path: Path) -> None:
    """Edit a params.yaml to few epochs and narrow networks on the CPU."""
    document = yaml.safe_load(path.read_text())
    experiments = load_experiments(path)
    document["defaults"] = merge(document["defaults"], merge(TINY, DATA.get(path.parent.name, {})))
    for name, overrides in document["experiments"].items():
        model = dict(NETWORKS[experiments[name].model.name])
        if document["defaults"]["model"].get("head"):
            model["head_widths"] = [8, 8]
        document["experiments"][name] = merge(overrides, {"model": model})
    path.write_text(yaml.safe_dump(document, sort_keys=False))


class Project:
    """A copy of the repository whose pipelines are small, and small data sets elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root, self.data = root / "repository", root / "data"
        names = ("__pycache__", "runs", "reports", "dvc.lock", "cache", "tmp")
        ignored = shutil.ignore_patterns(*names)
        for name in ("src", "pipelines"):
            shutil.copytree(REPOSITORY / name, self.root / name, symlinks=True, ignore=ignored)
        shutil.copy(REPOSITORY / "requirements.lock", self.root)
        for name in NAMES:
            shrink(self.root / "pipelines" / name / "params.yaml")
        self.dvc("config", "core.no_scm", "true")

    def lay_data(self) -> None:
        """Write CIFAR-10 with few images, and its checksums into the copied code."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(test_cifar, "COUNT", 8)  # images a file
            folder = self.data / CIFAR10.name / CIFAR10.reader.base_folder
            small = test_cifar.lay(CIFAR10, folder)
        with (self.root / "src/steadyspike/data/cifar.py").open("a") as code:
            for name, value in small.items():
                code.write(f"\nCIFAR10.reader.{name} = {value!r}")

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command line, given at the root."""
        environment = dvc_environment(self.root) | {
            "STEADYSPIKE_DATA": str(self.data),
            "STEADYSPIKE_WORKERS": "0",
            # The first of many processes compiles for all.
            "PYTHONPYCACHEPREFIX": str(self.root.parent / "compiled"),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300
        )

    def dvc(self, *arguments: str) -> str:
        """What `dvc` prints in pipelines/."""
        done = self.run("dvc", "--cd", "pipelines", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one of the paper's tables."""
        path = self.root / "pipelines" / "paper" / "reports" / f"{table}.json"
        rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
        return rows

    def figure(self, name: str) -> list[dict[str, str]]:
        """The data of one of the paper's figures."""
        path = self.root / "pipelines" / "paper" / "reports" / f"{name}.csv"
        return list(csv.DictReader(path.read_text().splitlines()))


OURS = "cifar10/vggsnn-osr_ots"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("small"))


@pytest.mark.slow
def test_without_the_data_one_line_says_what_to_fetch(project: Project) -> None:
    done = project.run("dvc", "--cd", "pipelines", "repro", "report@imagenet-sew_resnet34-osr_ots")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("steadyspike: ")]
    assert "ImageNet must be downloaded by hand" in line
    assert "run `steadyspike fetch imagenet` again" in line
    assert not (project.root / "pipelines" / "imagenet" / "runs").exists()


@pytest.fixture(scope="module")
def reproduced(project: Project) -> Project:
    """An experiment and Figure 2a, by the commands that the report lists for their cells."""
    project.lay_data()
    commands = {
        cell.command
        for cell in own_cells()
        if cell.run == OURS and cell.metric in ("accuracy", "memory")
    }
    assert len(commands) == 2
    for command in sorted(commands):
        done = project.run(*command.split())
        assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.mark.slow
def test_a_command_fills_its_cells_and_no_others(reproduced: Project) -> None:
    for table in ("table1", "table4"):
        for row in reproduced.rows(table):
            if row.get("source"):
                assert (row["accuracy_last"], row["experiment"]) == ("quoted", "")
            elif row["experiment"] != OURS:
                assert row["accuracy_last"] == row["accuracy_best"] == "not run"
            else:
                assert 0 <= row["accuracy_last"] <= row["accuracy_best"] <= 100
                difference = row["accuracy_best"] - row["paper"]
                assert row["difference"] == pytest.approx(difference, abs=0.011)
                assert row["epochs"] == 2
                assert row["seeds"] == 2
                assert row["accuracy_best_std"] != ""
    rates = {row["gross_firing_rate"] for row in reproduced.rows("table2")}
    assert rates == {"not run", "quoted"}


@pytest.mark.slow
def test_memory_is_flat_online_and_grows_with_bptt(reproduced: Project) -> None:
    lines: dict[str, dict[int, float]] = {"online": {}, "bptt": {}}
    for row in reproduced.figure("figure2a"):
        if row["chunk"] in ("1", "T"):
            lines[row["method"]][int(row["steps"])] = float(row["megabytes"])
    assert list(lines["online"]) == [2, 4, 6, 8, 10, 15, 20, 25, 30]
    assert len(set(lines["online"].values())) == 1
    assert lines["bptt"][30] > 10 * lines["bptt"][2]


@pytest.mark.slow
def test_the_tables_say_that_a_small_copy_is_not_the_papers_network(reproduced: Project) -> None:
    path = reproduced.root / "pipelines" / "paper" / "reports" / "table4.json"
    notes = "\n".join(json.loads(path.read_text())["notes"])
    for piece in (
        f"{OURS} differs from the paper: ",
        "training.epochs 2 instead of 300",
        "model.widths [4, 'P', 4, 'P', 8] instead of the default",
    ):
        assert piece in notes


@pytest.mark.slow
def test_a_second_run_only_checks_the_data(reproduced: Project) -> None:
    out = reproduced.dvc("repro", "report@cifar10-vggsnn-osr_ots")
    assert re.findall("Running stage '(.*)'", out) == ["check_data@cifar10"]
    for stage in ("train", "evaluate", "report"):
        assert f"Stage '{stage}@cifar10-vggsnn-osr_ots' didn't change, skipping" in out


@pytest.mark.slow
def test_every_listed_command_names_a_stage(project: Project) -> None:
    stages = set(project.dvc("stage", "list", "--name-only").split())
    done = project.run("steadyspike", "report", "--list")
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["TABLE", "ROW", "COLUMN", "STATE", "COMMAND"]
    lines = [line for line in lines if not line.startswith(MARK)]  # less what was trained shorter
    for line, cell in zip(lines, own_cells(), strict=True):
        assert line.startswith(cell.number)
        assert line.endswith(f"  {cell.command}")
        assert cell.command.removeprefix("dvc --cd pipelines repro ") in stages
