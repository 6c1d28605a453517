"""Opens trained networks without their data sets: the folder of a finished run, or a shared one.

`steadyspike export --card` writes the latter: weights, and ``config.json`` for all else.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from steadyspike.data import Dataset, Split
from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import Name, Percent, Record, Sha256, TrainedOn
from steadyspike.evaluate.run import load_network, measure_network, read_digests
from steadyspike.evaluate.weights import load_recorded
from steadyspike.records import read_record
from steadyspike.snn.neuron import InferenceThreshold
from steadyspike.train.accuracy import Score
from steadyspike.train.config import Experiment, load_experiment
from steadyspike.train.network import build_model

CONFIG = "config.json"


class Config(Record):
    """``config.json`` of a shared network: how it was trained, on what, and how well it does."""

    library_name: Annotated[str, Field(pattern="^steadyspike$")] = "steadyspike"
    library_version: Name
    commit: Name | None  # None if it was not a checkout
    command: Name
    parameters_sha256: Sha256
    weights_sha256: Sha256
    accuracy: Percent
    test_images: int
    dataset: TrainedOn
    experiment: Experiment


def is_shared(folder: Path) -> bool:
    """Whether it is the folder of a shared network."""
    return (folder / CONFIG).is_file()


def read_config(folder: Path) -> Config:
    """``config.json``; UserError for a damaged one."""
    return read_record(folder / CONFIG, Config)


def open_run(folder: Path, params: Path | None) -> tuple[Experiment, Path]:
    """The experiment of a run's folder, or of the name of one in ``runs``, and the folder.

    ``params`` is by default the params.yaml beside the folder of runs; a shared network has its
    parameters with it. Where torch finds no GPU, the experiment is on the CPU.
    """
    if not folder.is_dir() and len(folder.parts) == 1:
        folder = Path("runs") / folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected that of a finished run, as runs/NAME")
    if is_shared(folder):
        experiment = read_config(folder).experiment
    else:
        folder = folder.absolute()
        params = params or folder.parent.parent / "params.yaml"
        experiment = load_experiment(params, folder.name).runs[0]
    if experiment.device == "cuda" and not torch.cuda.is_available():
        experiment = experiment.model_copy(update={"device": "cpu"})
    return experiment, folder


def open_network(experiment: Experiment, folder: Path) -> tuple[nn.Module, TrainedOn]:
    """The network of the first seed, with its last weights, in evaluation mode, and its data set.

    Raises:
        UserError: the run has not finished, was of other parameters, or its files are damaged.
    """
    if is_shared(folder):
        config = read_config(folder)
        model = build_model(experiment, without_samples(config.dataset)).eval()
        weights, remedy = folder / "model.safetensors", "copy the whole folder again"
        load_recorded(weights, model, config.weights_sha256, CONFIG, remedy)
        return model, config.dataset
    digests = read_digests(experiment, folder)
    if digests.dataset is None:
        raise UserError(
            f"{folder / 'digests.json'}: dataset: missing, an earlier version wrote it: train it "
            f"again with `steadyspike train {experiment.name}`"
        )
    dataset = without_samples(digests.dataset)
    return load_network(experiment, dataset, folder, digests), digests.dataset


def measure_shared(
    experiment: Experiment,
    folder: Path,
    dataset: Dataset,
    threshold: InferenceThreshold | None,
    batch: int | None,
) -> Score:
    """The score of a shared network; ``threshold`` and ``batch`` override the experiment's.

    Raises:
        UserError: as `open_network`; ``dataset`` has not the images that the network was made for.
    """
    model, seen = open_network(experiment, folder)
    if seen.content_sha256 not in (None, dataset.content_sha256()):
        raise UserError(
            f"{folder / CONFIG}: dataset: trained on other images than those of {dataset.name} here"
        )
    weights = folder / "model.safetensors"
    return measure_network(experiment, model, dataset, weights, threshold, batch)


def without_samples(seen: TrainedOn) -> Dataset:
    """The data set that a run was trained on, all but its samples."""
    empty = Split(torch.empty(0, *seen.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    mean, std = tuple(seen.mean), tuple(seen.std)
    return Dataset(seen.name, tuple(seen.classes), mean, std, empty, empty)
