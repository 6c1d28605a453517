# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Means over 2 by 2 pixels and their gradient in Triton, channels last: one read, one write.

The framework's kernels for this layout read and write a value at a time.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.tiles import (
    BLOCK,
    LAUNCH,
    ceil_div,
    from_the_end,
    next_power_of_2,
    on_device_of,
)

CHANNELS = 128  # of a tile at most: 256 bytes of bfloat16


@triton.jit
def _pool_kernel(
    x, out, windows, across, down, width, height, channels, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Each program: some windows of ``down`` by ``across`` of each image, and some channels."""
    r = from_the_end(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    column, row = r % across, (r // across) % down
    image = (r // (across * down)).to(tl.int64)
    corner = (image * height + 2 * row) * width + 2 * column
    mask = (r < windows)[:, None] & (c < channels)[None, :]
    tile = x + corner[:, None] * channels + c[None, :]
    total = tl.load(tile, mask, other=0.0).to(tl.float32)
    total += tl.load(tile + channels, mask, other=0.0).to(tl.float32)
    total += tl.load(tile + width * channels, mask, other=0.0).to(tl.float32)
    total += tl.load(tile + (width + 1) * channels, mask, other=0.0).to(tl.float32)
    tl.store(out + r.to(tl.int64)[:, None] * channels + c[None, :], total * 0.25, mask)


@triton.jit
def _unpool_kernel(
    grad, out, windows, across, down, width, height, channels, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The same of windows that cover the image: those over its border have gradient 0."""
    r = from_the_end(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    column, row = r % across, (r // across) % down
    image = (r // (across * down)).to(tl.int64)
    mask = (r < windows)[:, None] & (c < channels)[None, :]
    whole = (column < width // 2) & (row < height // 2)
    place = (image * (height // 2) + row) * (width // 2) + column
    values = tl.load(
        grad + place[:, None] * channels + c[None, :], mask & whole[:, None], other=0.0
    ).to(tl.float32)
    values *= 0.25
    corner = (image * height + 2 * row) * width + 2 * column
    tile = out + corner[:, None] * channels + c[None, :]
    right, below = (2 * column + 1 < width)[:, None], (2 * row + 1 < height)[:, None]
    tl.store(tile, values, mask)
    tl.store(tile + channels, values, mask & right)
    tl.store(tile + width * channels, values, mask & below)
    tl.store(tile + (width + 1) * channels, values, mask & right & below)


def _sizes(shape: torch.Size, across: int, down: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid and sizes for images of (N, C, H, W) with windows of ``down`` by ``across``."""
    images, channels, height, width = shape
    block = min(next_power_of_2(channels), CHANNELS)
    rows = BLOCK // block
    windows = images * across * down
    sizes = {
        "windows": windows,
        "across": across,
        "down": down,
        "width": width,
        "height": height,
        "channels": channels,
        "BLOCK_R": rows,
        "BLOCK_C": block,
        **LAUNCH,
    }
    return (ceil_div(windows, rows), ceil_div(channels, block)), sizes


def pool(x: Tensor) -> Tensor:
    """Means over 2 by 2 pixels: (N, C, H, W) to (N, C, H // 2, W // 2), channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    shape = n, channels, height // 2, width // 2
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    if out.numel():
        grid, sizes = _sizes(x.shape, width // 2, height // 2)
        with on_device_of(x):
            _pool_kernel[grid](x, out, **sizes)
    return out


def unpool(grad: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of `pool`'s input (N, C, H, W), channels last."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    x = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    if x.numel():
        grid, sizes = _sizes(shape, ceil_div(shape[3], 2), ceil_div(shape[2], 2))
        with on_device_of(x):
            _unpool_kernel[grid](grad, x, **sizes)
    return x
