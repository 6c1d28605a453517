"""params.yaml -> a checked Experiment."""

import collections.abc
import difflib
import hashlib
import inspect
import json
import reprlib
from dataclasses import fields
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from torch import nn

from steadyspike import data
from steadyspike.data.augmentation import AUGMENTATIONS
from steadyspike.data.event_augmentation import EVENT_AUGMENTATIONS
from steadyspike.errors import UserError
from steadyspike.models import MODELS
from steadyspike.models.blocks import Layers
from steadyspike.snn.rules import RULES
from steadyspike.train.params import flatten, read_params

Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

#: Keys that a resumed run may change, since the results do not depend on them.
RESUMABLE_CHANGES = frozenset(
    {"device", "dataset.path", "training.chunk", "training.cuda_graph", "training.log"}
)
#: Arguments of a network that the data set decides; ResNet-19 alone has an image size.
_OF_THE_DATA = {"in_channels", "num_classes", "image_size"}
#: Options of `Layers` that the training decides.
_OF_THE_TRAINING = {"steps"}
_OF_LAYERS = [field.name for field in fields(Layers) if field.name not in _OF_THE_TRAINING]
#: Options added after the first results, with the value that reproduces those. An option with this
#: value is left out of `Experiment.decisive`, so that the fingerprints of those results hold.
_ADDED_LATER = {
    "model.rule": "sltt",
    "training.online_update": False,
    "training.backward_steps": None,
}


class _Section(BaseModel):
    """Refuses unknown keys and wrong types; immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatasetOptions(_Section):
    """The data set and its augmentation; ``path`` and on belong to a folder of your own images."""

    name: str
    augmentation: str
    validation: Positive | None = None  # measured: the last so many training images, held out
    path: str | None = None  # holds train/<class>/ and test/<class>/
    size: Positive | None = None  # images are resized to size x size
    channels: Literal[1, 3] | None = None  # 1: grey, 3: colour (the default)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `steadyspike.data.load` and `fetch`."""
        return self.model_dump(exclude={"name", "augmentation"}, exclude_none=True)

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        return _one_of("dataset.name", name, data.NAMES)

    @field_validator("augmentation")
    @classmethod
    def _known_augmentation(cls, name: str) -> str:
        return _one_of("dataset.augmentation", name, {**AUGMENTATIONS, **EVENT_AUGMENTATIONS})

    @model_validator(mode="after")
    def _of_this_data_set(self) -> "DatasetOptions":
        source = data.SOURCES[self.name]
        for key in source.required:
            if key not in self.options:
                raise ValueError(f"dataset.{key}: missing; {self.name} needs it")
        for key, value in self.options.items():
            if key not in (*source.required, *source.optional, "validation"):
                raise ValueError(f"dataset.{key}: {self.name} has no such option, got {value!r}")
        return self


def _one_of(key: str, name: str, known: collections.abc.Iterable[str]) -> str:
    if name not in known:
        raise ValueError(f"{key}: expected one of {', '.join(known)}, got {name!r}")
    return name


class ModelOptions(_Section):
    """The network and its options; a subclass for each network has them as fields.

    The options shared by all networks have the defaults of `Layers`; a network's own are None
    where they are left to its class.
    """

    name: str

    if TYPE_CHECKING:

        def __getattr__(self, option: str) -> Any: ...

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `steadyspike.models.build`."""
        return self.model_dump(exclude={"name"}, exclude_none=True)

    @model_validator(mode="after")
    def _possible(self) -> "ModelOptions":
        # The classes know which values are possible; a network's own options are checked when it
        # is built.
        own = {name: getattr(self, name) for name in _OF_LAYERS}
        layers = Layers(**own, steps=1)
        try:
            layers.make_neuron()
            layers.make_norm(1)
        except ValueError as error:
            raise ValueError(f"model.{error}") from None
        return self


def _options_of(name: str, network: type[nn.Module]) -> type[ModelOptions]:
    """The options of a network, read from its class and from `Layers`."""
    options: dict[str, Any] = {"name": (Literal[name], ...)}
    for field in fields(Layers):
        if field.name in _OF_LAYERS:
            options[field.name] = (field.type, field.default)
    for parameter in inspect.signature(network).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _OF_THE_DATA:
            options[parameter.name] = (_checked_type(parameter.annotation) | None, None)
    return create_model(f"{network.__name__}Options", __base__=ModelOptions, **options)


def _checked_type(annotation: Any) -> Any:
    """An argument's type as YAML gives it: a Sequence is a list, and an int is a count."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is int:
        return Positive
    if origin is collections.abc.Sequence:
        return Annotated[list[_checked_type(arguments[0])], Field(min_length=1)]  # type: ignore[misc]
    if origin in (Union, UnionType):
        return reduce(or_, map(_checked_type, arguments))
    return annotation


