"""The paper's own cells, and which experiment of which pipeline measures each (cells.yaml)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from steadyspike.report.methods import Method, method_named
from steadyspike.report.paper import dataset_name, paper

Metric = Literal[
    "accuracy",
    "gross_rate",
    "step_rates",
    "memory",
    "membranes",
    "fixed_threshold",
    "batch_of_one",
]

_COLUMNS: dict[Metric, str] = {
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
    """A number, a line or a plot that the paper's authors measured.

    `place` and `key` are where it stands in paper.yaml: the table or figure, and there the key,
    or the row's number among all rows. `paper` is what stands there, with its setting: dataset,
    architecture, method (keys) and, where the paper says, weight_decay and steps.
    """

    place: str
    key: str | int
    paper: Mapping[str, Any]
    metric: Metric
    pipeline: str
    experiment: str

    @property
    def method(self) -> Method:
        return method_named(self.paper["method"])

    @property
    def table(self) -> str:
        """How the paper calls the place: `Table 1`."""
        return str(paper()[self.place]["source"])

    @property
    def row(self) -> str:
        """What the cell is of: `CIFAR-10, VGGSNN, OSR + OTS`; the weight decay where needed."""
        words = [dataset_name(self.paper["dataset"]), self.paper["architecture"]]
        words.append(self.method.label)
        twins = [cell for cell in cells() if cell.place == self.place and cell.same_row(self)]
        if len(twins) > 1 and "weight_decay" in self.paper:
            words.append(f"weight decay {self.paper['weight_decay']:.5f}".rstrip("0").rstrip("."))
        return ", ".join(words)

    def same_row(self, other: "Cell") -> bool:
        """Whether two cells are of one data set, network and method."""
        keys = ("dataset", "architecture", "method")
        return all(self.paper[key] == other.paper[key] for key in keys)

    @property
    def column(self) -> str:
        return _COLUMNS[self.metric]

    @property
    def run(self) -> str:
        """The experiment's name among those of all pipelines."""
        return f"{self.pipeline}/{self.experiment}"

    @property
    def command(self) -> str:
        """The command that trains, evaluates and reports it, to be given at the root."""
        if self.metric == "memory":
            return f"dvc --cd pipelines repro report_memory@{self.pipeline}"
        return f"dvc --cd pipelines repro report@{self.pipeline}-{self.experiment}"


@cache
def cells() -> tuple[Cell, ...]:
    """All of them, in the paper's order."""
    text = files("steadyspike.report").joinpath("cells.yaml").read_text(encoding="utf-8")
    return tuple(
        _cell(place, part["metric"], entry)
        for place, part in yaml.safe_load(text).items()
        for entry in part["cells"]
    )


def cells_of(place: str) -> dict[str | int, Cell]:
    """Those of a table or figure, by their key."""
    return {cell.key: cell for cell in cells() if cell.place == place}


def _cell(place: str, metric: Metric, entry: Mapping[str, Any]) -> Cell:
    measured = {"pipeline", "experiment", "metric", "key"}
    identity = {name: value for name, value in entry.items() if name not in measured}
    key = entry["key"] if "key" in entry else _row(place, identity)
    return Cell(
        place=place,
        key=key,
        paper=_setting(place, key),
        metric=entry.get("metric", metric),
        pipeline=entry["pipeline"],
        experiment=entry["experiment"],
    )


def _row(place: str, identity: Mapping[str, Any]) -> int:
    rows = paper()[place]["rows"]
    same = [n for n, row in enumerate(rows) if identity.items() <= row.items()]
    assert len(same) == 1, f"{place}: {identity} finds {len(same)} rows"
    return same[0]


def _setting(place: str, key: str | int) -> Mapping[str, Any]:
    """What paper.yaml says of a cell, its table's own setting included."""
    part = paper()[place]
    if isinstance(key, int):
        common = {"steps": part["steps"]} if "steps" in part else {}
        return {**common, **part["rows"][key]}
    if place == "appendix_e":
        return dict(part[key])
    if place == "figure2a":
        method = {"online": "osr_ots", "bptt": "bptt"}[key]
        return {"method": method, **part["setting"], "megabytes": part["megabytes"][key]}
    rates = {"rates": part["rates"][key]} if "rates" in part else {}
    return {"method": key, **part["setting"], **rates}
