"""pipelines/: every experiment as the paper has it, and small twins run from data to tables."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data import test_cifar
from data.event_files import write_zip
from data.test_cifar10_dvs import recording
from data.test_dvs_gesture import archive as lay_gesture
from data.test_imagenet import SMALL
from data.test_imagenet import lay_folders as lay_imagenet
from steadyspike.data import cifar10_dvs
from steadyspike.data.cifar import CIFAR10, CIFAR100
from steadyspike.data.dvs_gesture import MD5
from steadyspike.data.fashion_mnist import CONTENTS, FILES
from steadyspike.data.idx import encode_idx, write_idx
from steadyspike.data.manifest import bytes_sum
from steadyspike.report.cells import cells
from steadyspike.train.config import load_experiments
from steadyspike.train.params import merge, read_yaml

REPOSITORY = Path(__file__).parents[1]
PIPELINES = sorted(path.parent for path in REPOSITORY.glob("pipelines/*/params.yaml"))
NAMES = [folder.name for folder in PIPELINES]


def test_there_is_one_for_each_data_set() -> None:
    assert NAMES == [
        "cifar10",
        "cifar100",
        "cifar10_dvs",
        "dvs_gesture",
        "fashion_mnist",
        "imagenet",
    ]


@pytest.mark.parametrize("folder", PIPELINES, ids=NAMES)
def test_every_experiment_is_valid_and_of_the_folders_data_set(folder: Path) -> None:
    for name, experiment in load_experiments(folder / "params.yaml").items():
        assert experiment.dataset.name == folder.name
        assert experiment.device == "cuda"
        assert name.startswith(f"{experiment.model.name}-")
        # OTS sees the batch: the accuracies are of the training batch, as the released code's.
        assert experiment.evaluation.batch == experiment.training.batch


@pytest.mark.parametrize("folder", PIPELINES, ids=NAMES)
def test_stages_depend_on_what_the_roots_depend_on(folder: Path) -> None:
    root, own = (read_yaml(path / "dvc.yaml")["stages"] for path in (REPOSITORY, folder))
    for stage in ("train", "evaluate", "memory"):
        if stage in own:
            theirs, ours = (_code(stages[stage]) for stages in (root, own))
            assert ours == theirs, stage
    # Training learns of data from the checked manifest alone.
    runs = f"pipelines/{folder.name}/runs"
    data = [d for d in own["train"]["do"]["deps"] if not d.startswith(("src/", "requirements"))]
    assert data == own["check_data"]["outs"] == [f"{runs}/data.json"]


def _code(stage: Mapping[str, Any]) -> set[str]:
    deps = stage.get("do", stage)["deps"]
    return {dep for dep in deps if dep.startswith(("src/", "requirements"))}


@pytest.mark.parametrize("folder", PIPELINES, ids=NAMES)
def test_the_opening_gives_reference_command_hardware_and_accuracy(folder: Path) -> None:
    text = (folder / "params.yaml").read_text()
    opening = text[: text.index("defaults:")]
    for word in (f"dvc repro pipelines/{folder.name}/dvc.yaml:report@", "Hardware:", "estimated"):
        assert word in opening
    assert "accuracy" in opening
    # Each number of the paper's that is to be expected, and no experiment left out.
    for cell in cells():
        if cell.pipeline == folder.name and "accuracy" in cell.paper:
            assert f"{cell.paper['accuracy']:.2f}" in opening, cell.row


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
    "cifar10_dvs": {"training": {"batch": 30}, "evaluation": {"batch": 10}},
}


def shrink(path: Path) -> None:
    """A params.yaml made small: few epochs, narrow networks, on the CPU; nothing else changes."""
    document = yaml.safe_load(path.read_text())
    experiments = load_experiments(path)
    document["defaults"] = merge(document["defaults"], merge(TINY, DATA.get(path.parent.name, {})))
    for name, overrides in document["experiments"].items():
        model = dict(NETWORKS[experiments[name].model.name])
        if document["defaults"]["model"].get("head"):
            model["head_widths"] = [8, 8]
        document["experiments"][name] = merge(overrides, {"model": model})
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def replace(path: Path, changes: Mapping[str, str]) -> None:
    """Each text that a file has once, by another."""
    text = path.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{path}: {old}"
        text = text.replace(old, new)
    path.write_text(text)


def lay_cifar10_dvs(folder: Path) -> dict[str, str]:
    """Ten recordings of each class; the known MD5 of each archive by that of the small one."""
    sums = {}
    for label, (name, (_, md5)) in enumerate(cifar10_dvs.ARCHIVES.items()):
        archive = folder / f"{name}.zip"
        made = {f"{name}/cifar10_{name}_{n}.aedat": recording(label, n) for n in range(10)}
        write_zip(archive, made)
        sums[md5] = hashlib.md5(archive.read_bytes()).hexdigest()
    return sums


def lay_fashion_mnist(folder: Path) -> dict[str, str]:
    """Twenty images of either split; the known sums by those of the small files."""
    random = np.random.default_rng(0)
    sums = {}
    for images, labels in FILES.values():
        arrays = {
            images: random.integers(0, 256, (20, 28, 28), dtype=np.uint8),
            labels: (np.arange(20) % 10).astype(np.uint8),
        }
        for name, array in arrays.items():
            write_idx(folder / f"{name}.gz", array)
            known, small = CONTENTS[name], bytes_sum(encode_idx(array))
            sums[f'"{known.sha256}", {known.size}'] = f'"{small.sha256}", {small.size}'
    return sums


class Project:
    """A copy of the repository whose pipelines are small, and small data sets elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root, self.data = root / "repository", root / "data"
        ignored = shutil.ignore_patterns("__pycache__", "runs", "reports", "dvc.lock")
        for name in ("src", "pipelines"):
            shutil.copytree(REPOSITORY / name, self.root / name, ignore=ignored)
        shutil.copy(REPOSITORY / "requirements.lock", self.root)
        for name in NAMES:
            shrink(self.root / "pipelines" / name / "params.yaml")
        self.dvc("init", "--no-scm", "--quiet")

    def lay_data(self) -> None:
        """Files in the real formats; the copy of the sources expects their sums and counts."""
        sources = self.root / "src" / "steadyspike" / "data"
        for kind in (CIFAR10, CIFAR100):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(test_cifar, "COUNT", 8)  # images a file
                known = test_cifar.lay(kind, self.data / kind.name / kind.folder)
            sums = {md5: known.files[name] for name, md5 in kind.files.items()}
            replace(sources / "cifar.py", sums)
        replace(sources / "cifar10_dvs.py", lay_cifar10_dvs(self.data / "cifar10_dvs"))
        replace(sources / "fashion_mnist.py", lay_fashion_mnist(self.data / "fashion_mnist"))
        replace(sources / "dvs_gesture.py", {MD5: lay_gesture(self.data)})
        lay_imagenet(self.data)
        replace(
            sources / "imagenet.py",
            {
                'Expected(1000, {"train": 1_281_167, "val": 50_000})': (
                    f"Expected({SMALL.classes}, {SMALL.images})"
                )
            },
        )

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        own = self.root.parent
        environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "STEADYSPIKE_DATA": str(self.data),
            "STEADYSPIKE_WORKERS": "0",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(own / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(own / "config"),
            "DVC_SYSTEM_CONFIG_DIR": str(own / "config"),
            # Twenty processes start: let the first compile for all.
            "PYTHONPYCACHEPREFIX": str(own / "compiled"),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def dvc(self, *arguments: str) -> str:
        done = self.run("dvc", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def steadyspike(self, *arguments: str) -> str:
        done = self.run("steadyspike", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Those of one of the paper's joined tables."""
        path = self.root / "pipelines" / "paper" / "reports" / f"{table}.json"
        rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
        return rows


OURS = {
    "cifar10/vggsnn-osr_ots",
    "cifar100/vggsnn-osr_ots",
    "cifar10_dvs/vggsnn-osr_ots",
    "dvs_gesture/vggsnn-osr_ots",
    "imagenet/sew_resnet34-osr_ots",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("twin"))


def test_without_the_data_one_line_says_what_to_fetch(project: Project) -> None:
    target = "pipelines/imagenet/dvc.yaml:report@sew_resnet34-osr_ots"
    done = project.run("dvc", "repro", target)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("steadyspike: ")]
    assert len(told) == 1
    assert "ImageNet must be downloaded by hand" in told[0]
    assert "run `steadyspike fetch imagenet` again" in told[0]
    assert not (project.root / "pipelines" / "imagenet" / "runs").exists()


@pytest.fixture(scope="module")
def reproduced(project: Project) -> Project:
    """Of every pipeline one experiment, by the command of its cell, and Figure 2a."""
    project.lay_data()
    commands = {
        cell.command
        for cell in cells()
        if cell.run in OURS and (cell.metric in ("accuracy", "memory") or "imagenet" in cell.run)
    }
    assert len(commands) == len(OURS) + 1  # Figure 2a is a command of its own
    targets = [command.removeprefix("dvc repro ") for command in sorted(commands)]
    project.dvc("repro", *targets, "pipelines/fashion_mnist/dvc.yaml:report@vggsnn-osr_ots")
    return project


def test_a_command_fills_its_cells_and_no_others(reproduced: Project) -> None:
    for table in ("table1", "table4"):
        for row in reproduced.rows(table):
            if row.get("source"):
                assert (row["last"], row["best"], row["experiment"]) == ("quoted", "quoted", "")
            elif row["experiment"] not in OURS:
                assert (row["last"], row["best"]) == ("not run", "not run")
            else:
                assert 0 <= row["last"] <= row["best"] <= 100
                assert row["difference"] == pytest.approx(row["best"] - row["paper"], abs=0.011)
                assert row["epochs"] == 2
                seeds = 2 if row["experiment"].startswith("cifar10/") else 1
                assert row["seeds"] == seeds
                assert (row["best_std"] is None) == (seeds == 1)
    rates = {row["method"]: row for row in reproduced.rows("table2")}
    assert 0 < rates["OSR + OTS"]["ours"] < 100
    assert rates["OSR"]["ours"] == "not run"
    steps = {row["method"]: row for row in reproduced.rows("figure2b")}
    assert sum(steps["OSR + OTS"][f"ours_{n}"] for n in range(1, 5)) / 4 == pytest.approx(
        rates["OSR + OTS"]["ours"], abs=0.02
    )
    appendix = {row["change"].split()[0]: row for row in reproduced.rows("appendix_e")}
    assert appendix["linear"]["last"] == "not run"
    for way in ("thresholds", "one"):
        assert 0 <= appendix[way]["last"] <= 100
        assert appendix[way]["best"] == "not measured"


def test_a_data_set_that_is_not_the_papers_has_its_own_report(reproduced: Project) -> None:
    path = reproduced.root / "pipelines" / "fashion_mnist" / "reports" / "table4.json"
    rows = {row["experiment"]: row for row in json.loads(path.read_text())["rows"]}
    assert 0 <= rows["vggsnn-osr_ots"]["accuracy_last"] <= 100
    assert rows["vggsnn-osr"]["accuracy_last"] == "not run"


def test_memory_is_flat_online_and_grows_with_bptt(reproduced: Project) -> None:
    rows = reproduced.rows("figure2a")
    assert [row["steps"] for row in rows] == [2, 4, 6, 8, 10, 15, 20, 25, 30]
    assert len({row["online"] for row in rows}) == 1
    assert rows[-1]["bptt"] > 10 * rows[0]["bptt"]


def test_the_tables_say_that_a_twin_is_not_the_papers_network(reproduced: Project) -> None:
    path = reproduced.root / "pipelines" / "paper" / "reports" / "table1.json"
    notes = "\n".join(json.loads(path.read_text())["notes"])
    for piece in (
        "imagenet/sew_resnet34-osr_ots is not as in the paper: ",
        "training.epochs 2 instead of 100",
        "model.widths [8, 8, 8, 8] instead of the paper's",
    ):
        assert piece in notes


def test_a_second_run_trains_nothing(reproduced: Project) -> None:
    target = "pipelines/dvs_gesture/dvc.yaml:report@vggsnn-osr_ots"
    told = reproduced.dvc("repro", target)
    for stage in ("train", "evaluate", "report"):
        name = f"pipelines/dvs_gesture/dvc.yaml:{stage}@vggsnn-osr_ots"
        assert f"Stage '{name}' didn't change, skipping" in told
    # But it has looked at the data again.
    assert "Running stage 'pipelines/dvs_gesture/dvc.yaml:check_data'" in told


def test_every_listed_command_names_a_stage(reproduced: Project) -> None:
    stages = set(reproduced.dvc("stage", "list", "--all", "--name-only").split())
    header, *lines = reproduced.steadyspike("report", "--list").splitlines()
    assert header.split() == ["TABLE", "ROW", "COLUMN", "STATE", "COMMAND"]
    assert len(lines) == len(cells())
    for line, cell in zip(lines, cells(), strict=True):
        assert line.startswith(cell.table)
        assert cell.row in line
        state = line.split(cell.column)[-1].split("dvc repro")[0].strip()
        memory = cell.metric == "memory"
        done = memory or _state(reproduced, cell.pipeline, cell.experiment) == "run"
        assert state == ("run" if done else "not run"), line
        assert line.endswith(f"  {cell.command}")
        assert cell.command.removeprefix("dvc repro ") in stages


def _state(project: Project, pipeline: str, experiment: str) -> str:
    path = project.root / "pipelines" / pipeline / "runs" / experiment / "metrics.json"
    return "run" if path.exists() else "not run"
