"""What a run of the benchmark measured, as its JSON file holds it."""

from pathlib import Path

from pydantic import Field, ValidationError

from steadyspike.bench.setting import Checked, Setting
from steadyspike.errors import UserError

SCHEMA = 1


class Measurement(Checked):
    """One contender in one setting; what was not measured is None or empty.

    Args:
        contender: its key.
        variant: how its library ran, the fastest of what it offers.
        seconds: of a whole training step, one value a turn.
        steps_a_turn: a turn's value is the mean of so many steps.
        convolution_seconds: of the same step's convolutions and matrix products alone, by turn.
        operations: of those, in a step, floating-point.
        peak_bytes: the most memory of a training step, above what there was before the network.
        kept_bytes: the most that autograd keeps for backward.
    """

    contender: str
    setting: Setting
    variant: str
    seconds: list[float] = Field(default_factory=list)
    steps_a_turn: int = 1
    convolution_seconds: list[float] = Field(default_factory=list)
    operations: int | None = None
    peak_bytes: int | None = None
    kept_bytes: int | None = None


class Skipped(Checked):
    """A contender that was asked for and not measured."""

    contender: str
    precision: str
    steps: int
    reason: str


class Waiting(Checked):
    """How long training on a data set waits for its next batch: reading, moving, augmenting."""

    dataset: str
    precision: str
    steps: int
    batch: int
    batches: int
    share: float  # of the time from one step's end to the next one's
    seconds: float  # of one batch, all told


class Training(Checked):
    """A training run of a given length."""

    dataset: str
    setting: Setting
    minutes: float
    epochs: int
    seconds_an_epoch: float
    accuracy_last: float  # percent, of the test split
    accuracy_best: float
    on: str  # the processor or GPU
    date: str


class Machine(Checked):
    """Where it ran."""

    device: str
    processor: str
    cores: int
    memory_bytes: int | None
    instructions: str
    gpu: str | None
    gpu_memory_bytes: int | None
    cuda: str | None
    system: str
    load: float | None  # processes that wanted a core in the minute before


class Bench(Checked):
    """A whole run."""

    schema_version: int = SCHEMA
    date: str  # ISO 8601, UTC
    commit: str | None
    changed: bool  # files differ from that commit
    machine: Machine
    versions: dict[str, str]
    measurements: list[Measurement]
    skipped: list[Skipped]
    waiting: list[Waiting]
    unread: list[str]  # why waiting was not measured
    training: Training | None = None


def file_of(folder: Path, device: str) -> Path:
    """The JSON file of a device's measurements."""
    return folder / f"bench-{device}.json"


def read_bench(path: Path) -> Bench | None:
    """What the file holds; None if there is none; UserError if it is no such file."""
    try:
        return Bench.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: expected measurements of this version's `steadyspike bench`: {_first(error)}"
        ) from None


def _first(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
    return str(error)
