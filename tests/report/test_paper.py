"""The paper's numbers, and the experiments of this repository that measure them."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from report import samples
from steadyspike.report.methods import METHODS, method_of
from steadyspike.report.paper import (
    TABLES,
    Cell,
    cells,
    expected_settings,
    nearest_cell,
    own_cells,
    paper,
)
from steadyspike.snn.rules import RULES
from steadyspike.train.config import Experiment, load_experiments
from steadyspike.train.params import merge

PIPELINES = Path(__file__).parents[2] / "pipelines"
NAMES = [f"{cell.table} {cell.run} {cell.metric}" for cell in own_cells()]


def experiment_of(cell: Cell) -> Experiment:
    return load_experiments(PIPELINES / cell.dataset / "params.yaml")[cell.experiment]


def test_how_many_cells_each_table_and_figure_has() -> None:
    counts = {table: len([c for c in own_cells() if c.table == table]) for table in TABLES}
    assert counts == {
        "table1": 9,
        "table2": 4,
        "table4": 16,
        "figure2a": 2,
        "figure2b": 4,
        "figure3": 1,
        "appendix_e": 3,
    }
    assert {table for table, part in paper().items() if "rows" in part} == set(TABLES)


# Written down a second time, from the paper, as its methods are in samples.py.
STEPS = {"cifar10": 4, "cifar100": 4, "dvs_gesture": 20, "cifar10_dvs": 10, "imagenet": 4}


@pytest.mark.parametrize("cell", own_cells(), ids=NAMES)
def test_its_experiment_has_the_papers_settings(cell: Cell) -> None:
    experiment = experiment_of(cell)
    assert cell.fits(experiment)
    assert cell.differences(experiment) == []
    model = experiment.model
    method = samples.settings(cell.method).model
    assert (model.norm, model.online) == (method.norm, method.online)
    assert model.stabilize_threshold == method.stabilize_threshold
    assert model.name == cell.architecture.lower().replace("resnet-", "resnet").replace("-", "_")
    assert experiment.dataset.name == cell.dataset
    assert experiment.evaluation.steps == STEPS[cell.dataset]
    assert cell.steps in (None, experiment.evaluation.steps)
    assert cell.weight_decay in (None, experiment.training.weight_decay)
    events = cell.dataset in ("dvs_gesture", "cifar10_dvs")
    assert model.fallback_ratio == (50 if events else 20)


OTHERS: Mapping[str, Any] = {
    "dataset.augmentation": "none",
    "model.norm": "linear",
    "model.stabilize_threshold": False,
    "model.tau": 3.0,
    "model.v_threshold": 0.5,
    "model.dropout": 0.3,
    "model.widths": [8],
    "model.head": "gesture",
    "training.epochs": 7,
    "training.batch": 7,
    "dataset.validation": 7,
    "training.steps": 7,
    "training.learning_rate": 0.7,
    "training.momentum": 0.7,
    "training.weight_decay": 0.7,
    "training.mse_weight": 0.7,
    "evaluation.steps": 7,
}


@pytest.mark.parametrize("key", OTHERS)
def test_any_other_setting_is_a_difference(key: str) -> None:
    cell = cells("table1")[4]
    section, name = key.split(".")
    content = merge(experiment_of(cell).model_dump(), {section: {name: OTHERS[key]}})
    other = Experiment.model_validate(content)
    expected = expected_settings(cell)[key]
    instead = "the default" if expected is None else expected
    assert cell.differences(other) == [f"{key} {OTHERS[key]} instead of {instead}"]
    assert cell.fits(other) == (key not in ("model.norm", "model.stabilize_threshold"))


def test_memory_depends_on_neither_epochs_nor_learning_rate() -> None:
    cell = cells("figure2a")[0]
    content = experiment_of(cell).model_dump()
    content["training"] |= {"epochs": 3, "learning_rate": 0.5, "batch": 7}
    other = Experiment.model_validate(content)
    assert cell.differences(other) == ["training.batch 7 instead of 128"]


def test_rows_of_one_table_have_different_names() -> None:
    for table in TABLES:
        rows = [(cell.row, cell.column) for cell in cells(table) if not cell.quoted]
        assert len(rows) == len(set(rows)), table
    assert "ImageNet, SEW-ResNet-34, OSR, weight decay 0.00002" in {c.row for c in own_cells()}


@pytest.mark.parametrize(
    ("dataset", "network", "method", "weight_decay", "accuracy"),
    [
        ("cifar10", "vggsnn", "osr", 0.0002, 94.05),
        ("cifar100", "resnet19", "osr", 0.0005, 74.03),
        ("imagenet", "sew_resnet34", "osr", 0.0, 61.92),
        ("imagenet", "sew_resnet34", "osr", 0.00002, 54.97),
        ("imagenet", "nf_resnet34", "osr_ots", 0.00002, 67.54),
        ("embedded", "vggsnn", "osr", 0.0005, 94.05),
        ("embedded", "vggsnn", "linear", 0.0005, 53.25),
        ("embedded", "vggsnn", "bptt", 0.0005, None),
        ("cifar10", "vggsnn", "ots", 0.0005, None),
    ],
)
def test_the_nearest_setting_of_the_paper(
    dataset: str, network: str, method: str, weight_decay: float, accuracy: float | None
) -> None:
    content = samples.settings(method).model_dump()
    content["dataset"]["name"], content["training"]["weight_decay"] = dataset, weight_decay
    content["model"] |= {"name": network, "widths": None}
    for key in ("head", "head_widths") if network != "vggsnn" else ():
        content["model"].pop(key)
    cell = nearest_cell("table4", Experiment.model_validate(content))
    assert (cell.value if cell else None) == accuracy


SWITCHES = ("norm", "stabilize_threshold", "online", "warm_up_statistics")


def test_each_method_has_one_name_and_its_own_look() -> None:
    model = samples.settings("osr").model
    methods = [
        method_of(model.model_copy(update=dict(zip(SWITCHES, values, strict=True))))
        for values in itertools.product(
            ("osr", "per_step", "linear", "batch"), (False, True), (False, True), (False, True)
        )
    ]
    assert len({method.label for method in methods}) == len(methods)
    ours = model.model_copy(update={"warm_up_statistics": True})
    assert method_of(ours).label == "OSR, warmed up (ours)"
    assert method_of(ours).key not in METHODS
    looks = {(method.colour, method.marker) for method in [*METHODS.values(), method_of(ours)]}
    assert len(looks) == len(METHODS) + 1
    for look in ("colour", "marker", "dashes"):
        assert len({getattr(method, look) for method in METHODS.values()}) == len(METHODS)


def test_rules_and_norms_that_the_paper_lacks_have_names_of_their_own() -> None:
    model = samples.settings("osr").model
    norms = ("osr", "per_step", "linear", "ws", "bntt", "tab")
    methods = [
        method_of(model.model_copy(update={"rule": rule, "norm": norm, "stabilize_threshold": ots}))
        for rule, norm, ots in itertools.product((*RULES, "slow"), norms, (False, True))
    ]
    assert len({method.label for method in methods}) == len({m.key for m in methods}) == 60
    added = [method for method in methods if method.key not in METHODS]
    assert len(added) == 60 - 5
    labels = {method.label for method in added}
    assert {
        "OTTT + weight standardization",
        "NDOT + OSR + OTS",
        "TAB + OTS",
        "slow + OSR",
    } <= labels


def test_the_papers_tables_agree_with_each_other() -> None:
    """Tables 1 and 4 share settings; the means of Figure 2b are Table 2, as read off a plot."""
    four = {(c.setting, c.method): c for c in cells("table4") if c.source == "Table 4"}
    shared = [
        (cell, four[cell.setting, cell.method])
        for cell in cells("table1")
        if (cell.setting, cell.method) in four
    ]
    assert len(shared) == 6
    for one, other in shared:
        assert (one.value, one.weight_decay) == (other.value, other.weight_decay)
    gross = {cell.method: cell.value for cell in cells("table2")}
    for cell in cells("figure2b"):
        mean = 100 * sum(cell.rates) / len(cell.rates)
        assert mean == pytest.approx(gross[cell.method], abs=0.6)
