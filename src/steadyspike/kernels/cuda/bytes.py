# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Spikes and their averages kept as bytes, in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from steadyspike.kernels.cuda.tiles import flat, on_device_of


@triton.jit
def _pack_kernel(x, levels, packed, values, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(x + place, place < values, other=0.0).to(tl.float32) * levels
    tl.store(packed + place, (number + 0.5).to(tl.int32).to(tl.uint8), place < values)


@triton.jit
def _unpack_kernel(packed, levels, x, values, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(packed + place, place < values, other=0).to(tl.float32)
    # `/` is a few units in the last place off.
    tl.store(x + place, tl.div_rn(number, levels), place < values)


def pack(x: Tensor, levels: float) -> Tensor:
    """``x``, multiples of 1 / ``levels`` from 0 to 255 / ``levels``, as uint8 multiples.

    Of the same shape and memory layout.
    """
    packed = torch.empty_like(x, dtype=torch.uint8)
    if x.stride() != packed.stride():  # a slice: its values have others between them
        x = x.clone()
    if x.numel():
        grid, sizes = flat(x)
        with on_device_of(x):
            _pack_kernel[grid](x, float(levels), packed, **sizes)
    return packed


def unpack(packed: Tensor, levels: float, dtype: torch.dtype) -> Tensor:
    """What `pack` was given, exactly, in ``dtype``."""
    x = torch.empty_like(packed, dtype=dtype)
    if packed.stride() != x.stride():
        packed = packed.clone()
    if x.numel():
        grid, sizes = flat(x)
        with on_device_of(x):
            _unpack_kernel[grid](packed, float(levels), x, **sizes)
    return x
