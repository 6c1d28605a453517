"""pipelines/: every experiment is valid, and differs from others in what it is to compare."""

from pathlib import Path
from typing import Any, get_args

import pytest

from steadyspike.models import vggsnn
from steadyspike.models.blocks import NormName
from steadyspike.report.methods import method_of
from steadyspike.snn.rules import RULES
from steadyspike.train.config import load_experiments
from steadyspike.train.params import read_yaml
from test_pipeline import REPOSITORY

PIPELINES = REPOSITORY / "pipelines"
PARAMS = sorted(PIPELINES.glob("*/params.yaml"))
NAMES = [path.parent.name for path in PARAMS]


DATASETS = read_yaml(PIPELINES / "dvc.yaml")["stages"]["check_data"]["foreach"]  # by folder
ON_A_CPU = ("cifar10_cpu", "methods", "own_images", "search", "seeds", "weight_decay")
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
    method: dict[str, Any] = {
        "name": True,
        "seeds": True,
        "model": {"norm", "stabilize_threshold", "online"},
    }
    for experiment in small.values():
        assert experiment.model_dump(exclude=method) == small["osr_ots"].model_dump(exclude=method)
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
    "training": {"online_update", "backward_steps", "chunk"},
}


def test_methods_differ_in_the_method_alone() -> None:
    experiments = load_experiments(PIPELINES / "methods" / "params.yaml")
    seeds = load_experiments(PIPELINES / "seeds" / "params.yaml")["osr_ots"]
    for experiment in experiments.values():
        assert experiment.model_dump(exclude=METHOD) == seeds.model_dump(exclude=METHOD)
    assert len({str((one.model, one.training)) for one in experiments.values()}) == 19
    assert {experiment.model.rule for experiment in experiments.values()} == set(RULES)
    used = {experiment.model.norm for experiment in experiments.values()}
    assert used == set(get_args(NormName))
    # Thresholds: fixed and OTS; the latter's other forms are measured of every run.
    assert {experiment.model.stabilize_threshold for experiment in experiments.values()} == {
        True,
        False,
    }


def test_weight_decays_are_of_methods_and_nothing_else_differs() -> None:
    methods = load_experiments(PIPELINES / "methods" / "params.yaml")
    found: dict[str, set[float]] = {}
    for name, one in load_experiments(PIPELINES / "weight_decay" / "params.yaml").items():
        method = methods[name.partition("-wd")[0]]
        found.setdefault(method.name, set()).add(one.training.weight_decay)
        same = {"name": True, "training": {"weight_decay"}}
        assert one.model_dump(exclude=same) == method.model_dump(exclude=same)
    assert len(found) == 6
    assert all(decays == {0.0, 5e-5, 5e-4} for decays in found.values())


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
    method = METHOD | {"training": METHOD["training"] | recorded}
    for experiment in experiments.values():
        assert experiment.model_dump(exclude=method) == paper.model_dump(exclude=method)
        options = experiment.training
        # What the trainer does not record.
        assert options.cuda_graph != (options.online_update or options.backward_steps is not None)
    small = load_experiments(PIPELINES / "methods" / "params.yaml")
    chosen = {"model": METHOD["model"], "training": METHOD["training"] | {"weight_decay"}}
    assert {name: one.model_dump(include=chosen) for name, one in experiments.items()} == {
        name: one.model_dump(include=chosen) for name, one in small.items()
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
