# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""A norm's arithmetic on channels in Triton, each function of `kernels.norm` in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.tiles import LAUNCH, ceil_div, next_power_of_2, on_device_of
from steadyspike.kernels.norm import Scales, StepMoments

BLOCK = 128  # channels of a program, where channels do not depend on each other


@triton.jit
def _norm_forward_kernel(
    mean,  # None at inference
    var,
    step_stride,
    running_mean,
    running_var,
    weight,
    bias,
    offset,  # None where there is none
    out_means,  # None where they are not asked for
    out_variances,
    out_own,
    scales,
    eps,
    limit,
    channels,
    ALWAYS_OWN: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """`Scales` (6, K, C); each program does all channels of one step."""
    step = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    inside = c < channels
    lacks = 0.0
    if offset is not None:
        lacks = tl.load(offset + c, inside, other=0.0).to(tl.float32)
    if not ALWAYS_OWN:
        m = tl.load(running_mean + c, inside, other=0.0).to(tl.float32) - lacks
        s = tl.sqrt_rn(tl.load(running_var + c, inside, other=1.0).to(tl.float32) + eps)
        step_mean, step_std = m, s
    if mean is not None:
        step_mean = tl.load(mean + step * step_stride + c, inside, other=0.0)
        variance = tl.load(var + step * step_stride + c, inside, other=1.0)
        step_std = tl.sqrt_rn(variance + eps)
        if ALWAYS_OWN:
            m, s = step_mean, step_std
            own = 1
        else:
            own = tl.max((inside & (step_std > limit * s)).to(tl.int32), 0)
            m = tl.where(own > 0, step_mean, m)
            s = tl.where(own > 0, step_std, s)
        if out_means is not None:
            tl.store(out_means + step * channels + c, step_mean + lacks, inside)
            tl.store(out_variances + step * channels + c, variance, inside)
            tl.store(out_own + step, own)
    scale = tl.div_rn(tl.load(weight + c, inside, other=0.0).to(tl.float32), s)
    shift = tl.load(bias + c, inside, other=0.0).to(tl.float32) - m * scale
    size = tl.num_programs(0) * channels
    scales += step * channels + c
    tl.store(scales, step_mean, inside)
    tl.store(scales + size, step_std, inside)
    tl.store(scales + 2 * size, m, inside)
    tl.store(scales + 3 * size, s, inside)
    tl.store(scales + 4 * size, scale, inside)
    tl.store(scales + 5 * size, shift, inside)


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
    """What normalizes K steps, given their moments (K, C)."""
    if mean.stride() != var.stride() or mean.stride(1) != 1:
        mean, var = mean.contiguous(), var.contiguous()
    return _scales(mean, var, running, affine, offset, eps, limit, moments, len(mean))


def norm_inference(
    running: tuple[Tensor, Tensor],
    affine: tuple[Tensor, Tensor],
    offset: Tensor | None,
    *,
    eps: float,
    steps: int,
) -> Scales:
    """What normalizes ``steps`` steps by the running statistics alone."""
    scales = _scales(None, None, running, affine, offset, eps, 0.0, None, 1)
    return Scales(*(vector.expand(steps, -1) for vector in scales))


def _scales(
    mean: Tensor | None,
    var: Tensor | None,
    running: tuple[Tensor, Tensor],
    affine: tuple[Tensor, Tensor],
    offset: Tensor | None,
    eps: float,
    limit: float | None,
    moments: StepMoments | None,
    steps: int,
) -> Scales:
    channels = len(affine[0])
    scales = affine[0].new_empty((len(Scales._fields), steps, channels), dtype=torch.float32)
    with on_device_of(scales):
        _norm_forward_kernel[(steps,)](
            mean,
            var,
            0 if mean is None else mean.stride(0),
            *running,
            *affine,
            offset,
            *((None,) * 3 if moments is None else (moments.means, moments.variances, moments.own)),
            scales,
            eps,
            limit,
            channels,
            ALWAYS_OWN=limit is None,
            BLOCK_C=next_power_of_2(channels),
            **LAUNCH,
        )
    return Scales(*scales.unbind())


@triton.jit
def _norm_backward_kernel(
    grad_sum,
    grad_dot,
    whole_sum,  # None in a single process
    whole_dot,
    step_mean,
    step_std,
    mean,
    std,
    scale,
    abc,
    parameters,
    count,  # None of an affine map
    steps,
    channels,
    BLOCK_C: tl.constexpr,
):
    """a, b, c (3, K, C), and the gradients of γ, β and the offset (3, C)."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = c < channels
    of_weight = tl.zeros((BLOCK_C,), tl.float32)
    of_bias = tl.zeros((BLOCK_C,), tl.float32)
    of_offset = tl.zeros((BLOCK_C,), tl.float32)
    size = steps * channels
    for step in range(steps):
        place = step * channels + c
        total = tl.load(grad_sum + place, inside, other=0.0)
        dot = tl.load(grad_dot + place, inside, other=0.0)
        own_mean = tl.load(step_mean + place, inside, other=0.0)
        own_std = tl.load(step_std + place, inside, other=1.0)
        m = tl.load(mean + place, inside, other=0.0)
        s = tl.load(std + place, inside, other=1.0)
        a = tl.load(scale + place, inside, other=0.0)
        of_weight += dot * tl.div_rn(own_std, s) + total * tl.div_rn(own_mean - m, s)
        of_bias += total
        if count is None:
            of_offset += a * total
            total, dot = total * 0.0, dot * 0.0
        else:
            if whole_sum is not None:
                total = tl.load(whole_sum + place, inside, other=0.0)
                dot = tl.load(whole_dot + place, inside, other=0.0)
            total, dot = a * total / -count, a * dot / -count
        tl.store(abc + place, a, inside)
        tl.store(abc + size + place, total, inside)
        tl.store(abc + 2 * size + place, dot, inside)
    tl.store(parameters + c, of_weight, inside)
    tl.store(parameters + channels + c, of_bias, inside)
    tl.store(parameters + 2 * channels + c, of_offset, inside)


def norm_backward(
    grad_sum: Tensor,
    grad_dot: Tensor,
    whole: tuple[Tensor, Tensor] | None,
    scales: Scales,
    count: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The norm's gradient by the sums over its layer, all (K, C)."""
    steps, channels = grad_sum.shape
    abc = grad_sum.new_empty((3, steps, channels))
    parameters = grad_sum.new_empty((3, channels))
    with on_device_of(grad_sum):
        _norm_backward_kernel[(ceil_div(channels, BLOCK),)](
            grad_sum.contiguous(),
            grad_dot.contiguous(),
            *((None, None) if whole is None else (each.contiguous() for each in whole)),
            *(vector.contiguous() for vector in scales[:5]),
            abc,
            parameters,
            None if count is None else float(count),
            steps,
            channels,
            BLOCK_C=BLOCK,
            **LAUNCH,
        )
    a, b, c = abc.unbind()
    of_weight, of_bias, of_offset = parameters.unbind()
    return a, b, c, of_weight, of_bias, of_offset


@triton.jit
def _norm_fold_kernel(
    means,
    variances,
    own,
    running_mean,
    running_var,
    fallbacks,  # None where they are not counted
    weight,
    weight_at,  # None where weight is a number
    unbias,
    steps,
    channels,
    BETWEEN: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moves the running statistics, and counts the steps that had their own."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = c < channels
    mean = tl.zeros((BLOCK_C,), tl.float32)
    for step in range(steps):
        mean += tl.load(means + step * channels + c, inside, other=0.0)
    mean = mean / steps
    variance = tl.zeros((BLOCK_C,), tl.float32)
    for step in range(steps):
        variance += unbias * tl.load(variances + step * channels + c, inside, other=0.0)
        if BETWEEN:
            apart = tl.load(means + step * channels + c, inside, other=0.0) - mean
            variance += apart * apart
    variance = variance / steps
    share = weight
    if weight_at is not None:
        share = tl.load(weight_at).to(tl.float32)
    old_mean = tl.load(running_mean + c, inside, other=0.0).to(tl.float32)
    old_variance = tl.load(running_var + c, inside, other=0.0).to(tl.float32)
    tl.store(running_mean + c, old_mean + share * (mean - old_mean), inside)
    tl.store(running_var + c, old_variance + share * (variance - old_variance), inside)
    if fallbacks is not None:  # by one program
        first = tl.program_id(0) == 0
        count = tl.load(fallbacks, first, other=0)
        for step in range(steps):
            count += tl.load(own + step).to(tl.int64)
        tl.store(fallbacks, count, first)


def norm_fold(
    moments: StepMoments,
    running: tuple[Tensor, Tensor],
    *,
    weight: float | Tensor,
    between: bool,
    unbias: float,
    fallbacks: Tensor | None,
) -> None:
    """Move the running statistics by those of a presentation."""
    steps, channels = moments.means.shape
    known = isinstance(weight, float | int)
    with on_device_of(moments.means):
        _norm_fold_kernel[(ceil_div(channels, BLOCK),)](
            moments.means,
            moments.variances,
            moments.own,
            *running,
            fallbacks,
            float(weight) if known else None,
            None if known else weight,
            unbias,
            steps,
            channels,
            BETWEEN=between,
            BLOCK_C=BLOCK,
            **LAUNCH,
        )
