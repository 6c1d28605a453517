"""Loss and accuracy of a network on a split."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadyspike.data import Dataset
from steadyspike.data.collate import evaluation_clip, holds_clips
from steadyspike.data.loading import batches
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.sequence import sequence
from steadyspike.train.config import Experiment
from steadyspike.train.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Score:
    """Mean loss per sample, and top-1 accuracy in percent."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Presentation:
    """How samples are presented: batch size, T, K, and ε, the weight of the MSE in the loss."""

    batch: int
    steps: int
    chunk: int
    mse_weight: float
    still: bool = True  # the first layer computes a still image once, not at every step

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
) -> Score:
    """The score of ``model``, in evaluation mode, over all of the test split in its own order.

    The prediction is the class with the greatest sum of logits over the T steps. OTS on the live
    batch makes the result depend on ``how.batch``. Several processes take whole batches in turn,
    so the result is the same bits as with one. ``after_batch`` is called after every batch.
    """
    count = math.ceil(len(dataset.test) / how.batch)
    mine = range(ranks.rank, count, ranks.world)
    device = next(model.parameters()).device
    scores = torch.zeros(count, 2, dtype=torch.float64, device=device)  # loss, correct
    # If ``after_batch`` raises, closing the generator restores training mode.
    with closing(presentations(model, dataset, how, mine)) as shown:
        for place, (logits, labels) in zip(mine, shown, strict=True):
            loss = tet_loss(logits, labels, steps=how.steps, mse_weight=how.mse_weight)
            scores[place, 0] = loss * len(labels)
            scores[place, 1] = (logits.sum(0).argmax(1) == labels).sum()
            if after_batch is not None:
                after_batch()
    ranks.sum(scores)
    # The only wait for the device.
    total_loss, correct = scores.sum(0).tolist()
    size = len(dataset.test)
    return Score(total_loss / size, 100 * correct / size)


def presentations(
    model: nn.Module, dataset: Dataset, how: Presentation, chosen: Sequence[int] | None = None
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The test split given to ``model`` in evaluation mode: logits (T, N, classes), labels (N,).

    ``chosen`` are the indices of the batches to show, ascending; None is all.
    """
    still = how.still and not holds_clips(dataset)
    was_training = model.training
    model.eval()
    parameter = next(model.parameters())
    order = torch.arange(len(dataset.test))
    if chosen is not None:
        parts = order.split(how.batch)
        order = torch.cat([order[:0], *(parts[place] for place in chosen)])
    try:
        with torch.no_grad():
            for _, samples, labels in batches(dataset.test, order, how.batch):
                clip = evaluation_clip(
                    samples.to(parameter.device), dataset, steps=how.steps, dtype=parameter.dtype
                )
                with sequence(model, steps=how.steps, still=still):
                    logits = torch.cat([model(chunk) for chunk in clip.split(how.chunk)])
                yield logits, labels.to(parameter.device)
    finally:
        model.train(was_training)
