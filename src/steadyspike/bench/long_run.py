"""Training on all of Fashion-MNIST, padded to 32×32, for as long as the user gives it."""

import time

import torch
import torch.nn.functional as F

from steadyspike import data
from steadyspike.bench import machine
from steadyspike.bench.contenders import FUSED
from steadyspike.bench.options import Options
from steadyspike.bench.ours import experiment_of
from steadyspike.bench.plan import comparisons
from steadyspike.bench.records import Training, file_of, read_bench
from steadyspike.bench.setting import Setting
from steadyspike.bench.tables import trained
from steadyspike.bench.write import render, save
from steadyspike.console import notify
from steadyspike.data import Dataset
from steadyspike.data.collate import frame_shape
from steadyspike.data.dataset import Samples, Split
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.train.config import DatasetOptions, Experiment
from steadyspike.train.determinism import make_deterministic
from steadyspike.train.trainer import Trainer

NAME = "fashion_mnist"
SIDE = 32
WARM_BATCHES = 20  # compile kernels and choose among libraries' before a batch's time counts
MARGIN = 0.95  # of the minutes that the planned epochs may fill


def train_for(minutes: float, options: Options) -> None:
    """Train for about ``minutes``, as many whole epochs as they hold, and tell the accuracy.

    The learning rate falls to zero over those epochs, whose number a few batches decide. The
    result is printed and added to the measurements of the device in ``options.out``, if any.
    """
    make_deterministic()
    setting = longest_chunk(options)
    training = train_on(padded(data.load(NAME), SIDE), setting, 60 * minutes)
    print(trained(training))
    path = file_of(options.out, options.device)
    found = read_bench(path)
    if found is None:
        path = options.out / f"training-{options.device}.json"
        write_atomically(path, training.model_dump_json(indent=1) + "\n")
        print(path)
        return
    save(found.model_copy(update={"training": training}), options.out)
    for written in (path, *render(options.out, options.readme)):
        print(written)


def longest_chunk(options: Options) -> Setting:
    """The first comparison's setting with the greatest K that was asked for: the fastest."""
    settings = [setting for contender, setting in comparisons(options)[0] if contender is FUSED]
    greatest = max(settings, key=lambda setting: setting.chunk)
    return greatest.but(pinned=False)


def padded(dataset: Dataset, side: int) -> Dataset:
    """The data set with its images in the middle of black ones of ``side`` by ``side``."""

    def wider(samples: Samples) -> Split:
        if not isinstance(samples, Split):
            raise UserError(f"{dataset.name}: expected a data set that is held in memory")
        height, width = samples.images.shape[-2:]
        top, left = (side - height) // 2, (side - width) // 2
        frame = (left, side - width - left, top, side - height - top)
        return Split(F.pad(samples.images, frame), samples.labels)

    return Dataset(
        dataset.name,
        dataset.classes,
        dataset.mean,
        dataset.std,
        wider(dataset.train),
        wider(dataset.test),
    )


def train_on(dataset: Dataset, setting: Setting, seconds: float) -> Training:
    """As many epochs as ``seconds`` hold, at least one; the measuring counts too."""
    began = time.monotonic()
    experiment = experiment_of(setting).model_copy(
        update={"dataset": DatasetOptions(name=NAME, augmentation="crop_flip")}
    )
    epoch = _epoch_seconds(Trainer(experiment, dataset))
    left = MARGIN * seconds - (time.monotonic() - began)
    epochs = max(1, int(left / epoch))
    notify(f"an epoch takes about {epoch:.1f} s: {epochs} of them")
    trainer = Trainer(_of_epochs(experiment, epochs), dataset)
    while not trainer.finished:
        for _ in trainer.run_epoch():
            pass
        row = trainer.finish_epoch()
        notify(
            f"{time.monotonic() - began:6.0f} s  epoch {trainer.epoch} of {epochs}: "
            f"test accuracy {row.test_accuracy:.2f} %"
        )
    accuracies = [row.test_accuracy for row in trainer.rows]
    took = time.monotonic() - began
    return Training(
        dataset=dataset.name,
        setting=setting.but(image=frame_shape(dataset)),
        minutes=took / 60,
        epochs=epochs,
        seconds_an_epoch=took / epochs,
        accuracy_last=accuracies[-1],
        accuracy_best=max(accuracies),
        on=machine.device_name(setting.device),
        date=machine.now(),
    )


def _epoch_seconds(trainer: Trainer) -> float:
    """Of an epoch and its evaluation, from some batches after the warm-up."""
    measured = min(WARM_BATCHES, max(1, trainer.batches // 4))
    batches = trainer.run_epoch()
    for _ in range(min(measured, trainer.batches - measured)):
        next(batches)
    _wait()
    began = time.monotonic()
    for _ in range(measured):
        next(batches)
    _wait()
    each = (time.monotonic() - began) / measured
    # An image of the test split costs a forward pass, about a third of a step.
    tests = len(trainer.dataset.test) / (3 * trainer.experiment.training.batch)
    return each * (trainer.batches + tests)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _of_epochs(experiment: Experiment, epochs: int) -> Experiment:
    training = experiment.training.model_copy(update={"epochs": epochs})
    return experiment.model_copy(update={"training": training})
