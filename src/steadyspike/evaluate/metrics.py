"""What a measured run leaves behind: one schema, by which the files are written and read.

``metrics.json`` holds the numbers of a run, ``layers.json`` firing rates and membrane potentials
of each layer, ``memory.csv`` the training memory of a pipeline; ``digests.json``, which training
writes, ties weights to the parameters they were trained with. Nothing here imports torch.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    computed_field,
    model_validator,
)

from steadyspike.files import write_atomically
from steadyspike.records import read_record, read_rows

if TYPE_CHECKING:  # it imports torch
    from steadyspike.train.config import Experiment


def printable(text: str) -> str:
    """The text; ValueError if it has a control character, which no SVG or HTML file may have."""
    if not text.isprintable():
        raise ValueError("expected printable characters only")
    return text


T = TypeVar("T")
# Reporting every error of a long list would need far more memory than the list itself.
List = Annotated[list[T], FailFast()]
Name = Annotated[str, AfterValidator(printable)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Percent = Annotated[float, Field(ge=0, le=100)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(BaseModel):
    """Types are not converted, numbers are finite, and unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Accuracy(Record):
    """Test accuracy of the last epoch's weights, and of the best epoch's."""

    last: Percent
    best: Percent
    best_epoch: Positive | None = None  # has no mean over seeds


Percents = Annotated[List[Percent], Field(min_length=1)]


class StepAccuracy(Record):
    """Test accuracy of the last epoch's weights after each of the T steps."""

    step_accuracy: Percents  # of each step's own output
    votes_accuracy: Percents  # of the sum of the outputs so far

    @model_validator(mode="after")
    def _consistent(self) -> "StepAccuracy":
        if len(self.step_accuracy) != len(self.votes_accuracy):
            raise ValueError("votes_accuracy: expected as many steps as step_accuracy has")
        return self


class AfterSteps(Record):
    """Accuracy after each step as the network is used, and by the function that training computes.

    ``inference``: norms use their running statistics. ``batch``: they normalize the test images as
    they normalized the training images, vanilla BN and BN by the statistics of the batch at hand,
    OSR and the linear transform by the running ones (`steadyspike.train.accuracy.as_in_training`).
    """

    inference: StepAccuracy
    batch: StepAccuracy

    @model_validator(mode="after")
    def _consistent(self) -> "AfterSteps":
        if len(self.inference.step_accuracy) != len(self.batch.step_accuracy):
            raise ValueError("batch: expected as many steps as inference has")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gap(self) -> float:
        """How many percentage points the first step gains by the function of training."""
        return round(self.batch.step_accuracy[0] - self.inference.step_accuracy[0], 6)


class Loss(Record):
    """Mean loss per image in the last epoch."""

    train: float
    test: float


class FiringRate(Record):
    """Share of all neurons that spike: at each step, and the mean over steps."""

    gross: Fraction
    per_step: Annotated[List[Fraction], Field(min_length=1)]


class Operations(Record):
    """Operations per image over all T steps and their energy, as `operations.py` counts them."""

    synaptic_operations: Amount
    multiply_accumulates: Amount
    energy_nanojoule: Amount
    dense_multiply_accumulates: Amount  # of one pass of the same network without spikes


class Inference(Record):
    """Accuracy by the source of OTS's thresholds (Appendix E); without OTS only ``live``."""

    live: Percent  # the test batch
    fixed: Percent | None = None  # running values learned in training
    layer: Percent | None = None  # their mean over the steps
    batch_1: Percent | None = None  # each sample alone


class Evaluation(Record):
    """Settings that a measurement depends on; without OTS the threshold is ``constant``."""

    test_images: Positive
    batch: Positive
    steps: Positive
    threshold: Literal["live", "fixed", "layer", "constant"]

    @classmethod
    def of(cls, experiment: "Experiment", test_images: int) -> "Evaluation":
        """The settings an experiment is evaluated with."""
        model = experiment.model
        return cls(
            test_images=test_images,
            batch=experiment.evaluation.batch,
            steps=experiment.evaluation.steps,
            threshold=model.inference_threshold if model.stabilize_threshold else "constant",
        )


class Measurement(Record):
    """What is measured of one trained network."""

    accuracy: Accuracy
    after_steps: AfterSteps
    loss: Loss
    firing_rate: FiringRate
    operations: Operations
    inference: Inference
    osr_fallbacks: Count | Amount  # of several seeds the mean


