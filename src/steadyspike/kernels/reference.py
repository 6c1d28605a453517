"""The kernels in plain torch, for any device and type; the others are tested against it."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steadyspike.kernels.norm import norm_backward, norm_fold, norm_forward, norm_inference
from steadyspike.kernels.stabilizer import Stabilizer

__all__ = [
    "affine",
    "charge",
    "fire",
    "grad_input",
    "grad_sums",
    "mean_squares",
    "membrane_type",
    "moments",
    "norm_backward",
    "norm_fold",
    "norm_forward",
    "norm_inference",
    "pack",
    "pool",
    "unpack",
    "unpool",
]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def membrane_type(currents: torch.dtype) -> torch.dtype:
    """The type that u is stored in: at least float32."""
    return torch.promote_types(currents, torch.float32)


def _along(per_channel: Tensor, x: Tensor) -> Tensor:
    """(K, C) or (C,) to broadcast along (K, N, C, ...)."""
    return per_channel.reshape(-1, 1, x.shape[2], *[1] * (x.dim() - 3))


def _over(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim not in (0, 2)]


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``scale x + shift`` of ``x`` (K, N, C, ...), with scale and shift (K, C) or (C,)."""
    return torch.addcmul(_along(shift, x), x, _along(scale, x))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = _wide(x)
    count = max(math.prod(x.shape[dim] for dim in _over(x)), 1)
    mean = x.sum(_over(x)) / count
    return mean, (x - _along(mean, x)).square().sum(_over(x)) / count


def charge(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    before: Tensor | None,
    threshold: Tensor | None,
    *,
    leak: float,
    zero_reset: bool,
    out: Tensor,
    statistics: bool = False,
    stabilizer: Stabilizer | None = None,
    spikes: Tensor | None = None,
    fire_at: float | None = None,
    last_spikes: Tensor | None = None,
) -> Tensor | None:
    u = _wide(x) if scale is None or shift is None else affine(x[None], scale, shift)[0]
    if before is not None and threshold is not None:
        if last_spikes is not None:
            fire(before, threshold, last_spikes)
        after = torch.zeros_like(before) if zero_reset else before - threshold
        u = torch.add(u, torch.where(before >= threshold, after, before), alpha=leak)
    out.copy_(u)
    if spikes is not None and fire_at is not None:
        spikes.copy_(out >= fire_at)
    if not statistics and stabilizer is None:
        return None
    found = mean_squares(out)
    if stabilizer is not None:
        stabilizer.write(found, out.numel())
    return found if statistics else None


def mean_squares(u: Tensor) -> Tensor:
    """Mean of all values and sum of squared deviations from it, (2,)."""
    u = _wide(u)
    mean = u.sum() / max(u.numel(), 1)
    return torch.stack([mean, (u - mean).square_().sum()])


def fire(u: Tensor, threshold: Tensor, out: Tensor) -> None:
    out.copy_(u >= threshold)


def _surrogate(grad: Tensor, u: Tensor | None, thresholds: Tensor | None, slope: float) -> Tensor:
    if u is None or thresholds is None:
        return _wide(grad)
    sigma = torch.sigmoid(slope * (u - thresholds.reshape(-1, *[1] * (u.dim() - 1))))
    return _wide(grad) * (slope * sigma * (1 - sigma))


def grad_sums(
    grad: Tensor,
    u: Tensor | None,
    thresholds: Tensor | None,
    slope: float,
    x: Tensor,
    mean: Tensor,
    std: Tensor,
) -> tuple[Tensor, Tensor]:
    g = _surrogate(grad, u, thresholds, slope)
    normalized = (_wide(x) - _along(mean, x)) / _along(std, x)
    return g.sum(_over(x)), (g * normalized).sum(_over(x))


def grad_input(
    grad: Tensor,
    u: Tensor | None,
    thresholds: Tensor | None,
    slope: float,
    x: Tensor | None,
    mean: Any,
    std: Any,
    a: Any,
    b: Any,
    c: Any,
) -> Tensor:
    g = _surrogate(grad, u, thresholds, slope)
    if x is None:
        return g.to(grad.dtype)
    normalized = (_wide(x) - _along(mean, x)) / _along(std, x)
    each = _along(a, x) * g + _along(b, x) + _along(c, x) * normalized
    return (each if len(x) == len(grad) else each.sum(0, keepdim=True)).to(x.dtype)


def pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def unpool(grad: Tensor, shape: torch.Size) -> Tensor:
    last = grad.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    # torch's backward function reads only the shape and layout of the inputs, not their values.
    like = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    backward = torch.ops.aten.avg_pool2d_backward
    x: Tensor = backward(grad, like, [2, 2], [2, 2], [0, 0], False, True, None)
    return x


def pack(x: Tensor, levels: int) -> Tensor:
    return (x * levels).round().to(torch.uint8)


def unpack(packed: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    return packed.to(dtype) / levels
