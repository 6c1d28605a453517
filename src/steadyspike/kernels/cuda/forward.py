# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""The neurons of one layer and step in Triton: normalize, charge, fire.

The statistics of u are computed as `moments` does for a current, but over the whole layer.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.tiles import (
    LAUNCH,
    Tiling,
    flat,
    from_the_end,
    next_power_of_2,
    on_device_of,
    rows_of,
    written_as_rows,
)
from steadyspike.kernels.stabilizer import ROUNDING, Stabilizer

NO_SPREAD = ROUNDING * 2.0**-23  # a standard deviation at most so large, relative to the mean


@triton.jit
def _charge_tile(
    tile, mask, x, scale, shift, before, theta, last_spikes, leak, out, spikes, fire_at,
    ZERO_RESET: tl.constexpr,
):  # fmt: skip
    """Charge, and if asked fire, the values at the offsets ``tile``; returns their u[t]."""
    u = tl.load(x + tile, mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
    if scale is not None:
        u = u * scale[None, :] + shift[None, :]
    if before is not None:
        last = tl.load(before + tile, mask, 0.0, eviction_policy="evict_first").to(tl.float32)
        fired = last >= theta  # False for NaN, which then stays NaN
        if last_spikes is not None:
            tl.store(last_spikes + tile, tl.where(fired, 1.0, 0.0), mask)
        if ZERO_RESET:
            u += leak * tl.where(fired, 0.0, last)
        else:
            u += leak * tl.where(fired, last - theta, last)
    u = u.to(out.dtype.element_ty)  # what is stored decides, here and when it is read again
    tl.store(out + tile, u, mask)
    u = u.to(tl.float32)
    if spikes is not None:
        tl.store(spikes + tile, tl.where(u >= fire_at, 1.0, 0.0), mask)
    return u


@triton.jit
def _charge_kernel(
    x,
    scale,  # None where not asked for
    shift,
    before,
    threshold,
    last_spikes,
    leak,
    out,
    spikes,
    fire_at,
    partials,
    rows,
    channels,
    span,
    ZERO_RESET: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """u[t], and if asked for its spikes and (3, programs, channel blocks) partial statistics."""
    r = tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(0).to(tl.int64) * span
    count = tl.minimum(span, rows - start).to(tl.int32)
    tile = r[:, None] * channels + c[None, :]
    x += start * channels
    out += start * channels
    if before is not None:
        before += start * channels
    if last_spikes is not None:
        last_spikes += start * channels
    if spikes is not None:
        spikes += start * channels
    if scale is not None:
        scale = tl.load(scale + c, c < channels, other=0.0)
        shift = tl.load(shift + c, c < channels, other=0.0)
    theta = tl.load(threshold) if before is not None else None

    mask = (r < count)[:, None] & (c < channels)[None, :]
    u = _charge_tile(
        tile, mask, x, scale, shift, before, theta, last_spikes, leak, out, spikes, fire_at,
        ZERO_RESET,
    )  # fmt: skip
    if partials is not None:
        columns = tl.minimum(BLOCK_C, channels - tl.program_id(1) * BLOCK_C)
        values = tl.where(mask, u, 0.0)
        pivot = tl.sum(tl.sum(values, 0), 0) / (tl.minimum(count, BLOCK_R) * columns)
        difference = tl.where(mask, u - pivot, 0.0)
        total = difference
        squares = difference * difference
    for done in tl.range(BLOCK_R, count, BLOCK_R, num_stages=5):
        tile += BLOCK_R * channels
        mask = (r < count - done)[:, None] & (c < channels)[None, :]
        u = _charge_tile(
            tile, mask, x, scale, shift, before, theta, last_spikes, leak, out, spikes, fire_at,
            ZERO_RESET,
        )  # fmt: skip
        if partials is not None:
            difference = tl.where(mask, u - pivot, 0.0)
            total += difference
            squares += difference * difference
    if partials is not None:
        n = count.to(tl.float32) * columns
        off = tl.sum(tl.sum(total, 0), 0) / n
        size = tl.num_programs(0) * tl.num_programs(1)
        mine = partials + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(mine, pivot)
        tl.store(mine + size, off)
        tl.store(mine + 2 * size, tl.sum(tl.sum(squares, 0), 0) - off * off * n)


@triton.jit
def _combine_charge_kernel(
    partials,
    statistics,  # None where not asked for
    first,  # None without a stabilizer; the other two are its arguments
    threshold,
    v_threshold,
    rows,
    channels,
    span,
    row_blocks,
    channel_blocks,
    AT_FIRST: tl.constexpr,
    NO_SPREAD: tl.constexpr,
    BLOCK_C: tl.constexpr,  # of `_charge_kernel`
    BLOCK_P: tl.constexpr,
):
    """Partial statistics of `_charge_kernel` to (2,), mean and sum of squared deviations, or to θ.

    θ is that of `Stabilizer`.
    """
    p = tl.arange(0, BLOCK_P)
    mask = p < row_blocks * channel_blocks
    size = row_blocks * channel_blocks
    first_row = (p // channel_blocks).to(tl.int64) * span
    count = tl.minimum(span, rows - first_row) * tl.minimum(
        BLOCK_C, channels - (p % channel_blocks) * BLOCK_C
    )
    n = tl.where(mask, count, 0).to(tl.float64)

    mean = tl.load(partials + p, mask, other=0.0).to(tl.float64)
    mean += tl.load(partials + size + p, mask, other=0.0)
    squares = tl.load(partials + 2 * size + p, mask, other=0.0).to(tl.float64)
    values = tl.sum(n, 0)
    whole = tl.sum(n * mean, 0) / values
    apart = tl.where(mask, mean - whole, 0.0)
    total = tl.sum(squares + n * apart * apart, 0)
    total = tl.where(total < 0, 0.0, total)
    if statistics is not None:
        tl.store(statistics, whole.to(tl.float32))
        tl.store(statistics + 1, total.to(tl.float32))
    if first is not None:
        std = tl.sqrt(total / tl.where(values > 1, values - 1, 1))
        std = tl.where(std <= NO_SPREAD * tl.abs(whole), 0.0, std)  # NaN stays NaN
        if AT_FIRST:
            q = (v_threshold - whole) / tl.where(std == 0, 1.0, std)
            tl.store(first, q.to(tl.float32))
            tl.store(first + 1, std.to(tl.float32))
            tl.store(threshold, v_threshold)
        else:
            silent = (tl.load(first + 1) == 0) | (std == 0)
            stabilized = (whole + tl.load(first) * std).to(tl.float32)
            tl.store(threshold, tl.where(silent, v_threshold, stabilized))


def membrane_type(currents: torch.dtype) -> torch.dtype:
    """The type that u is stored in: float16 beside bfloat16, since memory bounds these kernels.

    float16 has 11 significant bits where bfloat16 has 8, and its largest number, 65504, is far
    above what a norm leaves.
    """
    return torch.float16 if currents == torch.bfloat16 else torch.float32


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
    """u of one step (Eq. 2, 4), written to ``out``, which is not ``before`` itself."""
    if x.numel() == 0:
        nothing = out.new_zeros(2, dtype=torch.float32)
        if stabilizer is not None:
            stabilizer.write(nothing, 0)
        return nothing if statistics else None
    currents = rows_of(x[None])
    tiling = Tiling.of(currents, times=2)  # the K steps run one after the other
    partials = None
    if statistics or stabilizer is not None:
        shape = 3, tiling.row_blocks, tiling.channel_blocks
        partials = out.new_empty(shape, dtype=torch.float32)
    firing, last_firing = (
        nullcontext() if each is None else written_as_rows(each[None])
        for each in (spikes, None if before is None else last_spikes)
    )
    with (
        on_device_of(x),
        written_as_rows(out[None]) as u,
        firing as fired,
        last_firing as last_fired,
    ):
        _charge_kernel[tiling.grid(1)](
            currents,
            None if scale is None else scale.contiguous(),
            None if shift is None else shift.contiguous(),
            None if before is None else rows_of(before[None]),
            None if before is None else threshold,
            last_fired,
            leak,
            u,
            fired,
            fire_at,
            partials,
            ZERO_RESET=zero_reset,
            **tiling.sizes(),
        )
        if partials is None:
            return None
        found = out.new_empty(2, dtype=torch.float32) if statistics else None
        _combine_charge_kernel[(1,)](
            partials,
            found,
            None if stabilizer is None else stabilizer.first,
            None if stabilizer is None else stabilizer.threshold,
            None if stabilizer is None else stabilizer.v_threshold,
            tiling.rows,
            tiling.channels,
            tiling.span,
            tiling.row_blocks,
            tiling.channel_blocks,
            AT_FIRST=stabilizer is not None and stabilizer.at_first,
            NO_SPREAD=NO_SPREAD,
            BLOCK_C=tiling.block_channels,
            BLOCK_P=next_power_of_2(tiling.row_blocks * tiling.channel_blocks),
            **LAUNCH,
        )
        return found


@triton.jit
def _fire_kernel(u, threshold, out, values, BLOCK: tl.constexpr):
    place = from_the_end(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    charged = tl.load(u + place, place < values, other=0.0).to(tl.float32)
    fired = charged >= tl.load(threshold)
    tl.store(out + place, tl.where(fired, 1.0, 0.0), place < values)


def fire(u: Tensor, threshold: Tensor, out: Tensor) -> None:
    """Spikes of one step (Eq. 3), written to ``out``."""
    if u.numel() == 0:
        return
    grid, sizes = flat(u)
    with on_device_of(u), written_as_rows(out[None]) as fired:
        _fire_kernel[grid](rows_of(u[None]), threshold, fired, **sizes)