class Metrics(Measurement):
    """``metrics.json``. With several seeds all numbers but those in ``seeds`` are their means."""

    experiment: Name
    parameters: Count
    evaluation: Evaluation
    seeds: Annotated[dict[Name, Measurement], Field(min_length=2)] | None = None

    def by_seed(self, only: int) -> dict[str, Measurement]:
        """The measurement of each seed; the seed of a run with a single one is ``only``."""
        return dict(self.seeds) if self.seeds else {str(only): self}


def mean_over_seeds(measured: Sequence[Measurement]) -> Measurement:
    """The mean of every number that all of them have, but for the best epoch; of one, itself."""
    if len(measured) == 1:
        return measured[0]
    content = _mean([each.model_dump(exclude={"accuracy": {"best_epoch"}}) for each in measured])
    return Measurement.model_validate(content)


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(each) for each in zip(*values, strict=True)]
    return None if None in values else round(statistics.fmean(values), 6)


class Bins(Record):
    """``count`` bins of equal width from ``low`` to ``high``, in units of the membrane."""

    low: float
    high: float
    count: Positive


class Layer(Record):
    """One layer of LIF neurons over the test split; every list has one entry a time step.

    ``firing_rate`` is the share of neurons that spike. All else is of the membrane potential
    before the reset: ``counts`` by bin, ``below`` and ``above`` the bins, moments, threshold.
    """

    name: Name
    firing_rate: List[Fraction]
    counts: List[List[Count]]
    below: List[Count]
    above: List[Count]
    mean: List[float]
    std: List[float]
    threshold: List[float]


class Layers(Record):
    """``layers.json``."""

    bins: Bins
    layers: Annotated[List[Layer], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "Layers":
        if self.bins.low >= self.bins.high:
            raise ValueError("bins.low: expected a number below bins.high")
        steps = len(self.layers[0].counts)
        if steps == 0:
            raise ValueError("layers.0.counts: expected at least one step")
        for place, layer in enumerate(self.layers):
            for key in Layer.model_fields.keys() - {"name"}:
                if len(getattr(layer, key)) != steps:
                    raise ValueError(f"layers.{place}.{key}: expected {steps} steps")
            if any(len(counts) != self.bins.count for counts in layer.counts):
                raise ValueError(f"layers.{place}.counts: expected {self.bins.count} bins a step")
        return self


class Memory(BaseModel):
    """One row of ``memory.csv``: the bytes autograd keeps for the backward pass of a batch."""

    model_config = ConfigDict(frozen=True)
    method: Literal["online", "bptt"]
    chunk: Positive  # K, at most that many steps in one call; T with BPTT
    steps: Positive  # T
    bytes: Count


class TrainedOn(Record):
    """The data set of a run: classes, normalization, shape of a sample, and its content."""

    name: Name
    classes: Annotated[List[Name], Field(min_length=1)]
    mean: List[float]
    std: List[float]
    shape: List[Positive]
    content_sha256: Sha256 | None  # None if it was not read into memory


class Digests(Record):
    """``digests.json``: SHA-256 of each tensor after certain batches, of the last weights, and
    of the parameters that decide them; and the data set, in runs of this version."""

    batches: dict[Name, dict[Name, Sha256]]
    fingerprint: Sha256
    weights_sha256: Sha256
    dataset: TrainedOn | None = None


class StepPrediction(Record):
    """The votes after a time step: the share of each class, best first, and operations so far."""

    step: Positive
    confidence: dict[str, Fraction]
    operations: Operations


class Prediction(Record):
    """What a network says of one image."""

    image: str
    label: str
    threshold: Literal["live", "fixed", "layer", "constant"]
    steps: List[StepPrediction]


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write ``metrics.json``, without the keys that are None."""
    content = json.dumps(metrics.model_dump(exclude_none=True), indent=2)
    write_atomically(path, content + "\n")


def write_layers(path: Path, layers: Layers) -> None:
    """Write ``layers.json``, in one line: its lists are long."""
    write_atomically(path, json.dumps(layers.model_dump()) + "\n")


def write_memory(path: Path, rows: list[Memory]) -> None:
    """Write ``memory.csv``."""
    lines = [",".join(Memory.model_fields)]
    lines += [f"{row.method},{row.chunk},{row.steps},{row.bytes}" for row in rows]
    write_atomically(path, "\n".join(lines) + "\n")


def read_metrics(path: Path) -> Metrics:
    """Read ``metrics.json``; errors as in `read_record`."""
    return read_record(path, Metrics)


def read_layers(path: Path) -> Layers:
    """Read ``layers.json``; errors as in `read_record`."""
    return read_record(path, Layers)


def read_memory(path: Path) -> list[Memory]:
    """Read ``memory.csv``; errors as in `read_rows`."""
    return read_rows(path, Memory)
