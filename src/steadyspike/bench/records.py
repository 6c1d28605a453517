"""The JSON file of a benchmark: one schema for writing and reading it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steadyspike.errors import UserError
from steadyspike.files import write_atomically

EXPERIMENTS_FILE = "bench.json"  # beside the params.yaml of the experiments
Precision = Literal["float32", "tf32", "bfloat16"]


class Record(BaseModel):
    """Refuses unknown keys and wrong types; immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Setting(Record):
    """What one worker trains: VGGSNN on still images of noise with random labels."""

    batch: int = 32  # N
    steps: int = 4  # T
    chunk: int = 1  # K
    precision: Precision = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    image: tuple[int, int, int] = (3, 32, 32)  # C, H, W
    widths: tuple[int | Literal["P"], ...] | None = None  # of VGGSNN; None for the paper's

    def but(self, **changes: Any) -> "Setting":
        """A copy with other values, checked."""
        return Setting.model_validate({**self.model_dump(), **changes})


class Measurement(Record):
    """One framework in one setting; what was not measured is None or empty.

    Args:
        framework: `Framework.key`.
        setting: of its worker.
        variant: the fastest of the ways in which the framework can run the step.
        seconds: of a whole training step, one value per turn.
        steps_per_turn: how many steps each of these values is the mean of.
        convolution_seconds: of the step's convolutions alone, one value per turn.
        peak_bytes: peak memory of a step, above that of the process before it built the network.
        kept_bytes: the most that autograd keeps for the backward pass at any moment.
        failed: why the worker failed, or why there was none.
    """

    framework: str
    setting: Setting
    variant: str = ""
    seconds: list[float] = []
    steps_per_turn: int = 1
    convolution_seconds: list[float] = []
    peak_bytes: int | None = None
    kept_bytes: int | None = None
    failed: str | None = None


class Waiting(Record):
    """The share of training time between one step's end and the next one's first forward pass."""

    dataset: str
    precision: Precision
    batch: int
    batches: int = 0  # measured
    seconds: float = 0.0  # of one batch, waiting included
    share: float | None = None
    failed: str | None = None


class Training(Record):
    """A training run of a given length."""

    dataset: str
    setting: Setting
    minutes: float
    epochs: int
    accuracy: float  # percent, on the test split after the last epoch
    processor: str  # or GPU
    date: str


class ExperimentSpeed(Record):
    """A training batch of an experiment."""

    experiment: str
    seconds: list[float] = Field(min_length=1)  # of a batch, one value per turn
    batches: int  # of an epoch
    kept_bytes: int  # the most that autograd keeps for the backward pass at any moment


class Machine(Record):
    device: Literal["cpu", "cuda"]
    processor: str
    cores: int
    instructions: str  # vector instructions that torch uses
    gpu: str | None = None
    system: str
    load: float | None = None  # mean number of running processes in the minute before


class Measured(Record):
    """When, of which commit and where something was measured."""

    schema_version: Literal[2] = 2
    date: str  # ISO 8601, UTC
    commit: str | None
    machine: Machine
    versions: dict[str, str]


class Bench(Measured):
    """A whole run."""

    measurements: list[Measurement] = Field(min_length=1)
    waiting: Waiting | None = None
    training: Training | None = None


class ExperimentsBench(Measured):
    """The experiments of a params.yaml beside each other."""

    experiments: list[ExperimentSpeed] = Field(min_length=1)


def bench_file(folder: Path, device: str) -> Path:
    return folder / f"bench-{device}.json"


def save(bench: Bench, folder: Path) -> Path:
    path = bench_file(folder, bench.machine.device)
    write_atomically(path, bench.model_dump_json(indent=1) + "\n")
    return path


def load(path: Path) -> Bench | None:
    """The file's content, None if there is no such file; UserError if it is of another schema."""
    try:
        return Bench.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        reason = f"{place}: {problem['msg']}"
    except UnicodeDecodeError as error:
        reason = str(error)
    raise UserError(f"{path}: expected the JSON of this version's `steadyspike bench`: {reason}")
