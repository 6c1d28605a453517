"""params.yaml -> a checked Experiment."""

import difflib
import hashlib
import json
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from steadyspike.errors import UserError
from steadyspike.train.params import read_params

Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

#: Keys that a resumed run may change: they move work about, never the trajectory.
RESUMABLE_CHANGES = frozenset({"device", "training.chunk", "training.cuda_graph"})


class _Checked(BaseModel):
    """Unknown keys, wrong types and impossible values are refused; nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatasetOptions(_Checked):
    """What is learned."""

    name: str
    augmentation: Literal[
        "none", "flip", "crop_flip", "crop_cutout_flip", "shrink", "crop_turn", "crop_flip_move"
    ]


class _ModelOptions(_Checked):
    """What all networks have; the names are those of their classes' arguments."""

    norm: Literal["osr", "per_step", "linear", "batch"]
    stabilize_threshold: bool
    online: bool
    reset: Literal["subtract", "zero"]
    tau: Annotated[float, Field(ge=1)]
    v_threshold: Annotated[Finite, Field(gt=0)]
    surrogate_slope: Annotated[Finite, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    inference_threshold: Literal["live", "fixed"]
    fallback_ratio: Annotated[float, Field(gt=0)]


# A key that is left out below takes the class's own value, which is the paper's.
class VGGSNNOptions(_ModelOptions):
    name: Literal["vggsnn"]
    widths: Annotated[list[Positive | Literal["P"]], Field(min_length=1)] | None = None
    head: Literal["linear", "gesture"] | None = None
    head_widths: Annotated[list[Positive], Field(min_length=1)] | None = None


class ResNet19Options(_ModelOptions):
    name: Literal["resnet19"]
    widths: Annotated[list[Positive], Field(min_length=1)] | None = None
    blocks: Annotated[list[Positive], Field(min_length=1)] | None = None
    hidden_width: Positive | None = None
    update_head_norm: bool | None = None


class ResNet34Options(_ModelOptions):
    name: Literal["sew_resnet34", "nf_resnet34"]
    widths: Annotated[list[Positive], Field(min_length=1)] | None = None
    blocks: Annotated[list[Positive], Field(min_length=1)] | None = None


ModelOptions = Annotated[
    VGGSNNOptions | ResNet19Options | ResNet34Options, Field(discriminator="name")
]


class TrainingOptions(_Checked):
    """How it is learned."""

    epochs: Positive
    batch: Positive
    steps: Positive
    chunk: Positive
    learning_rate: Annotated[Finite, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[Finite, Field(ge=0)]
    mse_weight: Fraction
    # tf32 is float32 whose products a GPU may round to 10 bits; bfloat16 is autocast.
    precision: Literal["float32", "tf32", "bfloat16", "float64"]
    # A batch's GPU work recorded once and launched as a whole: for batches too small for a GPU.
    cuda_graph: bool = False


class EvaluationOptions(_Checked):
    """How it is measured: OTS looks at the whole batch, so the batch is part of the result."""

    batch: Positive
    steps: Positive  # of event clips training may leave some out


class Experiment(_Checked):
    """Everything that decides a run."""

    name: str
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    device: Literal["cpu", "cuda"]
    dataset: DatasetOptions
    model: ModelOptions
    training: TrainingOptions
    evaluation: EvaluationOptions

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if self.training.chunk > self.training.steps:
            raise ValueError(
                f"training.chunk: at most training.steps ({self.training.steps}), "
                f"got {self.training.chunk}"
            )
        if not self.model.online and self.training.chunk != self.training.steps:
            raise ValueError(
                "training.chunk: BPTT (model.online: false) sees all steps at once, so it must "
                f"equal training.steps ({self.training.steps}), got {self.training.chunk}"
            )
        if self.training.cuda_graph and self.device != "cuda":
            raise ValueError(
                f"training.cuda_graph: expected false where device is {self.device!r}, got true"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each once, got {self.seeds}")
        if isinstance(self.model, VGGSNNOptions) and set(self.model.widths or ()) == {"P"}:
            raise ValueError("model.widths: at least one convolution, got only 'P'")
        return self

    @property
    def runs(self) -> "list[Experiment]":
        """One experiment for each seed."""
        return [self.model_copy(update={"seeds": [seed]}) for seed in self.seeds]

    @property
    def seed(self) -> int:
        """Of the first run."""
        return self.seeds[0]

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the trajectory."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()

    def decisive(self) -> dict[str, Any]:
        """The dotted keys and values that decide the trajectory."""
        return {
            key: value
            for key, value in _flatten(self.model_dump(mode="json")).items()
            if key not in RESUMABLE_CHANGES
        }


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def load_experiments(path: Path) -> dict[str, Experiment]:
    """Every experiment of a params.yaml, checked; UserError names file, key and expectation."""
    return {name: _check(path, name, values) for name, values in read_params(path).items()}


def load_experiment(path: Path, name: str) -> Experiment:
    """The experiment ``name`` of a params.yaml, all of which is checked."""
    experiments = load_experiments(path)
    if name not in experiments:
        known = ", ".join(experiments) or "none"
        raise UserError(f"{path}: experiments.{name}: no such experiment, expected one of: {known}")
    return experiments[name]


def _check(path: Path, name: str, values: dict[str, Any]) -> Experiment:
    if "name" in values:
        raise UserError(f"{path}: experiments.{name}.name: unknown key")
    try:
        return Experiment.model_validate({"name": name, **values})
    except ValidationError as error:
        told = "; ".join(dict.fromkeys(_tell(problem) for problem in error.errors()))
        raise UserError(f"{path}: experiments.{name}: {told}") from None


def _tell(problem: Any) -> str:
    # The name of the network stands in the location where the network's options were chosen by it.
    location = [part for part in problem["loc"] if part not in _NETWORKS]
    key = ".".join(str(part) for part in location)
    value = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key{_suggestion(problem['loc'])}"
        case "missing":
            return f"{key}: missing, in the defaults too"
        case "value_error":
            return str(problem["ctx"]["error"])
        case "union_tag_invalid":
            return f"{key}.name: expected one of: {', '.join(_NETWORKS)}, got {value['name']!r}"
        case "union_tag_not_found":
            return f"{key}.name: missing, in the defaults too"
        case _:
            shown = "a mapping" if isinstance(value, dict) else reprlib.repr(value)
            return f"{key}: {problem['msg'].replace('Input should', 'should', 1)}, got {shown}"


_NETWORKS: dict[str, type[_ModelOptions]] = {
    name: options
    for options in (VGGSNNOptions, ResNet19Options, ResNet34Options)
    for name in get_args(options.model_fields["name"].annotation)
}


def _suggestion(location: tuple[str, ...]) -> str:
    model: Any = Experiment
    for part in location[:-1]:
        if part in _NETWORKS:
            model = _NETWORKS[part]
        elif part != "model":
            model = model.model_fields[part].annotation
    known = [field for field in model.model_fields if field != "name" or model is not Experiment]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f" (did you mean {close[0]}?)" if close else f", expected one of: {', '.join(known)}"
