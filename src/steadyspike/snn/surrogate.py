"""The spike and the surrogate of its derivative (Section 3.1 of the paper, below Eq. 4)."""

from typing import Any

import torch
from torch import Tensor


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, excess: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.slope = slope
        return torch.ge(excess, 0, out=torch.empty_like(excess))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (excess,) = ctx.saved_tensors
        # dΘ/dx ≈ k σ(kx) (1 - σ(kx))
        sigma = torch.mul(excess, ctx.slope).sigmoid_()
        return torch.ops.aten.sigmoid_backward(grad[0], sigma).mul_(ctx.slope), None


def spike(excess: Tensor, slope: float) -> Tensor:
    """Θ(x) at ``x = excess = u - θ``: 1 where u ≥ θ, else 0; its derivative is the surrogate.

    BPTT differentiates through it; online training has the same derivative inside its own
    operation (`steadyspike.snn.gradient`).

    Args:
        excess: u - θ, any shape.
        slope: k of the surrogate k σ(kx) (1 - σ(kx)).
    """
    return _Spike.apply(excess, slope)  # type: ignore[no-any-return]
