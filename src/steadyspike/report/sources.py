"""Reads a pipeline's parameters and measurements, and refuses what is not as described here."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import (
    Digests,
    Layers,
    Memory,
    Metrics,
    printable,
    read_layers,
    read_memory,
    read_metrics,
    read_record,
)
from steadyspike.report.methods import Method, method_of
from steadyspike.report.paper import architecture_name
from steadyspike.train.config import Experiment, load_experiments
from steadyspike.train.history import EpochRow, read_history


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
    history: tuple[EpochRow, ...] | None
    other_seeds: Mapping[int, tuple[EpochRow, ...]]
    membranes: Layers | None
    digests: Digests | None

    @property
    def command(self) -> str:
        """The command that measures this experiment."""
        return measuring([self.name], self.home.parents[1])


def measuring(experiments: Sequence[str], folder: Path) -> str:
    """The command that measures experiments of the pipeline in `folder`, training what it must.

    The data sets in pipelines/ share one dvc.yaml, whose stages are named after data set and
    experiment.
    """
    if folder.parent.name != "pipelines":
        return shlex.join(["dvc", "repro", *(f"evaluate@{name}" for name in experiments)])
    stages = [f"evaluate@{folder.name}-{name}" for name in experiments]
    return shlex.join(["dvc", "--cd", str(folder.parent), "repro", *stages])


@dataclass(frozen=True)
class Pipeline:
    """Every experiment of a pipeline, in the paper's order, and the memory that training needs."""

    runs: tuple[Run, ...]
    memory: tuple[Memory, ...] | None

    @property
    def memory_command(self) -> str:
        """The command that measures `memory`."""
        folder = self.runs[0].home.parents[1]
        if folder.parent.name != "pipelines":
            return "dvc repro memory"
        return shlex.join(["dvc", "--cd", str(folder.parent), "repro", f"memory@{folder.name}"])

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
        layers, digests = home / "layers.json", home / "digests.json"
        metrics = _read_metrics(home / "metrics.json", name)
        runs.append(
            Run(
                name=name,
                label=labels[name],
                method=method,
                variant=seen.count(method),
                settings=settings,
                home=home,
                metrics=metrics,
                history=_read_history(home / "history.csv"),
                other_seeds=_read_other_seeds(home / "seeds", settings.seeds[1:]),
                # Measured together with the metrics, which alone say of what.
                membranes=read_layers(layers) if metrics and layers.exists() else None,
                digests=read_record(digests, Digests) if digests.exists() else None,
            )
        )
        seen.append(method)
    networks = [run.settings.model.name for run in runs]
    runs.sort(key=lambda run: (networks.index(run.settings.model.name), run.method.rank))
    memory = folder / "runs" / "memory.csv"
    return Pipeline(tuple(runs), tuple(read_memory(memory)) if memory.exists() else None)


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


def _read_metrics(path: Path, experiment: str) -> Metrics | None:
    if not path.exists():
        return None
    metrics = read_metrics(path)
    if metrics.experiment != experiment:
        raise UserError(
            f"{path}: experiment: expected {experiment!r}, the folder's name, "
            f"not {metrics.experiment!r}"
        )
    return metrics


def _read_history(path: Path) -> tuple[EpochRow, ...] | None:
    return tuple(read_history(path, "train it")) if path.exists() else None


def _read_other_seeds(folder: Path, seeds: Sequence[int]) -> dict[int, tuple[EpochRow, ...]]:
    found = {seed: _read_history(folder / str(seed) / "history.csv") for seed in seeds}
    return {seed: history for seed, history in found.items() if history is not None}
