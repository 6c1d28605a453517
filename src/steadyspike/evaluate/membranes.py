"""Histograms of the membrane potential before the reset, by layer and step (Figure 3)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike.snn.neuron import LIF
from steadyspike.snn.stable_sqrt import stable_sqrt


@dataclass(frozen=True)
class Bins:
    """``count`` bins of equal width from ``low`` to ``high``, in units of the membrane."""

    low: float = -4.0
    high: float = 4.0
    count: int = 80


class Membranes:
    """u[t] of every LIF layer, counted into bins within `observed`."""

    def __init__(self, model: nn.Module, steps: int, bins: Bins | None = None) -> None:
        self.bins = bins or Bins()
        self.layers = {
            name: module for name, module in model.named_modules() if isinstance(module, LIF)
        }
        device = next(model.parameters()).device
        # Two more bins, for what lies below and above.
        self.counts = {
            name: torch.zeros(steps, self.bins.count + 2, dtype=torch.int64, device=device)
            for name in self.layers
        }
        # number of batches' thresholds, sum of u and of its square, sum of thresholds: (T, 4)
        self.sums = {
            name: torch.zeros(steps, 4, dtype=torch.float64, device=device) for name in self.layers
        }

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Count every u[t] of the body."""
        for name, layer in self.layers.items():
            layer.observer = lambda u, step, theta, name=name: self._count(name, u, step, theta)
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.observer = None

    def _count(self, name: str, u: Tensor, step: int, threshold: Tensor) -> None:
        bins = self.bins
        u = u.reshape(-1)
        place = (u - bins.low).mul_(bins.count / (bins.high - bins.low)).floor_()
        place = place.clamp_(-1, bins.count).add_(1).int()
        self.counts[name][step] += torch.bincount(place, minlength=bins.count + 2)
        total = u.sum(dtype=torch.float64)
        squares = u.square().sum(dtype=torch.float64)
        self.sums[name][step] += torch.stack(
            [torch.ones_like(total), total, squares, threshold.to(total)]
        )

    def summary(self) -> dict[str, Any]:
        """Bins, and for each layer counts, mean, standard deviation and threshold by step."""
        return {
            "bins": {"low": self.bins.low, "high": self.bins.high, "count": self.bins.count},
            "layers": [self._layer(name) for name in self.layers],
        }

    def _layer(self, name: str) -> dict[str, Any]:
        counts, sums = self.counts[name], self.sums[name]
        total = counts.sum(1)
        mean = sums[:, 1] / total
        std = stable_sqrt((sums[:, 2] / total - mean.square()).clamp_(min=0))
        return {
            "name": name,
            "counts": counts[:, 1:-1].tolist(),
            "below": counts[:, 0].tolist(),
            "above": counts[:, -1].tolist(),
            "mean": _rounded(mean),
            "std": _rounded(std),
            "threshold": _rounded(sums[:, 3] / sums[:, 0]),
        }


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
