"""Scaled weight standardization, the norm-free way of OTTT and NDOT."""

import torch
from torch import Tensor, nn

from steadyspike.snn.conv import Convolution

EPS = 1e-4
#: Of the spikes in a network with standardized weights, so that currents keep their variance.
SPIKE_SCALE = 2.74


def standardized(weight: Tensor, gain: Tensor) -> Tensor:
    """``g (W - μ) / √(σ² n + ε)`` for each output, with μ and σ² of its n weights.

    Args:
        weight: W, (C', ...).
        gain: g, (C', 1, ...).
    """
    inputs = tuple(range(1, weight.dim()))
    var, mean = torch.var_mean(weight, inputs, keepdim=True)
    return gain * (weight - mean) / (var * weight[0].numel() + EPS).sqrt()


class StandardizedConvolution(Convolution):
    """A convolution by standardized weights, with a learned gain of each output."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    @property
    def kernel(self) -> Tensor:
        return standardized(self.weight, self.gain)


class StandardizedLinear(nn.Linear):
    """A linear layer by standardized weights, with a learned gain of each output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(torch.ones(outputs, 1))

    @property
    def kernel(self) -> Tensor:
        """The weights that inputs are multiplied by."""
        return standardized(self.weight, self.gain)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.kernel, self.bias)
