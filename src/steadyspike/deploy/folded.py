"""A folded network: the operations that NIR and ONNX have, as a graph that runs one step."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Neuron(nn.Module):
    """LIF neurons with a constant threshold: one step, with the state in and out."""

    def __init__(self, leak: float, threshold: float, *, zero_reset: bool) -> None:
        super().__init__()
        self.leak = leak
        self.threshold = threshold
        self.zero_reset = zero_reset

    def forward(self, current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """Currents and u[t-½], both (N, ...), to spikes and u[t+½] (Eq. 2-4)."""
        u = self.leak * membrane + current
        fired = u >= self.threshold
        after = torch.zeros_like(u) if self.zero_reset else u - self.threshold
        return fired.to(u.dtype), torch.where(fired, after, u)


class SumPool(nn.Module):
    """Sums over k by l pixels: (N, C, H, W) to (N, C, H // k, W // l)."""

    def __init__(self, *kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel == tuple(x.shape[-2:]):
            return x.sum((-2, -1), keepdim=True)
        # Not `divisor_override`, which ONNX has not and the exporter silently leaves out
        return F.avg_pool2d(x, self.kernel) * (self.kernel[0] * self.kernel[1])


@dataclass(frozen=True)
class Node:
    """An operation on the sum of the outputs of its sources; ``shape`` is its output's (C, ...)."""

    sources: tuple[str, ...]
    module: nn.Module
    shape: tuple[int, ...]


class Folded(nn.Module):
    """One step of a folded network: frames (N, C, H, W) and membranes to logits and membranes.

    Attributes:
        nodes: every operation by name, in an order in which they can be computed; the frames are
            the source ``"input"``, and the last node gives the logits.
        input_shape: (C, H, W).
    """

    def __init__(self, nodes: dict[str, Node], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.nodes = nodes
        self.input_shape = input_shape
        self.layers = nn.ModuleDict({name: node.module for name, node in nodes.items()})

    @property
    def neurons(self) -> dict[str, Node]:
        """The layers of neurons, in the order of their membranes."""
        return {name: node for name, node in self.nodes.items() if isinstance(node.module, Neuron)}

    def membranes(self, batch: int) -> list[Tensor]:
        """The membranes of ``batch`` samples before the first step."""
        like = next(self.parameters())
        return [like.new_zeros(batch, *node.shape) for node in self.neurons.values()]

    def forward(self, frame: Tensor, *membranes: Tensor) -> tuple[Tensor, ...]:
        outputs = self.outputs(frame, *membranes)
        after = [outputs[f"{name} membrane"] for name in self.neurons]
        return (outputs[next(reversed(self.nodes))], *after)

    def outputs(self, frame: Tensor, *membranes: Tensor) -> dict[str, Tensor]:
        """The output of every node, and each ``"NAME membrane"`` after the step."""
        before = iter(membranes)
        outputs = {"input": frame}
        for name, node in self.nodes.items():
            x = outputs[node.sources[0]]
            for source in node.sources[1:]:
                x = x + outputs[source]
            if isinstance(node.module, Neuron):
                outputs[name], outputs[f"{name} membrane"] = node.module(x, next(before))
            else:
                outputs[name] = node.module(x)
        return outputs
