"""A neuron layer shown a whole presentation, for its tests."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from steadyspike import sequence
from steadyspike.snn.neuron import LIF

both_resets = pytest.mark.parametrize("reset", ["subtract", "zero"])


def present(
    lif: LIF, currents: Tensor, chunks: Sequence[int] | None = None
) -> tuple[Tensor, list[float]]:
    """Spikes (T, N, ...) of a whole presentation, and θ after each chunk."""
    spikes, thresholds = [], []
    with sequence(lif, steps=len(currents)):
        for chunk in currents.split(chunks or len(currents)):
            spikes.append(lif(chunk))
            thresholds.append(lif.threshold.item())
    return torch.cat(spikes), thresholds


def steps(*values: Sequence[float]) -> Tensor:
    """(T, N) in float64, a row a step."""
    return torch.tensor(values, dtype=torch.float64)
