"""Bytes that autograd keeps for the backward pass, counted exactly (Figure 2a)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from steadyspike.snn.loss import tet_loss
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence


class KeptBytes:
    """The storages that autograd holds, each counted once however many tensors share it.

    Parameters do not count, nor do the membranes that the next step starts from: they are there
    with or without a backward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._neurons = [module for module in model.modules() if isinstance(module, LIF)]
        self._kept: dict[int, int] = {}

    @property
    def total(self) -> int:
        states = [neuron.state.u for neuron in self._neurons]
        shared = sum(
            state.nbytes
            for state in states
            if state is not None and state.untyped_storage()._cdata in self._kept
        )
        return sum(self._kept.values()) - shared

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what the forward passes of the body leave for backward, from nothing."""
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

    Every call of K steps is followed by its backward pass, which frees what was kept; so the
    most is kept at the end of a chunk's forward pass: one step's activations online with K = 1,
    those of all T steps for BPTT.

    Args:
        model: in training mode; its running statistics are changed, its gradients too.
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
