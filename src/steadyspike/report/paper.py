"""What the paper reports (paper.yaml): every number as a `Cell`, and the settings behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from steadyspike.report.methods import METHODS, Method, method_of
from steadyspike.train.config import Experiment

Metric = Literal[
    "accuracy",
    "gross_rate",
    "step_rates",
    "memory",
    "membranes",
    "fixed_threshold",
    "batch_of_one",
]

_METRIC_NAMES: dict[Metric, str] = {
    "accuracy": "accuracy",
    "gross_rate": "gross firing rate",
    "step_rates": "firing rate of each step",
    "memory": "training memory",
    "membranes": "membrane potentials",
    "fixed_threshold": "accuracy, thresholds fixed",
    "batch_of_one": "accuracy, batch of 1",
}


@dataclass(frozen=True)
class Cell:
    """A number, line or plot of the paper.

    `dataset` and `method` are keys, `architecture` is the paper's name; `number` is `Table 1` or
    `Figure 3`; `source` says where in the paper the value is given. What the paper does not give is
    None. `rates` are fractions; `first` and `last` are megabytes at the first and the last T.
    """

    table: str
    number: str
    source: str
    metric: Metric
    dataset: str
    architecture: str
    method: str
    steps: int | None = None
    value: float | None = None
    weight_decay: float | None = None
    quoted: str | None = None
    change: str = ""
    rates: tuple[float, ...] = ()
    first: float = 0.0
    last: float = 0.0
    experiment: str = ""

    @property
    def setting(self) -> str:
        """Data set and network: `CIFAR-10, VGGSNN`."""
        return f"{dataset_name(self.dataset)}, {self.architecture}"

    @property
    def epochs(self) -> int:
        """For how many the paper trains on this data set."""
        return int(paper()["training"][self.dataset]["epochs"])

    @property
    def method_label(self) -> str:
        return METHODS[self.method].label if self.method in METHODS else self.method

    @property
    def row(self) -> str:
        """What was run: `CIFAR-10, VGGSNN, OSR + OTS`, with the weight decay if others differ."""
        words = [self.setting, self.method_label]
        alike = [cell for cell in cells(self.table) if (cell.setting, cell.method) == self._key]
        if len({cell.weight_decay for cell in alike}) > 1:
            words.append(f"weight decay {self.weight_decay:.5f}".rstrip("0").rstrip("."))
        return ", ".join(words)

    @property
    def _key(self) -> tuple[str, str]:
        return self.setting, self.method

    @property
    def column(self) -> str:
        return _METRIC_NAMES[self.metric]

    @property
    def run(self) -> str:
        """The experiment that measures it, with its pipeline: `cifar10/vggsnn-osr`."""
        return f"{self.dataset}/{self.experiment}"

    @property
    def command(self) -> str:
        """The command, for the repository's root, that trains, evaluates and reports it."""
        if self.metric == "memory":
            return f"dvc --cd pipelines repro report_memory@{self.dataset}"
        return f"dvc --cd pipelines repro report@{self.dataset}-{self.experiment}"

    def fits(self, experiment: Experiment) -> bool:
        """Whether the experiment has this data set, network and method."""
        return (
            experiment.dataset.name == self.dataset
            and architecture_name(experiment.model.name) == self.architecture
            and method_of(experiment.model).key == self.method
        )

    def differences(self, experiment: Experiment) -> list[str]:
        """Where an experiment differs from the paper: `training.epochs 2 instead of 300`."""
        expected = expected_settings(self)
        if self.metric == "memory":  # one batch's memory, before any training
            of_a_batch = ("model.", "training.batch")
            expected = {key: expected[key] for key in expected if key.startswith(of_a_batch)}
        return differences(expected, experiment)


@cache
def paper() -> Mapping[str, Any]:
    """All of paper.yaml."""
    text = files("steadyspike.report").joinpath("paper.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Any] = yaml.safe_load(text)
    return content


TABLES = ("table1", "table2", "table4", "figure2a", "figure2b", "figure3", "appendix_e")


@cache
def cells(table: str) -> tuple[Cell, ...]:
    """All of a table or figure, in the paper's order."""
    part = paper()[table]
    common = {"table": table, "number": part["source"], "source": part["source"]}
    return tuple(
        _cell({**common, "metric": part["metric"], **part.get("setting", {}), **row})
        for row in part["rows"]
    )


def own_cells() -> list[Cell]:
    """All that the paper's authors measured themselves."""
    return [cell for table in TABLES for cell in cells(table) if not cell.quoted]


def _cell(values: dict[str, Any]) -> Cell:
    if "rates" in values:
        values["rates"] = tuple(values["rates"])
    if "quoted" not in values:
        network = _architecture_key(values["architecture"])
        values.setdefault("experiment", f"{network}-{values['method']}")
    return Cell(**values)


def dataset_name(key: str) -> str:
    """The paper's name of a data set; the key itself if it has none."""
    return str(paper()["names"]["datasets"].get(key, key))


def architecture_name(key: str) -> str:
    """The paper's name of a network; the key itself if it has none."""
    return str(paper()["names"]["architectures"].get(key, key))


def _architecture_key(name: str) -> str:
    keys = {value: key for key, value in paper()["names"]["architectures"].items()}
    return str(keys[name])


def nearest_cell(table: str, experiment: Experiment) -> Cell | None:
    """The paper's cell that comes nearest to an experiment; None if its method is not reported.

    Of the experiment's own method always. Preferred are its weight decay, then its data set and
    network, then CIFAR-10 with VGGSNN, then the paper's order. Accuracies are looked up in Table 4,
    Appendix E and Table 1.
    """
    tables = ("table4", "appendix_e", "table1") if table == "table4" else (table,)
    metric = cells(table)[0].metric
    method = method_of(experiment.model).key
    own = f"{dataset_name(experiment.dataset.name)}, {architecture_name(experiment.model.name)}"
    found = [c for t in tables for c in cells(t) if c.metric == metric and c.method == method]
    order = [own, "CIFAR-10, VGGSNN"]
    found.sort(
        key=lambda cell: (
            order.index(cell.setting) if cell.setting in order else len(order),
            cell.weight_decay != experiment.training.weight_decay,
        )
    )
    return found[0] if found else None


def differences(expected: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """Where an experiment has other parameters, by dotted key; None is a class's default."""
    found = []
    for key, value in expected.items():
        section, name = key.split(".")
        actual = getattr(getattr(experiment, section), name, None)
        if actual != value:
            instead = "the default" if value is None else value
            found.append(f"{key} {'default' if actual is None else actual} instead of {instead}")
    return found


def expected_settings(cell: Cell) -> dict[str, Any]:
    """The parameters that the paper gives for a cell, by dotted key; None is a class's default."""
    common, own = paper()["training"]["all"], paper()["training"][cell.dataset]
    method: Method = METHODS[cell.method]
    values = {
        "dataset.name": cell.dataset,
        "dataset.augmentation": own["augmentation"],
        "dataset.validation": None,
        "model.name": _architecture_key(cell.architecture),
        "model.norm": method.norm,
        "model.stabilize_threshold": method.stabilize_threshold,
        "model.online": method.online,
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
    if cell.weight_decay is not None:
        values["training.weight_decay"] = cell.weight_decay
    return values
