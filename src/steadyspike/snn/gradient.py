"""The gradient of a layer: through its spikes (Eq. 6-7) and its normalization (Eq. 10-12).

The forward pass of a layer needs no autograd: `with_gradient` attaches the gradient to its
output afterwards. The backward pass keeps the currents and the membranes alone; normalized
currents and distances to the threshold are computed again, by the kernels of the device.
"""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from steadyspike.kernels.norm import Scales
from steadyspike.snn.shard import Shard


@dataclass(frozen=True)
class Normalization:
    """What normalizes the K steps of a chunk: ``γ (I - m) / s + β``.

    With Î = (I - μ[t]) / √(σ²[t] + ε) by the step's own batch statistics, that is
    γ (Î r + d) + β where r = √(σ²[t] + ε) / s and d = (μ[t] - m) / s carry no gradient (Eq. 8, 9).
    OSR takes m = μ̂ and s = √(σ̂² + ε); with m = μ[t] and s = √(σ²[t] + ε) it is ordinary batch
    normalization, r = 1 and d = 0.

    Args:
        scales: m, s, μ[t], √(σ²[t] + ε), and from them γ/s and β - m γ/s.
        affine: γ and β (C,).
        offset: (C,) a convolution's bias that is still to be added to I; m and μ[t] are without it.
        count: the number of values behind a mean of a step and channel, in all processes.
        renormalizes: whether the gradient is that of a normalization by the step's own
            statistics; False for an affine map's.
        shard: of a batch on several processes.
        share: (K, 1) the part of its statistics that comes from the step itself; the rest is from
            earlier steps, a constant. None if all of it is the step's.

    γ and β may be (K, C), of each step, if it is normalized by no other statistics: r = 1, d = 0.
    """

    scales: Scales
    affine: tuple[Tensor, Tensor]
    offset: Tensor | None
    count: int
    renormalizes: bool
    shard: Shard | None = None
    share: Tensor | None = None


def values_per_channel(x: Tensor, shard: Shard | None) -> int:
    """The number of values of ``x`` (K, N, C, ...) behind a step's mean, in all processes."""
    return (x.shape[1] if shard is None else shard.total) * math.prod(x.shape[3:])


def with_gradient(
    output: Tensor,
    x: Tensor,
    backend: ModuleType,
    *,
    normalization: Normalization | None = None,
    neurons: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """The output of a layer, as autograd sees it.

    Args:
        output: (K, N, C, ...), computed from ``x`` without autograd.
        x: the layer's currents, (K, N, C, ...), or (1, N, C, ...) if all steps have the same.
        backend: the kernels of ``x``'s device.
        normalization: None where no norm comes before the neurons.
        neurons: membranes before the reset (K, N, C, ...), thresholds (K,) and the slope of the
            surrogate; None for a norm without neurons.
    """
    parameters: tuple[Tensor | None, ...] = (None,) * 3
    if normalization is not None:
        parameters = (*normalization.affine, normalization.offset)
    u, thresholds, slope = neurons or (None, None, 0.0)
    kept = _Kept(u, thresholds, slope, normalization, backend)
    return _Layer.apply(x, *parameters, output, kept)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Kept:
    """What the backward pass needs besides the currents; ``by`` is None without a norm."""

    u: Tensor | None
    thresholds: Tensor | None
    slope: float
    by: Normalization | None
    backend: ModuleType


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        offset: Tensor | None,
        output: Tensor,
        kept: _Kept,
    ) -> Tensor:
        by = kept.by
        currents = None if by is None else x
        ctx.save_for_backward(currents, kept.u, kept.thresholds, *(by.scales if by else ()))
        ctx.offset = offset is not None
        ctx.slope, ctx.backend = kept.slope, kept.backend
        ctx.dtype, ctx.still = x.dtype, len(x) < len(output)
        if by is not None:
            ctx.count, ctx.renormalizes, ctx.shard = by.count, by.renormalizes, by.shard
            ctx.share, ctx.each_step = by.share, by.affine[0].dim() == 2
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, u, thresholds, *scales = ctx.saved_tensors
        grad, backend = grads[0], ctx.backend
        through_spikes = grad, u, thresholds, ctx.slope
        if not scales:  # neurons without a norm
            grad_x = backend.grad_input(*through_spikes, *[None] * 6).to(ctx.dtype)
            return grad_x.sum(0, keepdim=True) if ctx.still else grad_x, *[None] * 5
        by = Scales(*scales)
        given = *through_spikes, x, by.step_mean, by.step_std
        grad_sum, grad_dot = backend.grad_sums(*given)  # Σ g, Σ g Î: (K, C)
        whole = None
        if ctx.renormalizes and ctx.shard is not None:
            whole = ctx.shard.sum(torch.stack([grad_sum, grad_dot])).unbind()
        if ctx.share is not None:
            whole = tuple(ctx.share * each for each in whole or (grad_sum, grad_dot))
        count = ctx.count if ctx.renormalizes else None
        a, b, c, *of_parameters = backend.norm_backward(grad_sum, grad_dot, whole, by, count)
        grad_x = backend.grad_input(*given, a, b, c)
        grad_weight, grad_bias, grad_offset = of_parameters
        if ctx.each_step:
            grad_weight, grad_bias = grad_dot, grad_sum  # r = 1 and d = 0
        return grad_x, grad_weight, grad_bias, grad_offset if ctx.offset else None, None, None
