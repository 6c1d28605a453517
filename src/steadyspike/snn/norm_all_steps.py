"""Batch normalization over all time steps at once, for BPTT: tdBN and TEBN."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from steadyspike.snn.norm import BatchNorm
from steadyspike.snn.norm_each_step import of_steps
from steadyspike.snn.sequence import StepModule


class TdBN(BatchNorm):
    """Threshold-dependent batch normalization (Zheng et al., AAAI 2021): (K, N, C, ...), all K one.

    ``γ (I - μ) / √(σ² + ε) + β`` with mean and variance over the steps, the batch and space. γ
    starts at α θ, as in the libraries, with α = 1; the paper has the factor α θ beside a γ of 1.

    Args:
        num_features: C.
        v_threshold: θ of the neurons behind it.
    """

    def __init__(self, num_features: int, v_threshold: float = 1.0) -> None:
        super().__init__(num_features)
        nn.init.constant_(self.weight, v_threshold)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape (N, C, ...) is one."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)  # (K, N, C, ...) -> (K N, C, ...), one batch
        if self.training and self._shard is not None:
            rows = tuple(len(x) * each for each in self._shard.rows)
            y = self._forward_sharded(flat.unsqueeze(0), replace(self._shard, rows=rows))[0]
        else:
            y = nn.BatchNorm2d.forward(self, flat)
        steps: Tensor = y.unflatten(0, x.shape[:2])
        return steps


class TEBN(StepModule):
    """Temporal effective batch normalization (Duan et al., NeurIPS 2022): (K, N, C, ...).

    ``p[t] (γ (I[t] - μ) / √(σ² + ε) + β)`` with mean and variance over the steps, the batch and
    space, and a learned p of each step, 1 at first. Steps beyond T have the last p.

    Args:
        num_features: C.
        steps: T.
    """

    def __init__(self, num_features: int, steps: int) -> None:
        super().__init__()
        self.norm = TdBN(num_features)
        self.step_weight = nn.Parameter(torch.ones(steps))  # p

    @property
    def momentum(self) -> float | None:
        """The weight of the new value in the running statistics."""
        return self.norm.momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        self.norm.momentum = value

    def forward(self, x: Tensor) -> Tensor:
        first = self._advance(len(x))
        weight = of_steps(self.step_weight, first, len(x)).view(-1, *[1] * (x.dim() - 1))
        y: Tensor = weight * self.norm(x)
        return y
