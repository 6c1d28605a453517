"""The shape of every file that the report reads, checked as it is read."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Field


def printable(text: str) -> str:
    """The text; ValueError if it holds a control character, which makes an SVG unreadable."""
    if not text.isprintable():
        raise ValueError("expected printable characters only")
    return text


def _words(text: object) -> object:
    return tuple(text.split()) if isinstance(text, str) else text


T = TypeVar("T")
#: All that is wrong with a long list would take a thousand times its bytes to tell.
List = Annotated[list[T], FailFast()]
Name = Annotated[str, AfterValidator(printable)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Percent = Annotated[float, Field(ge=0, le=100)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Versions = Annotated[List[Sha256], Field(min_length=1)]
Layers = Annotated[tuple[Name, ...], BeforeValidator(_words)]


class Record(BaseModel):
    """Types are not converted and numbers are finite; keys the report does not use may be there."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Accuracy(Record):
    last: Percent
    best: Percent
    best_epoch: Positive


class Loss(Record):
    train: float
    test: float


class FiringRate(Record):
    gross: Fraction
    per_step: List[Fraction]
    per_layer: dict[Name, List[Fraction]]


class Inference(Record):
    """Accuracies by where the thresholds come from; without OTS there is but one."""

    live: Percent
    fixed: Percent | None = None
    batch_1: Percent | None = None


class Trained(Record):
    """What trained a run; several of code or environment, in order, where it was resumed."""

    code: Versions
    data: Sha256
    environment: Versions


class Provenance(Trained):
    """What trained all seeds of an experiment, and the experiment itself."""

    params: Sha256


class Evaluation(Record):
    """The settings of a measurement, and what measured; `constant` is the threshold without OTS."""

    batch: Positive
    steps: Positive
    threshold: Literal["live", "fixed", "constant"]
    code: Sha256
    environment: Sha256


class Metrics(Record):
    """`metrics.json`: accuracies in percent, firing rates as fractions.

    `seeds` has each seed's accuracy where there are several, and `provenance` is of all; all else
    is the first one's.
    """

    experiment: Name
    parameters: Count
    accuracy: Accuracy
    loss: Loss
    firing_rate: FiringRate
    osr_fallbacks: Count
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]+$")]
    inference: Inference | None = None
    seeds: Annotated[dict[Name, Accuracy], Field(min_length=2)] | None = None
    evaluation: Evaluation
    provenance: Provenance


class Digests(Record):
    """`digests.json`: the SHA-256 of each tensor after certain batches, and of what trained."""

    batches: dict[Name, dict[Name, Sha256]]
    fingerprint: Sha256
    provenance: Trained


class Epoch(BaseModel):
    """One row of `history.csv`; its cells are text, so here types are converted."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    epoch: Positive
    learning_rate: float
    train_loss: float
    train_accuracy: Percent
    test_loss: float
    test_accuracy: Percent
    osr_fallbacks: Count
    silent_layers: Layers
    exploding_layers: Layers


class Memory(BaseModel):
    """One row of `memory.csv`: the bytes autograd keeps for the backward pass of one batch."""

    model_config = ConfigDict(frozen=True)
    method: Literal["online", "bptt"]
    steps: Positive
    bytes: Count


class Bins(Record):
    low: float
    high: float
    count: Positive


class LayerMembranes(Record):
    """Membrane potentials of one layer; each list holds one entry a time step."""

    name: Name
    counts: List[List[Count]]
    below: List[Count]
    above: List[Count]
    mean: List[float]
    std: List[float]
    threshold: List[float]


class Membranes(Record):
    """`membranes.json`: histograms of the membrane potential before the reset."""

    bins: Bins
    layers: Annotated[List[LayerMembranes], Field(min_length=1)]
