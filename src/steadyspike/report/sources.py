"""Reads a pipeline's parameters and measurements, and refuses what is not as described here."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from steadyspike.errors import UserError
from steadyspike.files import read_at_most
from steadyspike.report.methods import Method, method_of
from steadyspike.report.paper import architecture_name
from steadyspike.report.records import Digests, Epoch, Membranes, Memory, Metrics, printable
from steadyspike.train.config import Experiment, load_experiments

#: Bytes of a file of measurements; the longest has thousands.
LARGEST = 1 << 22
T = TypeVar("T")
Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class Run:
    """One experiment and what has been measured of it; None is what has not been run.

    `variant` counts the experiments of the same method before it. `home` is the folder of what
    was measured. `history` is of the first seed, `other_seeds` has those of the others.
    """

    name: str
    label: str
    method: Method
    variant: int
    settings: Experiment
    home: Path
    metrics: Metrics | None
    history: tuple[Epoch, ...] | None
    other_seeds: Mapping[int, tuple[Epoch, ...]]
    membranes: Membranes | None
    digests: Digests | None

    @property
    def command(self) -> str:
        """The command, to be given in the pipeline's folder, that measures this experiment."""
        return measuring([self.name])


def measuring(experiments: Sequence[str], folder: Path = Path()) -> str:
    """The command that measures experiments of the pipeline in `folder`, training what it must."""
    place = "" if folder == Path() else f"{folder}/dvc.yaml:"
    return shlex.join(["dvc", "repro", *(f"{place}evaluate@{name}" for name in experiments)])


MEMORY_COMMAND = "dvc repro memory"


@dataclass(frozen=True)
class Pipeline:
    """Every experiment of a pipeline, in the paper's order, and the memory that training needs."""

    runs: tuple[Run, ...]
    memory: tuple[Memory, ...] | None

    @property
    def networks(self) -> "list[Pipeline]":
        """The experiments of each network apart, labelled as if there were no other."""
        parts = []
        for name in self.settings("model.name"):
            runs = {run.name: run for run in self.runs if run.settings.model.name == name}
            labels = _labels(
                {n: r.settings for n, r in runs.items()}, {n: r.method for n, r in runs.items()}
            )
            relabelled = tuple(replace(run, label=labels[run.name]) for run in runs.values())
            parts.append(replace(self, runs=relabelled))
        return parts

    @property
    def compares_memory(self) -> bool:
        """Whether there is BPTT to hold online training against, measured or to be run."""
        return self.memory is not None or not all(r.settings.model.online for r in self.runs)

    def settings(self, key: str) -> list[Any]:
        """The values that `key` ("training.steps") has among the experiments, each once."""
        section, name = key.split(".")
        values = [getattr(getattr(run.settings, section), name) for run in self.runs]
        return [value for place, value in enumerate(values) if value not in values[:place]]


def read_pipeline(folder: Path) -> Pipeline:
    """Read `params.yaml` and `runs/` of a pipeline's folder.

    Raises UserError, naming file and key, for anything malformed. What is missing under `runs/`
    has not been run and is no error.
    """
    experiments = _read_settings(folder / "params.yaml")
    methods = {
        name: method_of(s.model.norm, s.model.stabilize_threshold, s.model.online)
        for name, s in experiments.items()
    }
    labels = _labels(experiments, methods)
    seen: list[Method] = []
    runs = []
    for name, settings in experiments.items():
        method = methods[name]
        home = folder / "runs" / name
        metrics = _read_metrics(home / "metrics.json", name, measuring([name], folder))
        runs.append(
            Run(
                name=name,
                label=labels[name],
                method=method,
                variant=seen.count(method),
                settings=settings,
                home=home,
                metrics=metrics,
                history=_read_rows(home / "history.csv", Epoch),
                other_seeds=_read_other_seeds(home / "seeds", settings.seeds[1:]),
                # Measured together with the metrics, which alone say of what.
                membranes=_read_membranes(home / "membranes.json") if metrics else None,
                digests=_read_digests(home / "digests.json"),
            )
        )
        seen.append(method)
    networks = [run.settings.model.name for run in runs]
    runs.sort(key=lambda run: (networks.index(run.settings.model.name), run.method.rank))
    return Pipeline(tuple(runs), _read_rows(folder / "runs" / "memory.csv", Memory))


