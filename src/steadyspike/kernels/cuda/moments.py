# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Mean and variance of each step and channel, in Triton, by one read of the values.

A program walks over tiles of consecutive rows and sums differences from a pivot, the mean of its
first tile, and their squares. That tile is part of the sum, so the pivot is at most √(tiles)
standard deviations from the mean, and nothing cancels however far from zero the values are. A
second kernel combines the programs' counts, means and squares in a fixed order, in float64 (Chan,
Golub and LeVeque 1979).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.tiles import Tiling, from_the_end, on_device_of, rows_of


@triton.jit
def _moments_kernel(
    x, partials, step_stride, rows, channels, span, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """(3, K, programs, C) of each program and channel: pivot, mean - pivot, squared deviations."""
    program, step = from_the_end(0), from_the_end(2).to(tl.int64)
    r = tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = program.to(tl.int64) * span
    count = tl.minimum(span, rows - start).to(tl.int32)
    tile = x + step * step_stride + start * channels + (r[:, None] * channels + c[None, :])

    mask = (r < count)[:, None] & (c < channels)[None, :]
    values = tl.load(tile, mask, other=0.0).to(tl.float32)
    pivot = tl.sum(values, 0) / tl.minimum(count, BLOCK_R)
    difference = tl.where(mask, values - pivot[None, :], 0.0)
    total = difference
    squares = difference * difference
    for done in tl.range(BLOCK_R, count, BLOCK_R, num_stages=4):
        tile += BLOCK_R * channels
        mask = (r < count - done)[:, None] & (c < channels)[None, :]
        values = tl.load(tile, mask, other=0.0).to(tl.float32)
        difference = tl.where(mask, values - pivot[None, :], 0.0)
        total += difference
        squares += difference * difference

    off = tl.sum(total, 0) / count
    size = tl.num_programs(2).to(tl.int64) * tl.num_programs(0) * channels
    mine = partials + (step * tl.num_programs(0) + program) * channels + c
    tl.store(mine, pivot, c < channels)
    tl.store(mine + size, off, c < channels)
    tl.store(mine + 2 * size, tl.sum(squares, 0) - off * off * count, c < channels)


@triton.jit
def _combine_moments_kernel(
    partials,
    means,
    variances,
    rows,
    span,
    programs,
    channels,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Partial results of `_moments_kernel` to means and biased variances, each (K, C)."""
    step = tl.program_id(1)
    p = tl.arange(0, BLOCK_P)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (p < programs)[:, None] & (c < channels)[None, :]
    theirs = partials + step * programs * channels + (p[:, None] * channels + c[None, :])
    size = tl.num_programs(1) * programs * channels
    count = tl.minimum(span, rows - p.to(tl.int64) * span)
    weight = (tl.where(p < programs, count, 0).to(tl.float64) / rows)[:, None]

    mean = tl.load(theirs, mask, other=0.0).to(tl.float64)
    mean += tl.load(theirs + size, mask, other=0.0)
    squares = tl.load(theirs + 2 * size, mask, other=0.0).to(tl.float64)
    whole = tl.sum(weight * mean, 0)
    apart = tl.where(mask, mean - whole[None, :], 0.0)
    variance = tl.sum(squares, 0) / rows + tl.sum(weight * apart * apart, 0)
    variance = tl.where(variance < 0, 0.0, variance)  # negative by rounding; NaN stays NaN
    tl.store(means + step * channels + c, whole.to(tl.float32), c < channels)
    tl.store(variances + step * channels + c, variance.to(tl.float32), c < channels)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over N and places: ``x`` (K, N, C, ...) to two float32 (K, C)."""
    steps, channels = x.shape[0], x.shape[2]
    made = x.new_empty if x.numel() else x.new_zeros
    mean, var = made((2, steps, channels), dtype=torch.float32).unbind()
    if x.numel() == 0:
        return mean, var
    rows = rows_of(x)
    tiling = Tiling.of(rows)
    partials = mean.new_empty((3, steps, tiling.row_blocks, channels))
    with on_device_of(x):
        _moments_kernel[tiling.grid(steps)](rows, partials, rows.stride(0), **tiling.sizes())
        grid, sizes = tiling.combining(steps)
        _combine_moments_kernel[grid](partials, mean, var, tiling.rows, tiling.span, **sizes)
    return mean, var
