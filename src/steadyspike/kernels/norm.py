"""A norm's arithmetic on the channels: from a step's moments to what its layer is scaled by.

In plain torch, for the reference and the CPU; `steadyspike.kernels.cuda` does each function in one
launch. Vectors are (C,), or (K, C) of K steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from steadyspike.kernels.stable_sqrt import stable_sqrt


class Scales(NamedTuple):
    """What normalizes the K steps of a chunk, each (K, C): ``γ (x - m) / s + β``.

    ``step_mean`` and ``step_std`` are μ[t] and √(σ²[t] + ε), by which x̂ is normalized, ``mean`` and
    ``std`` m and s, ``scale`` and ``shift`` γ/s and β - m γ/s. Means are of x, to which an offset
    may still be to be added; standard deviations do not depend on it.
    """

    step_mean: Tensor
    step_std: Tensor
    mean: Tensor
    std: Tensor
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class StepMoments:
    """Statistics of the T steps of a presentation, by which the running ones are updated.

    Args:
        means, variances: μ[t] of the currents and σ²[t], (T, C).
        own: whether the step was normalized by its own statistics, (T,), 1 or 0.
    """

    means: Tensor
    variances: Tensor
    own: Tensor

    @classmethod
    def empty(cls, like: Tensor, steps: int) -> "StepMoments":
        """For ``steps`` steps of the channels of ``like`` (..., C)."""
        means, variances = like.new_empty(2, steps, like.shape[-1]).unbind()
        return cls(means, variances, like.new_empty(steps, dtype=torch.int32))

    def part(self, first: int, steps: int) -> "StepMoments":
        """A view of ``steps`` steps from ``first`` on, to be written to."""
        these = slice(first, first + steps)
        return StepMoments(self.means[these], self.variances[these], self.own[these])


def norm_forward(
    mean: Tensor,
    var: Tensor,
    running: tuple[Tensor, Tensor],
    affine: tuple[Tensor, Tensor],
    offset: Tensor | None,
    *,
    eps: float,
    limit: float | None,
    moments: StepMoments | None,
) -> Scales:
    """What normalizes K steps, given their moments.

    Args:
        mean, var: of each step and channel of x, (K, C).
        running: mean and variance of the currents, (C,).
        affine: γ and β, (C,).
        offset: (C,) to be added to x for the currents, as a convolution's bias.
        eps: ε, added to variances.
        limit: a step is normalized by its own statistics if some channel's standard deviation is
            over ``limit`` times the running one's, else by the running ones; None is always.
        moments: where those of the K steps are written, for `norm_fold`.
    """
    std = stable_sqrt(var + eps)
    m, s = mean, std
    own = torch.ones_like(mean[:, :1], dtype=torch.bool)
    if limit is not None:
        running_mean, running_std = running_scales(running, offset, eps)
        # Decided on the device, step by step: (K, 1)
        own = (std > limit * running_std).any(1, keepdim=True)
        m, s = torch.where(own, mean, running_mean), torch.where(own, std, running_std)
    if moments is not None:
        moments.means.copy_(mean if offset is None else mean + offset)
        moments.variances.copy_(var)
        moments.own.copy_(own[:, 0])
    return Scales(mean, std, m, s, *_scale_and_shift(m, s, affine))


def norm_inference(
    running: tuple[Tensor, Tensor],
    affine: tuple[Tensor, Tensor],
    offset: Tensor | None,
    *,
    eps: float,
    steps: int,
) -> Scales:
    """What normalizes ``steps`` steps by the running statistics alone, as `norm_forward`."""
    mean, std = running_scales(running, offset, eps)
    vectors = mean, std, mean, std, *_scale_and_shift(mean, std, affine)
    return Scales(*(vector.expand(steps, -1) for vector in vectors))


def running_scales(
    running: tuple[Tensor, Tensor], offset: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Running mean of x, and √(σ̂² + ε), at least in float32."""
    mean, var = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in running)
    return mean if offset is None else mean - offset, stable_sqrt(var + eps)


def _scale_and_shift(
    mean: Tensor, std: Tensor, affine: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    weight, bias = affine
    scale = weight / std
    return scale, bias - mean * scale


def norm_backward(
    grad_sum: Tensor,
    grad_dot: Tensor,
    whole: tuple[Tensor, Tensor] | None,
    scales: Scales,
    count: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The norm's gradient (Eq. 10-12) by the sums over its layer.

    Args:
        grad_sum, grad_dot: Σ g and Σ g x̂ of each step and channel, (K, C).
        whole: the same of all processes, where there are several.
        scales: of the forward pass.
        count: how many values a step and channel has in all processes; None if the gradient is
            that of an affine map, not of a normalization.

    Returns:
        a, b, c of the currents' gradient a g + b + c x̂, (K, C), and the gradients of γ, β and the
        currents' offset, (C,). The last is 0 of a normalization, which takes any offset off again.
    """
    r, d = scales.step_std / scales.std, (scales.step_mean - scales.mean) / scales.std
    grad_weight = (grad_dot * r + grad_sum * d).sum(0)  # Eq. 11: Σ g (x̂ r + d)
    grad_bias = grad_sum.sum(0)  # Eq. 12
    a = scales.scale
    if count is None:
        zero = torch.zeros_like(grad_sum)
        return a, zero, zero, grad_weight, grad_bias, (a * grad_sum).sum(0)
    total, dot = whole or (grad_sum, grad_dot)
    b, c = a * total / -count, a * dot / -count  # Eq. 10: γ/s (g - mean g - x̂ mean(g x̂))
    return a, b, c, grad_weight, grad_bias, torch.zeros_like(grad_bias)


def norm_fold(
    moments: StepMoments,
    running: tuple[Tensor, Tensor],
    *,
    weight: float | Tensor,
    between: bool,
    unbias: float,
    fallbacks: Tensor | None,
) -> None:
    """Move the running statistics by those of a presentation.

    Args:
        moments: of the presentation's T steps.
        running: mean and variance (C,), changed in place.
        weight: of the presentation; 1 - weight is that of what was there.
        between: whether the variance between the steps' means counts too (Eq. 13-15).
        unbias: factor of the steps' variances.
        fallbacks: a scalar that the number of steps normalized by their own statistics is added to.
    """
    means, variances = moments.means, moments.variances
    mean = means.mean(0)
    if unbias != 1:
        variances = variances * unbias
    if between:
        # (σ² + μ²) - μ² loses σ² to rounding where μ is large; the same sum about μ does not.
        variances = variances + (means - mean).square()
    for statistic, new in zip(running, (mean, variances.mean(0)), strict=True):
        statistic.lerp_(new.to(statistic), weight)
    if fallbacks is not None:
        fallbacks += moments.own.sum()
