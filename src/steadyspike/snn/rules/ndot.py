"""Neuronal dynamics-based online training: the trace follows the presynaptic potentials."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steadyspike.snn.rule import Rule

if TYPE_CHECKING:
    from steadyspike.snn.neuron import LIF


class NDOT(Rule):
    """μ[t] = v[t-1] / v[t-2], the ratio of potentials after the reset. Jiang et al., ICML 2024.

    v is that of the presynaptic neurons, with v[0] = 0. Where v[t-2] is 0 the ratio is the sign of
    v[t-1], and all of it is clamped to ±(1 - 1/τ). With reset to zero v is 0 after a spike, so that
    the trace is the spikes and the rule SLTT.

    Published descriptions differ in the index: one decays the trace that reaches step t by
    v[t-1] / v[t-2], another (BSO, ICML 2025) by v[t] / v[t-1]. This is the former, in which what
    step t inherits does not depend on what happens at step t.
    """

    reads_potentials = True

    def _begin(self) -> None:
        super()._begin()
        self._decay: Tensor | float = 0.0
        self._potential: Tensor | None = None  # v of the last step

    def decay(self, neuron: "LIF", k: int) -> Tensor | float:
        latest, before = neuron.potential(k), self._potential
        decay = self._decay
        if before is None:
            ratio = latest.sign()
        else:
            ratio = torch.where(before == 0, latest.sign(), latest / before)
        self._decay, self._potential = ratio.clamp_(-neuron.leak, neuron.leak), latest
        return decay
