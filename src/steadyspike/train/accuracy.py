"""Loss and accuracy of a network on a split."""

import copy
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from steadyspike.data import Dataset
from steadyspike.data.collate import evaluation_clip, holds_clips
from steadyspike.data.loading import batches
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import BatchNorm, StepNorm
from steadyspike.snn.sequence import sequence
from steadyspike.train.config import Experiment
from steadyspike.train.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Score:
    """Mean loss per sample, and top-1 accuracy in percent after each of the T steps.

    Attributes:
        loss: over all steps.
        step_accuracy: of each step's own output.
        votes_accuracy: of the sum of the outputs up to each step.
    """

    loss: float
    step_accuracy: tuple[float, ...]
    votes_accuracy: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Of the sum of all outputs."""
        return self.votes_accuracy[-1]


@dataclass(frozen=True)
class Presentation:
    """How samples are presented: batch size, T, K, and ε, the weight of the MSE in the loss.

    Attributes:
        still: whether the first layer computes a still image once, not at every step.
        statistics: ``"inference"`` for the network as it is used, ``"batch"`` for the function
            that training computes, as `as_in_training` makes it.
    """

    batch: int
    steps: int
    chunk: int
    mse_weight: float
    still: bool = True
    statistics: Literal["inference", "batch"] = "inference"

    @classmethod
    def of(cls, experiment: Experiment) -> "Presentation":
        """The evaluation settings of an experiment."""
        return cls(
            batch=experiment.evaluation.batch,
            steps=experiment.evaluation.steps,
            # As in training, which shows that this much memory is there.
            chunk=min(experiment.training.chunk, experiment.evaluation.steps),
            mse_weight=experiment.training.mse_weight,
        )


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    how: Presentation,
    ranks: Ranks = ALONE,
    after_batch: Callable[[], None] | None = None,
    present: Callable[[Tensor], Tensor] | None = None,
) -> Score:
    """The score of ``model``, in evaluation mode, over all of the test split in its own order.

    The prediction is the class with the greatest sum of logits over the T steps. OTS on the live
    batch makes the result depend on ``how.batch``. Several processes take whole batches in turn,
    so the result is the same bits as with one. ``after_batch`` is called after every batch.
    ``present`` may do what `present_batch` does in another way.
    """
    count = math.ceil(len(dataset.test) / how.batch)
    mine = range(ranks.rank, count, ranks.world)
    device = next(model.parameters()).device
    # Of each batch the loss, then the correct answers of each step and of the votes up to it.
    scores = torch.zeros(count, 1 + 2 * how.steps, dtype=torch.float64, device=device)
    # If ``after_batch`` raises, closing the generator restores training mode.
    with closing(presentations(model, dataset, how, mine, present)) as shown:
        for place, (logits, labels) in zip(mine, shown, strict=True):
            loss = tet_loss(logits, labels, steps=how.steps, mse_weight=how.mse_weight)
            votes = torch.stack(list(accumulate(logits)))  # (T, N, classes)
            scores[place, 0] = loss * len(labels)
            scores[place, 1:] = (torch.cat([logits, votes]).argmax(2) == labels).sum(1)
            if after_batch is not None:
                after_batch()
    ranks.sum(scores)
    # The only wait for the device.
    total_loss, *correct = scores.sum(0).tolist()
    size = len(dataset.test)
    accuracy = tuple(100 * each / size for each in correct)
    return Score(total_loss / size, accuracy[: how.steps], accuracy[how.steps :])


def present_batch(model: nn.Module, dataset: Dataset, how: Presentation, samples: Tensor) -> Tensor:
    """Logits (T, N, classes) of samples (N, ...), which need not be on the model's device."""
    parameter = next(model.parameters())
    samples = samples.to(parameter.device, non_blocking=True)
    clip = evaluation_clip(samples, dataset, steps=how.steps, dtype=parameter.dtype)
    with sequence(model, steps=how.steps, still=how.still and not holds_clips(dataset)):
        return torch.cat([model(chunk) for chunk in clip.split(how.chunk)])


def presentations(
    model: nn.Module,
    dataset: Dataset,
    how: Presentation,
    chosen: Sequence[int] | None = None,
    present: Callable[[Tensor], Tensor] | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The test split given to ``model`` in evaluation mode: logits (T, N, classes), labels (N,).

    ``chosen`` are the indices of the batches to show, ascending; None is all. ``present`` is as
    in `evaluate`. With ``how.statistics == "batch"`` a copy of the model is shown them, by
    `as_in_training`.
    """
    was_training = model.training
    model.eval()
    shown = as_in_training(model) if how.statistics == "batch" else model
    present = present or partial(present_batch, shown, dataset, how)
    device = next(model.parameters()).device
    order = torch.arange(len(dataset.test))
    if chosen is not None:
        parts = order.split(how.batch)
        order = torch.cat([order[:0], *(parts[place] for place in chosen)])
    try:
        with torch.no_grad():
            for _, samples, labels in batches(dataset.test, order, how.batch):
                yield present(samples), labels.to(device, non_blocking=True)
    finally:
        model.train(was_training)


def as_in_training(model: nn.Module) -> nn.Module:
    """A copy of the network that computes the function of training and learns nothing from it.

    Norms normalize each step as in training: by the batch's own statistics, or, OSR and the linear
    transform, by the running ones (where training and inference are the same function, but for
    OSR's fallback). OTS takes its thresholds from the batch. Dropout is off. Running statistics
    stay as they are.
    """
    network = copy.deepcopy(model).eval()
    for module in network.modules():
        if isinstance(module, StepNorm | BatchNorm):
            module.train()
            module.momentum = 0.0  # the weight with which a batch would move the running statistics
        elif isinstance(module, LIF):
            module.inference_threshold = "live"
    return network
