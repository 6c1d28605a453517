"""pipelines/: every experiment is valid, and small copies fill the paper's tables."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from data import test_cifar
from steadyspike.data.cifar import CIFAR10
from steadyspike.models import vggsnn
from steadyspike.models.blocks import NormName
from steadyspike.report.methods import method_of
from steadyspike.report.paper import own_cells
from steadyspike.report.table import MARK
from steadyspike.snn.rules import RULES
from steadyspike.train.config import load_experiments
from steadyspike.train.params import merge, read_yaml
from test_pipeline import REPOSITORY, dvc_environment

PIPELINES = REPOSITORY / "pipelines"
PARAMS = sorted(PIPELINES.glob("*/params.yaml"))
NAMES = [path.parent.name for path in PARAMS]


DATASETS = read_yaml(PIPELINES / "dvc.yaml")["stages"]["check_data"]["foreach"]  # by folder
ON_A_CPU = ("cifar10_cpu", "methods", "own_images", "search", "seeds")
METHODS_ON_A_GPU = {"methods_cifar10": "cifar10", "methods_cifar100": "cifar100"}


def test_every_folder_has_its_data_checked() -> None:
    assert sorted(DATASETS) == NAMES


@pytest.mark.parametrize("path", PARAMS, ids=NAMES)
def test_every_experiment_is_valid_and_of_the_folders_data_set(path: Path) -> None:
    folder = path.parent.name
    for name, experiment in load_experiments(path).items():
        assert experiment.dataset.name == DATASETS[folder]
        # OTS depends on the batch; the released code evaluates with the training batch.
        assert experiment.evaluation.batch == experiment.training.batch
        if folder in ON_A_CPU:
            assert experiment.device == "cpu"
            continue
        assert experiment.device == "cuda"
        if folder not in METHODS_ON_A_GPU:
            assert folder == experiment.dataset.name
            assert name.startswith(f"{experiment.model.name}-")


def test_cifar10_on_a_cpu_compares_the_methods_alone() -> None:
    small = load_experiments(PIPELINES / "cifar10_cpu" / "params.yaml")
    methods = {name: method_of(experiment.model).key for name, experiment in small.items()}
    assert methods == {name: name for name in ("per_step", "bptt", "ots", "osr", "osr_ots")}
    changed = ("norm", "stabilize_threshold", "online")
    for experiment in small.values():
        common = small["osr_ots"].model_dump(exclude={"name": True, "model": set(changed)})
        assert experiment.model_dump(exclude={"name": True, "model": set(changed)}) == common
    paper = load_experiments(PIPELINES / "cifar10" / "params.yaml")["vggsnn-osr_ots"]
    assert small["osr_ots"].dataset == paper.dataset
    assert len(small["osr_ots"].model.widths) == len(vggsnn.WIDTHS)


def test_seeds_repeats_the_roots_experiments() -> None:
    root = load_experiments(REPOSITORY / "params.yaml")
    ours = load_experiments(PIPELINES / "seeds" / "params.yaml")
    for name, experiment in root.items():
        assert ours[name] == experiment.model_copy(update={"seeds": [0, 1, 2, 3, 4]})
    for name in ours.keys() - root.keys():
        alike = root[name.removesuffix("_warm")].model
        warmed_up = alike.model_copy(update={"warm_up_statistics": True})
        assert ours[name] == ours["osr"].model_copy(update={"name": name, "model": warmed_up})


METHOD: dict[str, Any] = {
    "name": True,
    "model": {"rule", "norm", "stabilize_threshold", "online"},
    "training": {"weight_decay", "online_update", "backward_steps", "chunk"},
}


def test_methods_differ_in_the_method_and_its_weight_decay_alone() -> None:
    experiments = load_experiments(PIPELINES / "methods" / "params.yaml")
    seeds = load_experiments(PIPELINES / "seeds" / "params.yaml")["osr_ots"]
    for experiment in experiments.values():
        assert experiment.model_dump(exclude=METHOD) == seeds.model_dump(exclude=METHOD)
    decays: dict[Any, dict[str, float]] = {}
    for name, experiment in experiments.items():
        own = experiment.training.model_copy(update={"weight_decay": 0.0})
        key = str((experiment.model, own))
        decays.setdefault(key, {})[name] = experiment.training.weight_decay
    assert len(decays) == 18
    for names in decays.values():
        first, *_ = names
        assert names == {first: 5e-4, f"{first}-wd5e-5": 5e-5, f"{first}-wd0": 0.0}
    assert {experiment.model.rule for experiment in experiments.values()} == set(RULES)
    used = {experiment.model.norm for experiment in experiments.values()}
    assert used == set(get_args(NormName))
    # Thresholds: fixed and OTS; the latter's other forms are measured of every run.
    assert {experiment.model.stabilize_threshold for experiment in experiments.values()} == {
        True,
        False,
    }


def test_the_search_has_the_protocol_of_methods_and_no_test_images() -> None:
    ours = load_experiments(PIPELINES / "methods" / "params.yaml")["osr_ots"]
    tried = load_experiments(PIPELINES / "search" / "params.yaml")
    method = {
        "name": True,
        "seeds": True,
        "dataset": {"validation"},
        "model": {"rule", "norm", "warm_up_statistics"},
        "training": {"online_update", "backward_steps", "chunk"},
    }
    for experiment in tried.values():
        assert experiment.model_dump(exclude=method) == ours.model_dump(exclude=method)
        assert experiment.dataset.validation == 1000
    assert next(iter(tried.values())).model == ours.model
    combinations = {str((one.model, one.training)) for one in tried.values()}
    assert len(combinations) == len(tried)


@pytest.mark.parametrize("folder", METHODS_ON_A_GPU)
def test_methods_on_a_gpu_are_those_on_a_cpu_in_the_papers_protocol(folder: str) -> None:
    experiments = load_experiments(PIPELINES / folder / "params.yaml")
    dataset = METHODS_ON_A_GPU[folder]
    paper = load_experiments(PIPELINES / dataset / "params.yaml")["vggsnn-osr_ots"]
    recorded = {"cuda_graph"}
    method = METHOD | {"training": METHOD["training"] - {"weight_decay"} | recorded}
    for experiment in experiments.values():
        assert experiment.model_dump(exclude=method) == paper.model_dump(exclude=method)
        options = experiment.training
        # What the trainer does not record.
        assert options.cuda_graph != (options.online_update or options.backward_steps is not None)
    small = load_experiments(PIPELINES / "methods" / "params.yaml")
    first = {name: one for name, one in small.items() if one.training.weight_decay == 5e-4}
    chosen = {"model": METHOD["model"], "training": METHOD["training"]}
    assert {name: one.model_dump(include=chosen) for name, one in experiments.items()} == {
        name: one.model_dump(include=chosen) for name, one in first.items()
    }


def test_methods_on_a_gpu_differ_in_the_data_set_alone() -> None:
    ten, hundred = (
        {
            name: one.model_dump(exclude={"dataset": {"name"}})
            for name, one in load_experiments(PIPELINES / folder / "params.yaml").items()
        }
        for folder in METHODS_ON_A_GPU
    )
    assert ten == hundred


def test_every_experiment_has_its_stages() -> None:
    (variables,) = read_yaml(PIPELINES / "dvc.yaml")["vars"]
    assert variables["cells"] == {
        f"{path.parent.name}-{name}": {"data": path.parent.name, "experiment": name}
        for path in PARAMS
        for name in load_experiments(path)
    }


def test_figure_2a_has_a_stage_where_there_is_bptt_to_compare_with() -> None:
    stage = read_yaml(PIPELINES / "dvc.yaml")["stages"]["memory"]["foreach"]
    for path in PARAMS:
        experiments = load_experiments(path)
        bptt = [name for name, one in experiments.items() if not one.model.online]
        assert (path.parent.name in stage) == bool(bptt)
        for key, online in {"online": True, "bptt": False}.items() if bptt else ():
            model = experiments[stage[path.parent.name][key]].model
            assert (model.online, model.stabilize_threshold) == (online, online)


@pytest.mark.parametrize("stage", ["train", "evaluate", "memory"])
def test_stages_depend_on_the_same_code_as_the_roots(stage: str) -> None:
    ours, roots = (
        read_yaml(path / "dvc.yaml")["stages"][stage] for path in (PIPELINES, REPOSITORY)
    )
    code = {dep for dep in roots.get("do", roots)["deps"] if dep[:3] in ("src", "req")}
    assert code <= {dep.removeprefix("../") for dep in ours["do"]["deps"]}


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
