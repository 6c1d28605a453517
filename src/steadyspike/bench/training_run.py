"""Training on a real data set: the time spent waiting for data, and a run of a given length."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from steadyspike.bench.records import Setting, Training
from steadyspike.bench.training_step import experiment_of
from steadyspike.console import notify
from steadyspike.data import Dataset
from steadyspike.data.collate import frame_shape
from steadyspike.snn.shard import Shard
from steadyspike.train.config import Experiment
from steadyspike.train.graph import WARM_UP as GRAPH_WARM_UP
from steadyspike.train.graph import Replayed
from steadyspike.train.trainer import DIGEST_BATCHES, Trainer

SECONDS, BATCHES = 6.0, 200  # waiting is measured for so long, over at most so many batches
SKIPPED = max(DIGEST_BATCHES)  # batches after which the weights are hashed
WARM_UP = 20  # batches before anything is timed
CLIPS = 10  # that are made to see how long one takes
MARGIN = 0.95  # the part of the given time that is planned for


def waiting_for(
    dataset: Dataset, experiment: Experiment, *, most: int = BATCHES, seconds: float = SECONDS
) -> dict[str, Any]:
    """How long the training loop waits between an optimizer step and the next forward pass.

    That is the time in which a batch is read, copied and augmented. On a GPU both moments are
    those of its own queue: reading during computation costs nothing. There the first `WARM_UP`
    batches are not counted: they compile kernels and record graphs.

    Args:
        dataset: to train on.
        experiment: how; batches are smaller if there would be too few.
        most: batches to measure.
        seconds: after which no further batch is measured.

    Returns:
        fields of `records.Waiting`.
    """
    warm_up = WARM_UP if experiment.device == "cuda" else 0
    # Enough batches must follow the hashed ones.
    most_images = len(dataset.train) // (SKIPPED + warm_up + 3)
    batch = max(1, min(experiment.training.batch, most_images))
    training = experiment.training.model_copy(update={"batch": batch})
    now, seconds_between = _clock(experiment.device)
    trainer = _Timed(experiment.model_copy(update={"training": training}), dataset, now)
    trainer.batch = SKIPPED
    start = time.perf_counter()
    for number, _ in enumerate(trainer.run_epoch(), start=1):
        if number == warm_up:
            trainer.began.clear()
            trainer.ended.clear()
            start = time.perf_counter()
        over = time.perf_counter() - start > seconds
        done = len(trainer.ended) - 1
        if number > warm_up and (done >= most or (done > 1 and over)):
            break
    began, ended = trainer.began, trainer.ended
    batches, total = len(ended) - 1, seconds_between(ended[0], ended[-1])
    idle = sum(map(seconds_between, ended[:-1], began[1:]))
    preparing = batches * _seconds_of_clip(trainer)
    return {
        "batch": batch,
        "batches": batches,
        "seconds": total / batches,
        "share": (idle + preparing) / total,
    }


class _Timed(Trainer):
    """Marks when each batch has come, and when its step has ended."""

    def __init__(self, experiment: Experiment, dataset: Dataset, now: Callable[[], Any]) -> None:
        super().__init__(experiment, dataset)
        self.now = now
        self.began: list[Any] = []
        self.ended: list[Any] = []

    def _train_batch(self, inputs: Sequence[Tensor], shard: Shard | None) -> None:
        self.began.append(self.now())
        super()._train_batch(inputs, shard)
        self.ended.append(self.now())
        self.inputs = inputs


def _seconds_of_clip(trainer: _Timed) -> float:
    """Of the augmentation and normalization of one batch, which are part of its step."""
    samples, _, *drawn = trainer.inputs
    make: Callable[..., Tensor] = trainer.passes.clip
    if trainer.recorder is not None:
        make = Replayed(make, trainer.recorder, drawn[0].device)
        for _ in range(GRAPH_WARM_UP + 1):
            make(samples, *drawn)
    _, seconds_between = _clock(trainer.experiment.device)
    first = trainer.now()
    for _ in range(CLIPS):
        make(samples, *drawn)
    return seconds_between(first, trainer.now()) / CLIPS


def _clock(device: str) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """A function that marks a moment, and one that gives the seconds between two marks."""
    if device != "cuda":
        return time.perf_counter, lambda first, second: second - first

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        torch.cuda.synchronize()
        return float(first.elapsed_time(second)) / 1000

    return mark, between


def train_for(
    minutes: float, dataset: Dataset, setting: Setting, *, processor: str, date: str
) -> Training:
    """Train for as many whole epochs as ``minutes`` hold, at least one.

    The learning rate falls to 0 over these epochs; their number is estimated from a few batches.
    """
    start = time.monotonic()
    epoch = _epoch_seconds(Trainer(experiment_of(setting, dataset=dataset.name), dataset))
    left = MARGIN * 60 * minutes - (time.monotonic() - start)
    epochs = max(1, int(left / epoch))
    notify(f"an epoch takes about {epoch:.1f} s: training {epochs} epochs")
    trainer = Trainer(experiment_of(setting, dataset=dataset.name, epochs=epochs), dataset)
    while not trainer.finished:
        for _ in trainer.run_epoch():
            pass
        row = trainer.finish_epoch()
        notify(
            f"{time.monotonic() - start:6.0f} s  epoch {trainer.epoch} of {epochs}: "
            f"test accuracy {row.test_accuracy:.2f} %"
        )
    return Training(
        dataset=dataset.name,
        setting=setting.but(image=frame_shape(dataset)),
        minutes=(time.monotonic() - start) / 60,
        epochs=epochs,
        accuracy=trainer.rows[-1].test_accuracy,
        processor=processor,
        date=date,
    )


def _epoch_seconds(trainer: Trainer) -> float:
    """Estimated seconds of an epoch and its evaluation."""
    count = min(WARM_UP, max(1, trainer.batches // 4))
    # A test image costs a forward pass, about a third of a training step.
    tests = len(trainer.dataset.test) / (3 * trainer.experiment.training.batch)
    return batch_seconds(trainer, count, count) * (trainer.batches + tests)


def batch_seconds(trainer: Trainer, warm_up: int, count: int) -> float:
    """Seconds of a batch of training: the mean of ``count`` after ``warm_up`` others."""
    batches = trainer.run_epoch()
    next_seconds(trainer, batches, warm_up)
    return next_seconds(trainer, batches, count)


def next_seconds(trainer: Trainer, batches: Iterator[int], count: int) -> float:
    """Seconds of a batch: the mean of the next ``count`` of the trainer's epoch."""
    start = time.monotonic()
    for _ in range(count):
        next(batches, None)
    trainer.running_metrics()  # waits for the device
    return (time.monotonic() - start) / count
