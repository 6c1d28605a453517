"""Whether an experiment has the settings of the paper's cell that it is to measure."""

from typing import Any

from steadyspike.report.cells import Cell
from steadyspike.report.methods import configuration
from steadyspike.report.paper import paper
from steadyspike.train.config import Experiment


def expected(cell: Cell) -> dict[str, Any]:
    """The parameters that the paper gives for a cell, by dotted key; None: the network's own."""
    dataset = cell.paper["dataset"]
    common, own = paper()["training"]["all"], paper()["training"][dataset]
    keys = {name: key for key, name in paper()["names"]["architectures"].items()}
    norm, stabilize_threshold, online = configuration(cell.method.key)
    values = {
        "dataset.name": dataset,
        "dataset.augmentation": own["augmentation"],
        "model.name": keys[cell.paper["architecture"]],
        "model.norm": norm,
        "model.stabilize_threshold": stabilize_threshold,
        "model.online": online,
        "model.tau": common["tau"],
        "model.v_threshold": common["v_threshold"],
        "model.dropout": own["dropout"],
        "model.widths": None,
        "model.blocks": None,
        "model.hidden_width": None,
        "model.head": own.get("head"),
        "model.head_widths": None,
        "training.epochs": own["epochs"],
        "training.batch": own["batch"],
        "training.steps": own.get("train_steps", own["steps"]),
        "training.learning_rate": own["learning_rate"],
        "training.momentum": common["momentum"],
        "training.mse_weight": own["mse_weight"],
        "evaluation.steps": own["steps"],
    }
    if "weight_decay" in cell.paper:
        values["training.weight_decay"] = cell.paper["weight_decay"]
    return values


def departures(cell: Cell, experiment: Experiment) -> list[str]:
    """Where an experiment differs from the paper: `training.epochs 2 instead of 300`."""
    found = []
    for key, value in expected(cell).items():
        section, name = key.split(".")
        actual = getattr(getattr(experiment, section), name, None)
        if actual != value:
            instead = "the paper's" if value is None else value
            found.append(f"{key} {'of its own' if actual is None else actual} instead of {instead}")
    return found
