"""The spike and the surrogate of its derivative (Section 3.1 of the paper, below Eq. 4)."""

from typing import Any

import torch
from torch import Tensor


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, excess: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.slope = slope
        return torch.ge(excess, 0, out=torch.empty_like(excess))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (excess,) = ctx.saved_tensors
        # dΘ/dx ≈ k σ(kx) (1 - σ(kx))
        sigma = torch.mul(excess, ctx.slope).sigmoid_()
        return torch.ops.aten.sigmoid_backward(grad[0], sigma).mul_(ctx.slope), None, None


def spike(current: Tensor, excess: Tensor, slope: float) -> Tensor:
    """Θ(x) at ``x = excess = u - θ`` (1 where u ≥ θ, else 0), with the sigmoid's derivative.

    The derivative is handed to ``current``, the tensor through which the excess is to be
    differentiated: the input current of the same steps for online training, where u depends on
    it with derivative 1 and on nothing else (Eq. 6-7), or the excess itself for BPTT.

    Args:
        current: any shape; receives the gradient.
        excess: u - θ, the same shape; receives none.
        slope: k of the surrogate k σ(kx) (1 - σ(kx)).
    """
    return _Spike.apply(current, excess, slope)  # type: ignore[no-any-return]
