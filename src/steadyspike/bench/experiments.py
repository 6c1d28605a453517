"""`steadyspike bench --experiments`: a training batch of each experiment of a params.yaml."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from steadyspike import data
from steadyspike.bench.records import ExperimentSpeed
from steadyspike.bench.training_run import SKIPPED, next_seconds
from steadyspike.bench.training_run import WARM_UP as GPU_WARM_UP
from steadyspike.errors import UserError
from steadyspike.evaluate.memory import kept_bytes
from steadyspike.train.config import Experiment, load_experiments
from steadyspike.train.network import check_device
from steadyspike.train.params import flatten
from steadyspike.train.trainer import Trainer

#: Experiments that differ only here train equally fast.
NO_MATTER = ("name", "seeds", "training.weight_decay", "training.learning_rate", "training.epochs")
TURNS, BATCHES = 5, 8  # of each experiment; a turn's value is the mean of its batches
WARM_UP = {"cpu": 3, "cuda": GPU_WARM_UP}  # batches


def read(params: Path) -> list[Experiment]:
    """The experiments to measure, each with its first seed.

    Of those that differ in `NO_MATTER` alone, the first.

    Raises:
        UserError: the file cannot be read or has no experiment; their data sets or devices differ;
            the device is not here.
    """
    found: dict[str, Experiment] = {}
    for experiment in load_experiments(params).values():
        options = flatten(experiment.model_dump(mode="json"))
        deciding = {key: value for key, value in options.items() if key not in NO_MATTER}
        found.setdefault(json.dumps(deciding), experiment.runs[0])
    if not found:
        raise UserError(f"{params}: experiments: expected at least one experiment")
    first, *others = found.values()
    for key in ("dataset", "device"):
        if any(getattr(each, key) != getattr(first, key) for each in others):
            raise UserError(f"{params}: {key}: expected the same in all experiments")
    check_device(first)
    return [first, *others]


def measure(
    experiments: Sequence[Experiment], params: Path, show: Callable[[str], None]
) -> list[ExperimentSpeed]:
    """Time training in turns, A B C A B C, and count what is kept for the backward pass.

    Args:
        experiments: from `read`.
        params: their file, which an error names.
        show: called with a line on what comes next.

    Raises:
        UserError: the data set cannot be read, or has too few images for that many batches.
    """
    first = experiments[0]
    dataset = data.load(first.dataset.name, **first.dataset.options)
    epochs = []
    for experiment in experiments:
        trainer, warm_up = Trainer(experiment, dataset), WARM_UP[experiment.device]
        needed = SKIPPED + warm_up + TURNS * BATCHES
        if trainer.batches < needed:
            raise UserError(
                f"{params}: {experiment.name}: training.batch: an epoch has {trainer.batches} "
                f"batches, expected at least {needed}"
            )
        show(f"warming up {experiment.name}")
        trainer.batch = SKIPPED
        epochs.append((trainer, trainer.run_epoch()))
        next_seconds(*epochs[-1], warm_up)
    seconds: list[list[float]] = [[] for _ in epochs]
    for turn in range(TURNS):
        show(f"turn {turn + 1} of {TURNS}")
        for epoch, found in zip(epochs, seconds, strict=True):
            found.append(next_seconds(*epoch, BATCHES))
    return [
        ExperimentSpeed(
            experiment=trainer.experiment.name,
            seconds=found,
            batches=trainer.batches,
            kept_bytes=kept_bytes(trainer.experiment, dataset),
        )
        for (trainer, _), found in zip(epochs, seconds, strict=True)
    ]
