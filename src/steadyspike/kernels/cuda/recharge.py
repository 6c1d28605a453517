# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""The backward pass of a layer that kept no membranes, in Triton.

u of all steps of a call is charged again, to the same bits, from the currents, which the norm's
gradient reads anyway: its K steps in turn, a tile of the layer at a time. That reads and keeps
half of the bytes that stored membranes would take.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.backward import _combine_sums_kernel, _through_spike
from steadyspike.kernels.cuda.tiles import (
    CHANNELS,
    LAUNCH,
    PROGRAMS,
    ceil_div,
    from_the_end,
    next_power_of_2,
    on_device_of,
    rows_of,
    written_as_rows,
)
from steadyspike.kernels.norm import Scales
from steadyspike.kernels.recharge import Recharge

LARGE, SMALL = 4096, 1024  # values of a tile: large if there are enough of them
THREAD = 16  # values of a tile that a thread holds at most: two tiles, u and g, are in registers
COMBINED = 512  # partial results of a channel that are combined at a time


@triton.jit
def _charged(values, scale, shift, u, theta, leak, ZERO_RESET: tl.constexpr):
    """u of a step from u and θ of the last, as `_charge_tile` computes it."""
    fired = u >= theta
    if ZERO_RESET:
        return values * scale[None, :] + shift[None, :] + leak * tl.where(fired, 0.0, u)
    return values * scale[None, :] + shift[None, :] + leak * tl.where(fired, u - theta, u)


