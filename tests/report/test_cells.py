"""Every own cell of the paper's has an experiment that measures it, with the paper's settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from steadyspike.report.agreement import departures, expected
from steadyspike.report.cells import Cell, cells, cells_of
from steadyspike.report.paper import paper
from steadyspike.train.config import Experiment, load_experiments

PIPELINES = Path(__file__).parents[2] / "pipelines"
NAMES = [f"{cell.place} {cell.run} {cell.metric}" for cell in cells()]


def experiment_of(cell: Cell) -> Experiment:
    return load_experiments(PIPELINES / cell.pipeline / "params.yaml")[cell.experiment]


def test_every_own_cell_of_the_paper_has_an_entry() -> None:
    one, two, four = (paper()[table] for table in ("table1", "table2", "table4"))
    own = [place for place, row in enumerate(one["rows"]) if "quoted" not in row]
    assert list(cells_of("table1")) == own
    assert set(cells_of("table2")) == set(two["rates"]) - set(two["quoted"])
    assert list(cells_of("table4")) == list(range(len(four["rows"])))
    assert set(cells_of("figure2a")) == set(paper()["figure2a"]["megabytes"])
    assert set(cells_of("figure2b")) == set(paper()["figure2b"]["rates"])
    assert set(cells_of("figure3")) == {paper()["figure3"]["setting"]["method"]}
    assert set(cells_of("appendix_e")) == set(paper()["appendix_e"]) - {"source"}
    places = {place for place, part in paper().items() if "source" in part} - {"training"}
    assert {cell.place for cell in cells()} == places
    assert len(cells()) == 9 + 4 + 16 + 2 + 4 + 1 + 3


@pytest.mark.parametrize("cell", cells(), ids=NAMES)
def test_its_experiment_has_the_papers_settings(cell: Cell) -> None:
    assert departures(cell, experiment_of(cell)) == []


# Written down a second time, from the paper, to check the checker; as its methods are in samples.
STEPS = {"cifar10": 4, "cifar100": 4, "dvs_gesture": 20, "cifar10_dvs": 10, "imagenet": 4}


@pytest.mark.parametrize("cell", cells(), ids=NAMES)
def test_method_network_steps_and_weight_decay(cell: Cell) -> None:
    experiment = experiment_of(cell)
    model = experiment.model
    method = samples.settings(cell.paper["method"]).model
    assert (model.norm, model.online) == (method.norm, method.online)
    assert model.stabilize_threshold == method.stabilize_threshold
    name = cell.paper["architecture"].lower().replace("resnet-", "resnet").replace("-", "_")
    assert model.name == name
    assert experiment.dataset.name == cell.paper["dataset"] == cell.pipeline
    assert experiment.evaluation.steps == STEPS[cell.pipeline]
    if "steps" in cell.paper:
        assert experiment.evaluation.steps == cell.paper["steps"]
    if "weight_decay" in cell.paper:
        assert experiment.training.weight_decay == cell.paper["weight_decay"]
    events = cell.pipeline in ("dvs_gesture", "cifar10_dvs")
    assert model.fallback_ratio == (50 if events else 20)


def test_one_experiment_never_stands_for_two_weight_decays() -> None:
    decays: dict[str, set[float]] = {}
    for cell in cells():
        if "weight_decay" in cell.paper:
            decays.setdefault(cell.run, set()).add(cell.paper["weight_decay"])
    assert all(len(values) == 1 for values in decays.values())


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
    "training.steps": 7,
    "training.learning_rate": 0.7,
    "training.momentum": 0.7,
    "training.weight_decay": 0.7,
    "training.mse_weight": 0.7,
    "evaluation.steps": 7,
}


@pytest.mark.parametrize("key", OTHERS)
def test_any_other_setting_is_told(key: str) -> None:
    cell = cells_of("table1")[4]
    content = experiment_of(cell).model_dump()
    section, name = key.split(".")
    content[section][name] = OTHERS[key]
    other = Experiment.model_validate(content)
    (told,) = departures(cell, other)
    instead = expected(cell)[key]
    paper_has = "the paper's" if instead is None else instead
    assert told == f"{key} {OTHERS[key]} instead of {paper_has}"


def test_rows_of_one_setting_are_told_apart_by_their_weight_decay() -> None:
    for place in dict.fromkeys(cell.place for cell in cells()):
        rows = [(cell.row, cell.column) for cell in cells_of(place).values()]
        assert len(rows) == len(set(rows)), place
    assert "ImageNet, SEW-ResNet-34, OSR, weight decay 0.00002" in {cell.row for cell in cells()}
