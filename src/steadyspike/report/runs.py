"""Reads the experiments of a pipeline: parameters, and what has been measured of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steadyspike.bench.records import EXPERIMENTS_FILE, ExperimentsBench
from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import (
    Digests,
    Layers,
    Memory,
    Metrics,
    read_layers,
    read_memory,
    read_metrics,
)
from steadyspike.records import read_record
from steadyspike.report.methods import METHODS, Method, method_of
from steadyspike.report.paper import architecture_name
from steadyspike.train.config import Experiment, load_experiments
from steadyspike.train.history import EpochRow, read_history
from steadyspike.train.params import read_overrides

T = TypeVar("T")

#: Keys in which a pipeline's experiments may differ and still be what the paper compares, or in
#: which no result differs.
_OF_THE_PAPER = frozenset(
    {
        *("model.norm", "model.stabilize_threshold", "model.online", "training.weight_decay"),
        *("model.name", "model.widths", "model.blocks", "model.hidden_width"),
        *("seeds", "device", "training.chunk", "training.cuda_graph"),
    }
)


@dataclass(frozen=True)
class Run:
    """One experiment and its measurements; None is what has not been run.

    `label` is unique within the pipeline. `variant` counts the experiments of the same look
    before it. `histories` are those of each seed that has been trained, the first seed's first.
    `added` is an experiment that differs from its pipeline's defaults in more than method, network
    and weight decay, which the paper chose for each: the paper ran nothing like it.
    """

    name: str
    label: str
    method: Method
    variant: int
    added: bool
    settings: Experiment
    folder: Path
    metrics: Metrics | None
    layers: Layers | None
    digests: Digests | None
    histories: Mapping[int, list[EpochRow]]

    @property
    def network(self) -> str:
        return architecture_name(self.settings.model.name)

    @property
    def look(self) -> dict[str, Any]:
        """Arguments of `plotting.line_style`: hollow markers, then other colours, for variants."""
        colours = list(dict.fromkeys([*(each.colour for each in METHODS.values()), "olive"]))
        place = colours.index(self.method.colour) + self.variant // 2
        return {
            "name": colours[place % len(colours)],
            "marker": self.method.marker,
            "dashes": self.method.dashes,
            "hollow": self.variant % 2 == 1,
        }

    @property
    def history(self) -> list[EpochRow] | None:
        """Of the first seed."""
        return self.histories.get(self.settings.seed)

    @property
    def command(self) -> str:
        """The command, for the root of the repository, that trains and measures it."""
        return repro_command(self.folder.parents[1], "evaluate", self.name)

    @property
    def outdated(self) -> bool:
        """Whether it was trained with other parameters than params.yaml has now."""
        now = self.settings.runs[0].fingerprint()
        return self.digests is not None and self.digests.fingerprint != now


def repro_command(folder: Path, stage: str, name: str = "") -> str:
    """The command that runs a stage of the pipeline in `folder`, of one experiment if named.

    Those below pipelines/ share one dvc.yaml, whose stages are named after data set and experiment.
    """
    if folder.absolute().parent.name != "pipelines":
        return f"dvc repro {stage}{'@' if name else ''}{name}"
    return f"dvc --cd pipelines repro {stage}@{'-'.join(filter(None, (folder.name, name)))}"


@dataclass(frozen=True)
class Pipeline:
    """Every experiment of a pipeline, by network and in the paper's order, and Figure 2a's data."""

    folder: Path
    runs: tuple[Run, ...]
    memory: list[Memory] | None
    speed: ExperimentsBench | None = None  # what `steadyspike bench --experiments` measured

    @property
    def seeds(self) -> list[list[int]]:
        """The lists of seeds among the experiments, each once."""
        found = [run.settings.seeds for run in self.runs]
        return [seeds for place, seeds in enumerate(found) if seeds not in found[:place]]

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
    path = folder / "params.yaml"
    experiments = load_experiments(path)
    if not experiments:
        raise UserError(f"{path}: experiments: expected at least one experiment")
    methods = {name: method_of(settings.model) for name, settings in experiments.items()}
    labels = _labels(experiments, methods)
    overrides = read_overrides(path)
    seen: list[dict[str, Any]] = []
    runs = []
    for name, settings in experiments.items():
        home = folder / "runs" / name
        metrics = _if_there(home / "metrics.json", _read_metrics)
        runs.append(
            Run(
                name=name,
                label=labels[name],
                method=methods[name],
                variant=seen.count(methods[name].look),
                added=bool(overrides[name] - _OF_THE_PAPER),
                settings=settings,
                folder=home,
                metrics=metrics,
                # Written together with the metrics; without them it is left from another run.
                layers=_if_there(home / "layers.json", read_layers) if metrics else None,
                digests=_if_there(home / "digests.json", lambda p: read_record(p, Digests)),
                histories=_read_histories(home, settings.seeds),
            )
        )
        seen.append(methods[name].look)
    networks = [run.network for run in runs]
    runs.sort(key=lambda run: (networks.index(run.network), run.method.rank))
    return Pipeline(
        folder,
        tuple(runs),
        memory=_if_there(folder / "runs" / "memory.csv", read_memory),
        speed=_if_there(folder / EXPERIMENTS_FILE, lambda p: read_record(p, ExperimentsBench)),
    )


def _if_there(path: Path, read: Callable[[Path], T]) -> T | None:
    return read(path) if path.exists() else None


def _read_metrics(path: Path) -> Metrics:
    metrics = read_metrics(path)
    if metrics.experiment != path.parent.name:
        raise UserError(
            f"{path}: experiment: expected {path.parent.name!r}, the folder's name, "
            f"not {metrics.experiment!r}"
        )
    return metrics


def _read_histories(home: Path, seeds: list[int]) -> dict[int, list[EpochRow]]:
    folders = {seed: home / "seeds" / str(seed) for seed in seeds} | {seeds[0]: home}
    found = {
        seed: _if_there(folder / "history.csv", lambda path: read_history(path, "train it"))
        for seed, folder in folders.items()
    }
    return {seed: history for seed, history in found.items() if history is not None}


def _labels(experiments: dict[str, Experiment], methods: dict[str, Method]) -> dict[str, str]:
    """The method's label; with the network, or else the experiment's name, if several share it."""
    labels = {name: method.label for name, method in methods.items()}
    networks = {
        name: f"{labels[name]}, {architecture_name(settings.model.name)}"
        for name, settings in experiments.items()
    }

    def unique(name: str) -> str:
        if list(labels.values()).count(labels[name]) == 1:
            return labels[name]
        if list(networks.values()).count(networks[name]) == 1:
            return networks[name]
        return f"{labels[name]} ({name})"

    return {name: unique(name) for name in experiments}
