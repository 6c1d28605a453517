"""Online training through time: the trace forgets as the membranes do."""

from typing import TYPE_CHECKING

from steadyspike.snn.rule import Rule

if TYPE_CHECKING:
    from steadyspike.snn.neuron import LIF


class OTTT(Rule):
    """μ = 1 - 1/τ, the leak of the neurons. Xiao et al., NeurIPS 2022."""

    def decay(self, neuron: "LIF", k: int) -> float:
        return neuron.leak
