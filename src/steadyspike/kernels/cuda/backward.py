# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""The backward pass of one layer in Triton: the surrogate's gradient, and the norm's through it.

Two passes, as the norm's gradient (Eq. 10) needs sums over the whole batch first. Both compute g
from the gradient of the spikes and the stored u; g itself is never written to memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.tiles import (
    Tiling,
    from_the_end,
    on_device_of,
    rows_of,
    written_as_rows,
)


@triton.jit
def _through_spike(grad, u, theta, slope):
    """grad k σ(k (u - θ)) (1 - σ(k (u - θ))), with k = ``slope``."""
    # σ(z) (1 - σ(z)) is even; e^-|z| neither overflows nor cancels.
    e = tl.exp(-tl.abs(slope * (u - theta)))
    return grad * (slope * e / ((1 + e) * (1 + e)))


@triton.jit
def _grad_sums_kernel(
    grad,
    u,
    thresholds,
    slope,
    x,
    mean,
    std,
    partials,
    grad_stride,
    u_stride,
    x_stride,
    rows,
    channels,
    span,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """(2, K, programs, C) of each program and channel: Σ g and Σ g x̂. ``u`` None: g = grad.

    ``x_stride`` 0: all steps have the same currents.
    """
    program, step = from_the_end(0), from_the_end(2).to(tl.int64)
    r = tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = program.to(tl.int64) * span
    count = tl.minimum(span, rows - start).to(tl.int32)
    tile = r[:, None] * channels + c[None, :]
    grad += step * grad_stride + start * channels
    x += step * x_stride + start * channels
    if u is not None:
        u += step * u_stride + start * channels
    centre = tl.load(mean + step * channels + c, c < channels, other=0.0)[None, :]
    theta = tl.load(thresholds + step) if u is not None else None

    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    dot = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for done in tl.range(0, count, BLOCK_R, num_stages=3):
        mask = (r < count - done)[:, None] & (c < channels)[None, :]
        g = tl.load(grad + tile, mask, other=0.0).to(tl.float32)
        if u is not None:
            charged = tl.load(u + tile, mask, other=0.0).to(tl.float32)
            g = _through_spike(g, charged, theta, slope)
        values = tl.load(x + tile, mask, other=0.0).to(tl.float32)
        total += g
        dot += g * (values - centre)
        tile += BLOCK_R * channels

    spread = tl.load(std + step * channels + c, c < channels, other=1.0)
    size = tl.num_programs(2).to(tl.int64) * tl.num_programs(0) * channels
    mine = partials + (step * tl.num_programs(0) + program) * channels + c
    tl.store(mine, tl.sum(total, 0), c < channels)
    tl.store(mine + size, tl.sum(dot, 0) / spread, c < channels)


@triton.jit
def _combine_sums_kernel(
    partials, sums, programs, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Partial results of `_grad_sums_kernel` to both sums, (2, K, C), taken as (2 K, C)."""
    step = tl.program_id(1)
    p = tl.arange(0, BLOCK_P)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (p < programs)[:, None] & (c < channels)[None, :]
    theirs = partials + step * programs * channels + (p[:, None] * channels + c[None, :])
    whole = tl.sum(tl.load(theirs, mask, other=0.0).to(tl.float64), 0)
    tl.store(sums + step * channels + c, whole.to(tl.float32), c < channels)


def grad_sums(
    grad: Tensor,
    u: Tensor | None,
    thresholds: Tensor | None,
    slope: float,
    x: Tensor,
    mean: Tensor,
    std: Tensor,
) -> tuple[Tensor, Tensor]:
    """Σ g and Σ g x̂ over N and places, each float32 (K, C)."""
    steps, channels = len(grad), x.shape[2]
    made = x.new_empty if x.numel() else x.new_zeros
    sums = made((2, steps, channels), dtype=torch.float32)
    if x.numel() == 0:
        return sums[0], sums[1]
    grads, currents = rows_of(grad), rows_of(x)
    charged = None if u is None else rows_of(u)
    tiling = Tiling.of(currents)
    partials = sums.new_empty((2, steps, tiling.row_blocks, channels))
    with on_device_of(x):
        _grad_sums_kernel[tiling.grid(steps)](
            grads,
            charged,
            None if thresholds is None or u is None else thresholds.contiguous(),
            slope,
            currents,
            mean.contiguous(),
            std.contiguous(),
            partials,
            grads.stride(0),
            None if charged is None else charged.stride(0),
            currents.stride(0) if len(x) == steps else 0,
            **tiling.sizes(),
        )
        grid, sizes = tiling.combining(2 * steps)
        _combine_sums_kernel[grid](partials, sums, **sizes)
    return sums[0], sums[1]


@triton.jit
def _grad_tile(grad, u, tile, mask, theta, slope):
    """g at the offsets ``tile``, read for the last time."""
    g = tl.load(grad + tile, mask, 0.0, eviction_policy="evict_first").to(tl.float32)
    if u is not None:
        charged = tl.load(u + tile, mask, 0.0, eviction_policy="evict_first").to(tl.float32)
        g = _through_spike(g, charged, theta, slope)
    return g


@triton.jit
def _grad_input_kernel(
    grad,
    u,
    thresholds,
    slope,
    x,
    mean,
    std,
    a,
    b,
    c,
    out,
    grad_stride,
    u_stride,
    x_stride,
    out_stride,
    rows,
    channels,
    span,
    ADDED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """a g + b + c x̂; ``u`` None: g = grad; ``x`` None: g itself.

    ``ADDED`` steps have the same currents, and are added.
    """
    step = tl.program_id(2).to(tl.int64)
    row = tl.arange(0, BLOCK_R)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    start = tl.program_id(0).to(tl.int64) * span
    count = tl.minimum(span, rows - start).to(tl.int32)
    tile = row[:, None] * channels + channel[None, :]
    grad += step * grad_stride + start * channels
    out += step * out_stride + start * channels
    if u is not None:
        u += step * u_stride + start * channels
    theta = tl.load(thresholds + step) if u is not None else None
    if x is not None:
        x += step * x_stride + start * channels
        place = step * channels + channel
        centre = tl.load(mean + place, inside, other=0.0)[None, :]
        by_g = tl.load(a + place, inside, other=0.0)[None, :]
        alone = tl.load(b + place, inside, other=0.0)
        by_x = tl.load(c + place, inside, other=0.0)
        for k in tl.static_range(1, ADDED):
            alone += tl.load(b + k * channels + place, inside, other=0.0)
            by_x += tl.load(c + k * channels + place, inside, other=0.0)
        by_x /= tl.load(std + place, inside, other=1.0)

    for done in tl.range(0, count, BLOCK_R, num_stages=3):
        mask = (row < count - done)[:, None] & inside[None, :]
        g = _grad_tile(grad, u, tile, mask, theta, slope)
        if x is not None:
            values = tl.load(x + tile, mask, 0.0, eviction_policy="evict_first").to(tl.float32)
            g *= by_g
            for k in tl.static_range(1, ADDED):
                of_k = tl.load(a + k * channels + place, inside, other=0.0)[None, :]
                at_k = tl.load(thresholds + k) if u is not None else None
                u_k = u + k * u_stride if u is not None else None
                g += of_k * _grad_tile(grad + k * grad_stride, u_k, tile, mask, at_k, slope)
            g += alone[None, :] + by_x[None, :] * (values - centre)
        tl.store(out + tile, g, mask)
        tile += BLOCK_R * channels


def grad_input(
    grad: Tensor,
    u: Tensor | None,
    thresholds: Tensor | None,
    slope: float,
    x: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    c: Tensor | None,
) -> Tensor:
    """a g + b + c x̂ in the type and layout of ``x``; without ``x``, g, laid out as ``grad``.

    Their sum over the steps if ``x`` is one, which all have in common.
    """
    like = grad if x is None else x
    added = len(grad) if len(like) < len(grad) else 1
    gradient = torch.empty_like(like)
    if like.numel() == 0:
        return gradient
    grads = rows_of(grad)
    charged, currents = (None if kept is None else rows_of(kept) for kept in (u, x))
    thresholds = None if u is None else thresholds
    tiling = Tiling.of(grads, times=4)  # nothing is summed that has to be combined
    vectors = (
        None if vector is None or x is None else vector.contiguous()
        for vector in (mean, std, a, b, c)
    )
    with on_device_of(grad), written_as_rows(gradient) as out:
        _grad_input_kernel[tiling.grid(len(like))](
            grads,
            charged,
            None if thresholds is None else thresholds.contiguous(),
            slope,
            currents,
            *vectors,
            out,
            grads.stride(0),
            None if charged is None else charged.stride(0),
            None if currents is None else currents.stride(0),
            out.stride(0),
            ADDED=added,
            **tiling.sizes(),
        )
    return gradient