@triton.jit
def _recharged_sums_kernel(
    grad,
    x,
    before,  # None at the first step, as last_threshold
    last_threshold,
    thresholds,
    slope,
    leak,
    mean,
    std,
    scale,
    shift,
    partials,
    grad_stride,
    x_stride,
    steps,
    rows,
    channels,
    ZERO_RESET: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """(2, K, programs, C) of each tile, step and channel: Σ g and Σ g x̂."""
    program = from_the_end(0)
    r = tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = c < channels
    start = program.to(tl.int64) * BLOCK_R
    mask = (r < rows - start)[:, None] & inside[None, :]
    tile = r[:, None] * channels + c[None, :]
    grad += start * channels
    x += start * channels
    u = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    theta = tl.full((), float("inf"), tl.float32)
    if before is not None:
        u = tl.load(before + start * channels + tile, mask, other=0.0)
        theta = tl.load(last_threshold)
    size = steps * tl.num_programs(0).to(tl.int64) * channels
    mine = partials + program * channels + c
    for step in range(steps):
        place = step * channels + c
        values = tl.load(x + tile, mask, other=0.0).to(tl.float32)
        upstream = tl.load(grad + tile, mask, other=0.0).to(tl.float32)
        by_x = tl.load(scale + place, inside, other=0.0)
        u = _charged(
            values, by_x, tl.load(shift + place, inside, other=0.0), u, theta, leak, ZERO_RESET
        )
        theta = tl.load(thresholds + step)
        g = _through_spike(upstream, u, theta, slope)
        centre = tl.load(mean + place, inside, other=0.0)
        dot = tl.sum(g * (values - centre[None, :]), 0)
        tl.store(mine, tl.sum(g, 0), inside)
        tl.store(mine + size, dot / tl.load(std + place, inside, other=1.0), inside)
        mine += tl.num_programs(0) * channels
        grad += grad_stride
        x += x_stride


@triton.jit
def _recharged_input_kernel(
    grad,
    x,
    before,
    last_threshold,
    thresholds,
    slope,
    leak,
    mean,
    std,
    scale,
    shift,
    a,
    b,
    c,
    out,
    grad_stride,
    x_stride,
    out_stride,
    steps,
    rows,
    channels,
    STILL: tl.constexpr,
    ZERO_RESET: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """a g + b + c x̂ of each step; their sum where all steps have the same currents."""
    r = tl.arange(0, BLOCK_R)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    start = tl.program_id(0).to(tl.int64) * BLOCK_R
    mask = (r < rows - start)[:, None] & inside[None, :]
    tile = r[:, None] * channels + channel[None, :]
    grad += start * channels
    x += start * channels
    out += start * channels
    u = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    theta = tl.full((), float("inf"), tl.float32)
    if before is not None:
        u = tl.load(before + start * channels + tile, mask, other=0.0)
        theta = tl.load(last_threshold)
    if STILL:
        total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
        values = tl.load(x + tile, mask, other=0.0).to(tl.float32)
    for step in range(steps):
        place = step * channels + channel
        if not STILL:
            values = tl.load(x + tile, mask, other=0.0).to(tl.float32)
        upstream = tl.load(grad + tile, mask, other=0.0).to(tl.float32)
        scales = tl.load(scale + place, inside, other=0.0)
        u = _charged(
            values, scales, tl.load(shift + place, inside, other=0.0), u, theta, leak, ZERO_RESET
        )
        theta = tl.load(thresholds + step)
        g = _through_spike(upstream, u, theta, slope)
        centre = tl.load(mean + place, inside, other=0.0)[None, :]
        by_g = tl.load(a + place, inside, other=0.0)[None, :]
        alone = tl.load(b + place, inside, other=0.0)[None, :]
        by_x = tl.load(c + place, inside, other=0.0) / tl.load(std + place, inside, other=1.0)
        g = by_g * g + alone + by_x[None, :] * (values - centre)
        if STILL:
            total += g
        else:
            tl.store(out + tile, g, mask)
            out += out_stride
            x += x_stride
        grad += grad_stride
    if STILL:
        tl.store(out + tile, total, mask)


def _tiles(rows: int, channels: int, each: int = THREAD) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid and sizes; shapes alone decide, as in `Tiling`."""
    values = LARGE if rows * channels >= PROGRAMS * LARGE else SMALL
    block = min(next_power_of_2(channels), CHANNELS)
    block_rows = values // block
    sizes = {
        "rows": rows,
        "channels": channels,
        "BLOCK_R": block_rows,
        "BLOCK_C": block,
        **LAUNCH,
        "num_warps": max(values // (32 * each), 4),
    }
    return (ceil_div(rows, block_rows), ceil_div(channels, block)), sizes


def recharged_sums(
    grad: Tensor, x: Tensor, thresholds: Tensor, slope: float, by: Recharge, scales: Scales
) -> tuple[Tensor, Tensor]:
    """As `grad_sums`, of membranes that are charged again; ``x`` may be one step of all."""
    steps, channels = len(grad), x.shape[2]
    made = grad.new_empty if grad.numel() else grad.new_zeros
    sums = made((2, steps, channels), dtype=torch.float32)
    if grad.numel() == 0:
        return sums[0], sums[1]
    grads, currents = rows_of(grad), rows_of(x)
    grid, sizes = _tiles(grads.shape[1], channels)
    programs = grid[0]
    partials = sums.new_empty((2, steps, programs, channels))
    with on_device_of(x):
        _recharged_sums_kernel[grid](
            grads,
            currents,
            None if by.before is None else rows_of(by.before[None]),
            None if by.before is None else by.last_threshold,
            thresholds,
            slope,
            by.leak,
            *_vectors(scales),
            partials,
            grads.stride(0),
            currents.stride(0) if len(x) == steps else 0,
            steps,
            ZERO_RESET=by.zero_reset,
            **sizes,
        )
        combined = min(next_power_of_2(programs), COMBINED)
        _combine_sums_kernel[(ceil_div(channels, 4), 2 * steps)](
            partials, sums, programs, channels, BLOCK_P=combined, BLOCK_C=4, **LAUNCH
        )
    return sums[0], sums[1]


def recharged_input(
    grad: Tensor,
    x: Tensor,
    thresholds: Tensor,
    slope: float,
    by: Recharge,
    scales: Scales,
    a: Tensor,
    b: Tensor,
    c: Tensor,
) -> Tensor:
    """As `grad_input`, of membranes that are charged again.

    The sum over the steps, (1, N, C, ...), where ``x`` is one step of all.
    """
    gradient = torch.empty_like(x)
    if gradient.numel() == 0:
        return gradient
    grads, currents = rows_of(grad), rows_of(x)
    steps, rows, channels = grads.shape
    still = len(x) < steps
    grid, sizes = _tiles(rows, channels)
    with on_device_of(x), written_as_rows(gradient) as out:
        _recharged_input_kernel[grid](
            grads,
            currents,
            None if by.before is None else rows_of(by.before[None]),
            None if by.before is None else by.last_threshold,
            thresholds,
            slope,
            by.leak,
            *_vectors(scales),
            *(vector.contiguous() for vector in (a, b, c)),
            out,
            grads.stride(0),
            0 if still else currents.stride(0),
            out.stride(0),
            steps,
            STILL=still,
            ZERO_RESET=by.zero_reset,
            **sizes,
        )
    return gradient


def _vectors(scales: Scales) -> list[Tensor]:
    """What the kernels take of them, (K, C) each."""
    used = scales.step_mean, scales.step_std, scales.scale, scales.shift
    return [vector.contiguous() for vector in used]
