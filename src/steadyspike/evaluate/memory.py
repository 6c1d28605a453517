"""Bytes that autograd keeps for the backward pass, counted exactly (Figure 2a)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from steadyspike.data import Dataset
from steadyspike.data.collate import augmentation_for, holds_clips, training_clip
from steadyspike.data.event_augmentation import kept_steps
from steadyspike.data.loading import batches
from steadyspike.evaluate.metrics import Memory, write_memory
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence
from steadyspike.train.config import Experiment
from steadyspike.train.network import build_model

STEPS = (2, 4, 6, 8, 10, 15, 20, 25, 30)  # T of Figure 2a


class KeptBytes:
    """Bytes of the storages that autograd saves for backward, each storage counted once.

    Parameters are not counted, nor are the membranes that the next step starts from: both exist
    with or without a backward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._neurons = [module for module in model.modules() if isinstance(module, LIF)]
        self._kept: dict[int, int] = {}  # bytes by storage

    @property
    def total(self) -> int:
        """Bytes saved by the last `counted` body."""
        membranes = [neuron.state.u for neuron in self._neurons]
        shared = sum(
            membrane.nbytes
            for membrane in membranes
            if membrane is not None and membrane.untyped_storage()._cdata in self._kept
        )
        return sum(self._kept.values()) - shared

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count, from zero, what the forward passes of the body save for backward."""
        self._kept = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._own:
                self._kept[storage._cdata] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield


def kept_for_backward(
    model: nn.Module, frames: Tensor, labels: Tensor, *, steps: int, chunk: int
) -> int:
    """The most bytes that autograd keeps at any time of one training batch.

    Each call of K steps is followed by its backward pass, which frees what was kept. The maximum
    is therefore at the end of a call's forward pass: the activations of one step in online
    training with K = 1, those of all T steps in BPTT.

    Args:
        model: in training mode; its running statistics and gradients are changed.
        frames: still frames (N, C, H, W), shown at every step.
        labels: (N,).
        steps: T.
        chunk: K.
    """
    kept = KeptBytes(model)
    most = 0
    clip = frames.expand(steps, *frames.shape)
    with sequence(model, steps=steps, still=True):
        for part in clip.split(chunk):
            with kept.counted():
                loss = tet_loss(model(part), labels, steps=steps, mse_weight=0.05)
            most = max(most, kept.total)
            loss.backward()
    return most


def measure_memory(online: Experiment, bptt: Experiment, dataset: Dataset, path: Path) -> None:
    """Write ``memory.csv``: the bytes autograd keeps, by method, K and T (Figure 2a).

    Online training is given one step a call, and as many as ``online`` trains with; BPTT all T of
    them. All see the first training samples of ``dataset``, one frame of each at every step.
    """
    rows = []
    for chunk in sorted({1, online.training.chunk}):
        rows += _by_steps("online", online, dataset, dict.fromkeys(STEPS, chunk))
    rows += _by_steps("bptt", bptt, dataset, {steps: steps for steps in STEPS})
    write_memory(path, rows)


def kept_bytes(experiment: Experiment, dataset: Dataset) -> int:
    """The most bytes that autograd keeps at any time of one training batch of an experiment."""
    model = build_model(experiment, dataset).train()
    options = experiment.training
    return kept_for_backward(
        model, *_first_batch(experiment, dataset), steps=options.steps, chunk=options.chunk
    )


def _by_steps(
    method: Literal["online", "bptt"],
    experiment: Experiment,
    dataset: Dataset,
    chunks: Mapping[int, int],
) -> list[Memory]:
    """One row for each T; ``chunks`` gives its K."""
    frame, labels = _first_batch(experiment, dataset)
    rows = []
    for steps, chunk in chunks.items():
        model = build_model(experiment, dataset).train()
        kept = kept_for_backward(model, frame, labels, steps=steps, chunk=chunk)
        rows.append(Memory(method=method, chunk=chunk, steps=steps, bytes=kept))
    return rows


def _first_batch(experiment: Experiment, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Frames (N, C, H, W) and labels (N,) on the experiment's device."""
    batch = experiment.training.batch
    first = torch.arange(min(batch, len(dataset.train)))
    indices, samples, labels = next(batches(dataset.train, first, batch, seed=0, epoch=0))
    samples = samples.to(experiment.device)
    kept = None
    if holds_clips(dataset):
        kept = kept_steps(experiment.seed, 0, 0, dataset.train.shape[0], 1).to(samples.device)
    augmentation = augmentation_for(dataset, experiment.dataset.augmentation)
    drawn = augmentation.draw(experiment.seed, 0, indices, dataset.train.shape)
    clip = training_clip(
        samples, drawn.to(samples.device), dataset, augmentation, steps=1, kept=kept
    )
    return clip[0], labels.to(experiment.device)
