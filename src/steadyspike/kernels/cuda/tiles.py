# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""How the values of a layer are divided among the programs of a Triton kernel.

Shapes alone decide, never the GPU or a measured time: the order of every sum, and so its bits, is
the same in every run, and that of a step is the same for every K.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Of the sizes tried on an H200 over VGGSNN's layers in bfloat16, these are fastest. `tl.range`
# loads the next tiles of a program while one is computed, so each program has many.
TILE = 1024  # values of a tile over rows
WARPS = 2  # of its program: 16 values a thread, so that three sums stay in registers
CHANNELS = 64  # of a tile at most: 256 bytes of a row of float32, whole cache lines
PROGRAMS = 264  # of a step, 2 on each of 132 multiprocessors; those of all K steps run at once
BLOCK = 2048  # values of a program without a loop
COMBINED = 2048  # partial results that one program combines at a time, in float64
#: Multiplications and additions are rounded one by one, as on the CPU, so that elementwise results
#: have the same bits everywhere; the kernels are bound by memory either way.
LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}


def ceil_div(number: int, by: int) -> int:
    return -(-number // by)


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


@triton.jit
def from_the_end(axis: tl.constexpr):
    """`program_id` in reverse, as programs start in its order.

    A kernel that begins with what the one before it ended with finds that in the cache.
    """
    return tl.num_programs(axis) - 1 - tl.program_id(axis)


@dataclass(frozen=True)
class Tiling:
    """The rows (R, C) of one step, a row the channels of one place, cut for a grid of programs.

    Args:
        rows: R = N H W, at least 1.
        channels: C, at least 1.
        programs: about how many share a step.
    """

    rows: int
    channels: int
    programs: int

    @classmethod
    def of(cls, rows: Tensor, times: int = 1) -> "Tiling":
        """For the result of `rows_of`, with ``times`` the usual number of programs."""
        return cls(rows.shape[1], rows.shape[2], times * PROGRAMS)

    @property
    def block_channels(self) -> int:
        """Channels of a tile, a power of 2."""
        return min(next_power_of_2(self.channels), CHANNELS)

    @property
    def block_rows(self) -> int:
        """Rows of a tile, a power of 2."""
        return TILE // self.block_channels

    @property
    def channel_blocks(self) -> int:
        """Programs that share the channels of a row."""
        return ceil_div(self.channels, self.block_channels)

    @property
    def span(self) -> int:
        """Consecutive rows of a program, whole tiles."""
        tiles = ceil_div(self.rows, self.block_rows)
        return ceil_div(tiles, ceil_div(self.programs, self.channel_blocks)) * self.block_rows

    @property
    def row_blocks(self) -> int:
        """Programs that share the rows of a channel; the last may have fewer."""
        return ceil_div(self.rows, self.span)

    def grid(self, steps: int) -> tuple[int, int, int]:
        return self.row_blocks, self.channel_blocks, steps

    def sizes(self) -> dict[str, int]:
        """The sizes that every kernel over rows takes."""
        return {
            "rows": self.rows,
            "channels": self.channels,
            "span": self.span,
            "BLOCK_R": self.block_rows,
            "BLOCK_C": self.block_channels,
            **LAUNCH,
            "num_warps": WARPS,
        }

    def combining(self, steps: int) -> tuple[tuple[int, int], dict[str, int]]:
        """Grid and sizes of a kernel that combines the programs' partial results by channel."""
        block = next_power_of_2(self.row_blocks)
        channels = min(next_power_of_2(self.channels), max(COMBINED // block, 4))
        sizes = {
            "programs": self.row_blocks,
            "channels": self.channels,
            "BLOCK_P": block,
            "BLOCK_C": channels,
            **LAUNCH,
        }
        return (ceil_div(self.channels, channels), steps), sizes


def rows_of(x: Tensor) -> Tensor:
    """(K, N, C, ...) as (K, R, C) whose steps are contiguous; a copy where memory has it otherwise.

    The steps may lie apart, as in a slice of a longer buffer.
    """
    rows = x.movedim(2, -1).flatten(1, -2) if x.dim() > 3 else x
    return rows if rows[0].is_contiguous() else rows.contiguous()


@contextmanager
def written_as_rows(out: Tensor) -> Iterator[Tensor]:
    """`rows_of` ``out`` (K, N, C, ...) to write to; at the end ``out`` holds what was written."""
    rows = rows_of(out)
    yield rows
    if rows.data_ptr() != out.data_ptr():
        k, n, c, *places = out.shape
        out.copy_(rows.view(k, n, *places, c).movedim(-1, 2))


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Kernels are launched on the current device, which need not be that of ``x``."""
    return torch.cuda.device_of(x)


def flat(x: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """Grid and sizes of a kernel that goes over the values of ``x`` and knows no channels."""
    return (ceil_div(x.numel(), BLOCK),), {"values": x.numel(), "BLOCK": BLOCK, **LAUNCH}
