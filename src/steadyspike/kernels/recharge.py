"""What a layer's membranes can be computed from again, where they are not kept."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Recharge:
    """How a call of K steps charged its neurons, besides the currents, their scales and θ.

    Args:
        before: u of the step before the call, before its reset, (N, C, ...); None at the first.
        last_threshold: θ of that step.
        leak, zero_reset: as given to `charge`.
    """

    before: Tensor | None
    last_threshold: Tensor | None
    leak: float
    zero_reset: bool
