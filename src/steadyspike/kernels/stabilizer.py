"""The online threshold stabilizer (Eq. 16): θ[t] of a layer from the statistics of its u[t]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steadyspike.kernels.stable_sqrt import stable_sqrt

#: Equal numbers differ from their rounded mean by a few units in the last place: a standard
#: deviation of at most so many, relative to the mean, is no spread.
ROUNDING = 32


@dataclass(frozen=True)
class Stabilizer:
    """θ[t] = mean u[t] + q std u[t], and θ[1] = ``v_threshold``, which gives q.

    A layer whose u does not vary, now or at the first step, keeps θ[1].

    Args:
        v_threshold: θ[1].
        first: (2,) q and std u of the first step, written there.
        at_first: whether this is the first step.
        threshold: the scalar that θ[t] is written to.
    """

    v_threshold: float
    first: Tensor
    at_first: bool
    threshold: Tensor

    def write(self, statistics: Tensor, count: int) -> None:
        """From the mean and the sum of squared deviations (2,) of ``count`` membranes.

        In tensors throughout: nothing here waits for the device.
        """
        mean, squares = statistics.unbind()
        std = stable_sqrt(squares / max(count - 1, 1))
        std = std.masked_fill(std <= ROUNDING * torch.finfo(std.dtype).eps * mean.abs(), 0)
        if self.at_first:
            torch.stack([(self.v_threshold - mean) / std, std], out=self.first)
            self.threshold.fill_(self.v_threshold)
            return
        q, first_std = self.first.unbind()
        silent = (first_std == 0) | (std == 0)
        self.threshold.copy_(torch.where(silent, self.v_threshold, mean + q * std))
