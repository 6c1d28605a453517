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

from steadyspike.snn.shard import Shard


@dataclass(frozen=True)
class Normalization:
    """What normalizes the K steps of a chunk: ``γ (I - m) / s + β``.

    With Î = (I - μ[t]) / √(σ²[t] + ε) by the step's own batch statistics, that is
    γ (Î r + d) + β where r = √(σ²[t] + ε) / s and d = (μ[t] - m) / s carry no gradient (Eq. 8, 9).
    OSR takes m = μ̂ and s = √(σ̂² + ε); with m = μ[t] and s = √(σ²[t] + ε) it is ordinary batch
    normalization, r = 1 and d = 0.

    Args:
        mean, std: m and s, (K, C), or (C,) where all steps have the same.
        step_mean, step_std: μ[t] and √(σ²[t] + ε), (K, C).
        count: how many values the statistics of a step and channel are of, in all processes.
        renormalizes: whether the gradient is that of a normalization by the step's own
            statistics; False for an affine map's.
        shard: of a batch on several processes.
    """

    mean: Tensor
    std: Tensor
    step_mean: Tensor
    step_std: Tensor
    count: int
    renormalizes: bool
    shard: Shard | None = None


def values_per_channel(x: Tensor, shard: Shard | None) -> int:
    """How many values of ``x`` (K, N, C, ...) a step's mean is of, in all processes."""
    return (x.shape[1] if shard is None else shard.total) * math.prod(x.shape[3:])


def scale_and_shift(weight: Tensor, bias: Tensor, by: Normalization) -> tuple[Tensor, Tensor]:
    """γ/s and β - m γ/s, each (K, C) or (C,): the normalization as one multiply-add."""
    scale = weight / by.std
    return scale, bias - by.mean * scale


def with_gradient(
    output: Tensor,
    x: Tensor,
    backend: ModuleType,
    *,
    affine: tuple[Tensor, Tensor, Tensor] | None = None,
    normalization: Normalization | None = None,
    fired: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """The output of a layer, as autograd sees it.

    Args:
        output: (K, N, C, ...), computed from ``x`` without autograd.
        x: the layer's currents, (K, N, C, ...), or (1, N, C, ...) if all steps have the same.
        backend: the kernels of ``x``'s device.
        affine: γ and β (C,), and γ/s of `scale_and_shift`; with ``normalization``.
        normalization: None where no norm comes before the neurons.
        fired: membranes before the reset (K, N, C, ...), thresholds (K,) and the slope of the
            surrogate; None for a norm without neurons.
    """
    weight, bias, scale = affine or (None, None, None)
    u, thresholds, slope = fired or (None, None, 0.0)
    kept = _Kept(u, thresholds, slope, scale, normalization, backend)
    return _Layer.apply(x, weight, bias, output, kept)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Kept:
    """What the backward pass needs besides the currents."""

    u: Tensor | None
    thresholds: Tensor | None
    slope: float
    scale: Tensor | None
    by: Normalization | None
    backend: ModuleType


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, output: Tensor, kept: _Kept
    ) -> Tensor:
        by = kept.by
        statistics = (by.mean, by.std, by.step_mean, by.step_std) if by else (None,) * 4
        currents = None if by is None else x
        ctx.save_for_backward(currents, kept.u, kept.thresholds, kept.scale, *statistics)
        ctx.slope, ctx.backend = kept.slope, kept.backend
        ctx.dtype, ctx.still = x.dtype, len(x) < len(output)
        if by is not None:
            ctx.count, ctx.renormalizes, ctx.shard = by.count, by.renormalizes, by.shard
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, u, thresholds, scale, mean, std, step_mean, step_std = ctx.saved_tensors
        grad, backend, steps = grads[0], ctx.backend, len(grads[0])
        # All steps at once; one by one where they have the same currents.
        parts = [slice(k, k + 1) for k in range(steps)] if ctx.still else [slice(None)]
        through_spikes = [
            (grad[part], *(None if t is None else t[part] for t in (u, thresholds)), ctx.slope)
            for part in parts
        ]
        if scale is None:  # neurons without a norm
            nothing = (None,) * 6
            each = [backend.grad_input(*given, *nothing) for given in through_spikes]
            return _added(each).to(ctx.dtype), *[None] * 4
        given = [
            (*through, x, step_mean[part], step_std[part])
            for part, through in zip(parts, through_spikes, strict=True)
        ]
        sums = [backend.grad_sums(*part) for part in given]  # Σ g, Σ g Î
        grad_sum, grad_dot = (torch.cat(each) for each in zip(*sums, strict=True))  # (K, C)
        r, d = step_std / std, (step_mean - mean) / std
        grad_weight = (grad_dot * r + grad_sum * d).sum(0)  # Eq. 11: Σ g (Î r + d)
        grad_bias = grad_sum.sum(0)  # Eq. 12
        a = scale.expand(steps, -1).contiguous()
        if ctx.renormalizes:  # Eq. 10: γ/s (g - mean g - Î mean(g Î))
            if ctx.shard is not None:
                grad_sum, grad_dot = ctx.shard.sum(torch.stack([grad_sum, grad_dot]))
            b, c = a * grad_sum / -ctx.count, a * grad_dot / -ctx.count
        else:
            b = c = torch.zeros_like(grad_sum)
        grad_x = _added(
            [
                backend.grad_input(*each, a[part], b[part], c[part])
                for part, each in zip(parts, given, strict=True)
            ]
        )
        return grad_x, grad_weight, grad_bias, None, None


def _added(tensors: list[Tensor]) -> Tensor:
    total, *more = tensors
    for tensor in more:
        total += tensor
    return total
