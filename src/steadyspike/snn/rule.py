"""What a rule for the weights' gradients is, and how spikes carry their trace through a network.

An online rule forms the gradient of the weights behind a layer of neurons as ::

    ∇W = Σ_t δ[t] a[t]ᵀ        a[t] = μ[t] ⊙ a[t-1] + s[t],  a[1] = s[1]

where δ[t] is the gradient of step t's loss by the currents, by backpropagation within the step,
and the trace a of the presynaptic spikes s takes their place. Rules differ in μ; without a trace
(μ = 0) a[t] is s[t]. The rules are the modules of `steadyspike.snn.rules`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steadyspike.snn.sequence import StepModule

if TYPE_CHECKING:
    from steadyspike.snn.neuron import LIF


@dataclass(frozen=True)
class Traced:
    """Spikes (K, N, ...) with their trace, of the same shape; only the spikes have a gradient."""

    spikes: Tensor
    trace: Tensor

    def __len__(self) -> int:
        return len(self.spikes)

    def __add__(self, other: "Traced") -> "Traced":
        return Traced(self.spikes + other.spikes, self.trace + other.trace)

    def __mul__(self, factor: float | Tensor) -> "Traced":
        return Traced(self.spikes * factor, self.trace * factor)


def on_traces(function: Callable[[Tensor], Tensor], x: Tensor | Traced) -> Tensor | Traced:
    """``function``, such as a pooling, of spikes and of their trace if they have one."""
    if isinstance(x, Tensor):
        return function(x)
    with torch.no_grad():
        trace = function(x.trace)
    return Traced(function(x.spikes), trace)


def spikes_of(x: Tensor | Traced) -> Tensor:
    """The spikes without their trace."""
    return x if isinstance(x, Tensor) else x.spikes


class Rule(StepModule):
    """The state of a rule at one layer of neurons; a subclass says what μ is.

    In training mode `forward` follows each call of the neurons and hands on their spikes together
    with the trace, for `steadyspike.snn.conv.convolve` and `linear`.
    """

    #: Whether there is a trace; a rule without one costs nothing.
    has_trace = True
    #: Whether it calls the neurons' ``potential``, which are then kept for every step of a call.
    reads_potentials = False
    #: Whether only ``training.backward_steps`` of the T steps, drawn at random, are learned from.
    draws_steps = False

    def __init__(self) -> None:
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        self._trace: Tensor | None = None  # of the last step, (N, ...)

    def _end(self) -> None:
        self._begin()

    def decay(self, neuron: "LIF", k: int) -> Tensor | float:
        """μ of step ``k`` of the neurons' last call, (N, ...) or a number.

        Called once for each step, in order. At the first step of a presentation the result is
        not used.
        """
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, neuron: "LIF", spikes: Tensor) -> Traced:
        """The spikes (K, N, ...) that ``neuron`` has just returned, with their trace."""
        self._advance(len(spikes))
        wide = torch.promote_types(spikes.dtype, torch.float32)
        traces = torch.empty_like(spikes, dtype=wide)
        for k, trace in enumerate(traces.unbind()):
            decay = self.decay(neuron, k)
            if self._trace is None:
                trace.copy_(spikes[k])
            else:
                torch.mul(self._trace, decay, out=trace).add_(spikes[k])
            self._trace = trace
        return Traced(spikes, traces)
