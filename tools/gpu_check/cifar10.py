"""Trains experiments of pipelines/cifar10, each with a cosine over as many epochs as there is time.

How many is decided before an experiment starts, from the speed of some of its batches, so that the
learning rate always falls to 0.
"""

import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import (
    Options,
    compared,
    experiment,
    noise,
    peak_gigabytes,
    release,
    synchronize,
)
from record import Row

from steadyspike import data
from steadyspike.bench.training_run import batch_seconds
from steadyspike.data import Dataset
from steadyspike.errors import first_line
from steadyspike.train.accuracy import Presentation, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.determinism import make_deterministic
from steadyspike.train.history import EpochRow, best_row
from steadyspike.train.trainer import Trainer

TARGET_EPOCHS, TARGET_ACCURACY = 60, 93.0  # of the paper's method
TARGET_FIRST_STEP = 3.0  # points by which its first step alone is less accurate than all together
FEWEST = 5  # epochs that say something
MARGIN = 0.95  # the part of the time left that is planned for
ENDING = 12.0  # seconds kept for building, recording and the last evaluations
HEADER = ["Epoch", "Learning rate", "Loss", "Training, %", "Test loss", "Test, %", "Fallbacks", "s"]


def measure(options: Options) -> Iterator[Row]:
    began = time.monotonic()
    make_deterministic()
    dataset = noise(64, 16, 12) if options.rehearse else _read(options)
    yield Row(
        "images",
        f"{len(dataset.train)} and {len(dataset.test)}, read in {time.monotonic() - began:.0f} s",
        data={"sha256": dataset.sha256()},
    )
    for name in options.experiments:
        release()
        left = options.seconds - (time.monotonic() - began)
        try:
            yield from _trained(options, dataset, name, left)
        except Exception as error:
            traceback.print_exc()
            yield Row(name, first_line(error), holds=False)


def _read(options: Options) -> Dataset:
    """CIFAR-10 below ``--images``, whose class folders may lie there directly."""
    if options.images is None:
        return data.load("cifar10")
    root = Path(options.images)
    if (root / "train").is_dir():
        link = Path(options.work) / "images" / "cifar10"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(root)
        root = link.parent
    return data.load("cifar10", root)


def _trained(options: Options, dataset: Dataset, name: str, left: float) -> Iterator[Row]:
    """A row after every epoch, each in place of the one before."""
    began = time.monotonic()
    epoch_seconds = _epoch_seconds(_experiment(options, name, 1), dataset)
    left -= time.monotonic() - began + ENDING
    epochs = min(options.epochs, int(MARGIN * left / epoch_seconds))
    if epochs < min(FEWEST, options.epochs):
        text = f"not run: {max(left, 0):.0f} s left, an epoch takes {epoch_seconds:.1f} s"
        yield Row(name, text)
        return
    release()
    one = _experiment(options, name, epochs)
    trainer = Trainer(one, dataset)
    began, training = time.monotonic(), 0.0
    seconds: list[float] = []
    while not trainer.finished:
        start = time.monotonic()
        for _ in trainer.run_epoch():
            pass
        synchronize()
        training += time.monotonic() - start
        row = trainer.finish_epoch()
        seconds.append(time.monotonic() - start)
        if not trainer.finished:
            text = f"unfinished: epoch {row.epoch} of {epochs}, test {row.test_accuracy:.2f} %"
            yield _row(name, text, one, trainer.rows, seconds, ended=False)
    whole = time.monotonic() - began
    result = _result(options, trainer, whole, training)
    final, steps = _final(trainer, dataset, training)
    yield _row(name, result, one, trainer.rows, seconds, **final)
    yield steps


def _experiment(options: Options, name: str, epochs: int) -> Experiment:
    graph = not options.rehearse
    training = {"epochs": epochs, "precision": options.precision, "cuda_graph": graph}
    return experiment(options, name, training=training)


def _epoch_seconds(one: Experiment, dataset: Dataset) -> float:
    """Of training and evaluation, from some batches after the graph is recorded."""
    trainer = Trainer(one, dataset)
    each = batch_seconds(trainer, *((20, 60) if one.device == "cuda" else (1, 2)))
    for _ in range(2):  # the first records a graph
        began = time.monotonic()
        evaluate(trainer.model, dataset, Presentation.of(one), present=trainer.present)
    return each * trainer.batches + time.monotonic() - began


def _row(
    name: str,
    result: str,
    one: Experiment,
    rows: list[EpochRow],
    seconds: list[float],
    **more: Any,
) -> Row:
    table = [HEADER]
    for row, each in zip(rows, seconds, strict=True):
        numbers = (row.train_loss, row.train_accuracy, row.test_loss, row.test_accuracy)
        cells = [f"{row.epoch}", f"{row.learning_rate:.5f}", *(f"{n:.3f}" for n in numbers)]
        table.append([*cells, f"{row.osr_fallbacks}", f"{each:.2f}"])
    epochs = [row.model_dump(mode="json") for row in rows]
    data = {"epochs": epochs, "seconds": seconds, **more.pop("data", {})}
    return Row(
        name, result, data=data, table=table, configuration=one.model_dump(mode="json"), **more
    )


def _result(options: Options, trainer: Trainer, whole: float, training: float) -> str:
    rows, epochs = trainer.rows, trainer.epoch
    fewer = f" (of {options.epochs}: no more time)" if epochs < options.epochs else ""
    speed = len(trainer.dataset.train) * epochs / training
    return (
        f"{rows[-1].test_accuracy:.2f} % after {epochs} epochs{fewer}, best "
        f"{best_row(rows).test_accuracy:.2f} %, {whole:.0f} s, {speed:,.0f} images/s in training, "
        f"peak {peak_gigabytes():.2f} GB"
    )


def _final(trainer: Trainer, dataset: Dataset, training: float) -> tuple[dict[str, Any], Row]:
    """The rest of the experiment's row, and one of the accuracy of each step."""
    one = trainer.experiment
    how = Presentation.of(one)
    scores = {
        "as used": evaluate(trainer.model, dataset, how),
        "by the batch's statistics": evaluate(
            trainer.model, dataset, replace(how, statistics="batch")
        ),
    }
    found = {
        "images_per_second": len(dataset.train) * trainer.epoch / training,
        "peak_gigabytes": peak_gigabytes(),
    }
    target = first_target = ""
    if one.name == "vggsnn-osr_ots" and trainer.epoch >= TARGET_EPOCHS:
        accuracy, first = scores["as used"].accuracy, scores["as used"].step_accuracy[0]
        target = compared(accuracy, "at least", TARGET_ACCURACY, " %")
        first_target = compared(accuracy - first, "at most", TARGET_FIRST_STEP, " points below")
    columns = [
        (f"{what}, {use}", values)
        for use, score in scores.items()
        for what, values in (("Alone", score.step_accuracy), ("Votes", score.votes_accuracy))
    ]
    each = zip(*(values for _, values in columns), strict=True)
    steps = Row(
        f"{one.name}, each step alone, %",
        "; ".join(f"{use} {_numbers(score.step_accuracy)}" for use, score in scores.items()),
        target=first_target,
        data=dict(columns),
        table=[
            ["Step", *(name for name, _ in columns)],
            *([f"{t}", *(f"{value:.2f}" for value in row)] for t, row in enumerate(each, start=1)),
        ],
    )
    return {"data": found, "target": target}, steps


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