def _labels(experiments: dict[str, Experiment], methods: dict[str, Method]) -> dict[str, str]:
    """Each experiment by its method; those of one method by their networks or else their names."""
    networks = {
        name: f"{methods[name].label}, {architecture_name(settings.model.name)}"
        for name, settings in experiments.items()
    }
    labels = {}
    for name, method in methods.items():
        same = [other for other in methods if methods[other] == method]
        network = [networks[other] for other in same].count(networks[name]) == 1
        several = networks[name] if network else f"{method.label} ({name})"
        labels[name] = several if len(same) > 1 else method.label
    return labels


def _read_settings(path: Path) -> dict[str, Experiment]:
    experiments = load_experiments(path)
    if not experiments:
        raise UserError(f"{path}: experiments: expected at least one experiment")
    for name, settings in experiments.items():
        try:
            printable(settings.dataset.name)
        except ValueError as error:
            raise UserError(f"{path}: experiments.{name}.dataset.name: {error}") from None
    return experiments


def _read_metrics(path: Path, experiment: str, command: str) -> Metrics | None:
    data = _read_json(path)
    if data is None:
        return None
    for key in ("provenance", "evaluation"):  # which measurements of older versions lack
        if key not in data:
            raise UserError(f"{path}: {key}: missing: `{command}` measures it anew")
    metrics = _check(Metrics, data, path)
    if metrics.experiment != experiment:
        raise UserError(
            f"{path}: experiment: expected {experiment!r}, the folder's name, "
            f"not {metrics.experiment!r}"
        )
    if not metrics.firing_rate.per_step:
        raise UserError(f"{path}: firing_rate.per_step: expected at least one step")
    return metrics


def _read_other_seeds(folder: Path, seeds: Sequence[int]) -> dict[int, tuple[Epoch, ...]]:
    found = {seed: _read_rows(folder / str(seed) / "history.csv", Epoch) for seed in seeds}
    return {seed: history for seed, history in found.items() if history is not None}


def _read_digests(path: Path) -> Digests | None:
    data = _read_json(path)
    return None if data is None else _check(Digests, data, path)


def _read_membranes(path: Path) -> Membranes | None:
    data = _read_json(path)
    if data is None:
        return None
    membranes = _check(Membranes, data, path)
    if membranes.bins.low >= membranes.bins.high:
        raise UserError(f"{path}: bins.low: expected a number below bins.high")
    steps = len(membranes.layers[0].counts)
    if steps == 0:
        raise UserError(f"{path}: layers.0.counts: expected at least one step")
    for place, layer in enumerate(membranes.layers):
        for key in ("counts", "below", "above", "mean", "std", "threshold"):
            if len(getattr(layer, key)) != steps:
                raise UserError(f"{path}: layers.{place}.{key}: expected {steps} steps")
        if any(len(counts) != membranes.bins.count for counts in layer.counts):
            raise UserError(
                f"{path}: layers.{place}.counts: expected {membranes.bins.count} bins a step"
            )
    return membranes


def _read_rows(path: Path, row: type[Row]) -> tuple[Row, ...] | None:
    text = _read_text(path)
    if text is None:
        return None
    reader = csv.DictReader(text.splitlines())
    try:
        missing = sorted(set(row.model_fields) - set(reader.fieldnames or ()))
        if missing:
            raise UserError(f"{path}: {missing[0]}: expected a column of this name")
        rows = tuple(_check(row, cells, path, f"line {reader.line_num}, ") for cells in reader)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: no CSV: {_one_line(error)}") from None
    if not rows:
        raise UserError(f"{path}: expected at least one row below the header")
    return rows


def _read_json(path: Path) -> Any:
    text = _read_text(path)
    if text is None:
        return None

    def refuse(constant: str) -> None:
        raise UserError(f"{path}: expected finite numbers, found {constant}")

    try:
        data = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # also of a number of too many digits
        raise UserError(f"{path}: not JSON: {_one_line(error)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping")
    return data


def _read_text(path: Path) -> str | None:
    """The file's text, or None if there is no such file."""
    try:
        return read_at_most(path, LARGEST).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {_one_line(error)}") from None


def _check(kind: type[T], data: Any, path: Path, prefix: str = "") -> T:
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = prefix + _one_line(".".join(str(part) for part in first["loc"]))
        raise UserError(f"{path}: {key}: {_one_line(first['msg'])}") from None


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
