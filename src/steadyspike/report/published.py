"""Accuracies that other papers publish for methods of this repository (published.yaml)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from steadyspike.report.paper import architecture_name, cells, differences
from steadyspike.train.config import Experiment


@dataclass(frozen=True)
class Published:
    """An accuracy in percent, and the protocol that it was reached by.

    `method` are the parameters, by dotted key, of the experiments that it stands beside, and
    `protocol` the work's own as far as they are known. `epoch` says whose accuracy it is, best or
    last; None if that is not known. `also` are differences in what is no parameter.
    """

    work: str
    source: str
    epoch: str | None
    dataset: str
    value: float
    method: Mapping[str, Any]
    protocol: Mapping[str, Any]
    also: tuple[str, ...]
    note: str

    @property
    def network(self) -> str:
        return architecture_name(self.protocol["model.name"])

    @property
    def steps(self) -> int:
        return int(self.protocol["training.steps"])

    def fits(self, experiment: Experiment) -> bool:
        """Whether the experiment has this data set and method."""
        return not differences({"dataset.name": self.dataset, **self.method}, experiment)

    def differences(self, experiment: Experiment) -> list[str]:
        """Where the experiment differs from this protocol: `training.steps 4 instead of 6`."""
        return [*differences(self.protocol, experiment), *self.also]


@cache
def published() -> tuple[Published, ...]:
    """All of published.yaml."""
    text = files("steadyspike.report").joinpath("published.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return tuple(
        _published(content["method"], work, row)
        for work in content["works"]
        for row in work["rows"]
    )


def _published(method: dict[str, Any], work: dict[str, Any], row: dict[str, Any]) -> Published:
    return Published(
        work=work["work"],
        source=work["source"],
        epoch=work["epoch"],
        dataset=row["dataset"],
        value=row["value"] if "value" in row else _quoted(row["dataset"], row["quoted"]),
        method=method | work["method"],
        protocol=work["protocol"] | row.get("protocol", {}),
        also=tuple(work.get("also", ())),
        note=row.get("note", ""),
    )


def _quoted(dataset: str, method: str) -> float:
    """What the paper quotes of another work in Table 1."""
    (value,) = (
        cell.value
        for cell in cells("table1")
        if cell.quoted and (cell.dataset, cell.method) == (dataset, method)
    )
    assert value is not None
    return value