NETWORKS = {name: _options_of(name, network) for name, network in MODELS.items()}

if TYPE_CHECKING:
    AnyModelOptions = ModelOptions
else:
    AnyModelOptions = Annotated[reduce(or_, NETWORKS.values()), Field(discriminator="name")]


class TrainingOptions(_Section):
    """The optimization."""

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
    # Step the optimizer after each of the T steps, not once a batch.
    online_update: bool = False
    # K of rule sltt_k: how many of the T steps are learned from.
    backward_steps: Positive | None = None
    # Record the work of a batch once and launch it as a whole, where one GPU trains; the results
    # are the same.
    cuda_graph: bool = False
    # Losses and accuracies of each epoch for TensorBoard, beside the results and no part of them.
    log: Literal["tensorboard"] | None = None


class EvaluationOptions(_Section):
    """The evaluation. OTS takes statistics over the batch, so the batch size affects the result."""

    batch: Positive
    steps: Positive  # event clips may be evaluated with more steps than they are trained with


class Experiment(_Section):
    """Everything that decides a run."""

    name: str
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    device: Literal["cpu", "cuda"]
    dataset: DatasetOptions
    model: AnyModelOptions
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
        self._check_updates()
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each once, got {self.seeds}")
        return self

    def _check_updates(self) -> None:
        options, draws = self.training, RULES[self.model.rule].draws_steps
        if draws and options.backward_steps is None:
            raise ValueError(
                f"training.backward_steps: missing; model.rule {self.model.rule} needs it"
            )
        if options.backward_steps is not None:
            if not draws:
                raise ValueError(
                    "training.backward_steps: only with model.rule sltt_k, "
                    f"got {options.backward_steps} with {self.model.rule}"
                )
            if options.backward_steps > options.steps:
                raise ValueError(
                    f"training.backward_steps: at most training.steps ({options.steps}), "
                    f"got {options.backward_steps}"
                )
        if options.online_update and not self.model.online:
            raise ValueError(
                "training.online_update: BPTT (model.online: false) has its gradient after the "
                "last step alone, expected false, got true"
            )
        if options.online_update and options.chunk != 1:
            raise ValueError(
                "training.chunk: training.online_update steps the optimizer after every time "
                f"step, so it must be 1, got {options.chunk}"
            )

    @property
    def runs(self) -> "list[Experiment]":
        """One experiment for each seed."""
        return [self.model_copy(update={"seeds": [seed]}) for seed in self.seeds]

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.seeds[0]

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the result."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()

    def decisive(self) -> dict[str, Any]:
        """The dotted keys and values that decide the result."""
        return {
            key: value
            for key, value in flatten(self.model_dump(mode="json")).items()
            if key not in RESUMABLE_CHANGES
            # Options that most data sets do not have.
            and not (value is None and key.startswith("dataset."))
            and not (key in _ADDED_LATER and value == _ADDED_LATER[key])
        }


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
        problems = "; ".join(dict.fromkeys(_describe(problem) for problem in error.errors()))
        raise UserError(f"{path}: experiments.{name}: {problems}") from None


def _describe(problem: Any) -> str:
    """One of pydantic's errors as ``key: what was expected``."""
    # Below `model` pydantic adds the network's name, which chose the options.
    location = [part for part in problem["loc"] if part not in NETWORKS]
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
            return f"{key}.name: expected one of: {', '.join(NETWORKS)}, got {value['name']!r}"
        case "union_tag_not_found":
            return f"{key}.name: missing, in the defaults too"
        case _:
            shown = "a mapping" if isinstance(value, dict) else reprlib.repr(value)
            return f"{key}: {problem['msg'].replace('Input should', 'should', 1)}, got {shown}"


def _suggestion(location: tuple[str, ...]) -> str:
    section: Any = Experiment
    for part in location[:-1]:
        if part in NETWORKS:
            section = NETWORKS[part]
        elif part != "model":
            section = section.model_fields[part].annotation
    known = [key for key in section.model_fields if key != "name" or section is not Experiment]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f" (did you mean {close[0]}?)" if close else f", expected one of: {', '.join(known)}"
