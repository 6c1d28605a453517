"""3x3 convolutions by Winograd's algorithm F(2x2, 3x3) on a CPU: winograd.c and winograd_bf16.c.

Tensors are channels last: x (N, Ci, H, W), weights (Co, Ci, 3, 3), y (N, Co, H, W); stride 1 and
padding 1. `find` gives the implementation that does a convolution faster than the framework.
"""

import ctypes
import os
import platform
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from steadyspike.console import notify
from steadyspike.kernels.cpu.build import NoCompiler, shared
from steadyspike.pins import cpu_flags

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float

#: A convolution takes at least so many times Winograd's multiplications; below that the tiles that
#: reach over the border of a small image cost more than the algorithm saves.
MULTIPLICATIONS_SAVED = 1.4
BLOCK_BYTES = 768 << 10  # of a block's transforms, to stay in the second-level cache


class Winograd:
    """One implementation: its numbers' type, the C source, and where it is faster."""

    dtype: torch.dtype
    source: str
    #: Compiler flags by the processor's flags they need, the fastest first; all give the same bits.
    variants: ClassVar[Mapping[tuple[str, ...], tuple[str, ...]]]
    #: Tiles of all images; with fewer the transform of the weights costs more than it saves.
    least_tiles: int
    #: Whether `grad_weight` takes inputs as they are, not as bytes alone.
    takes_values = False
    #: Result and arguments of the C functions; those below and a class's own.
    signatures: ClassVar[Mapping[str, tuple[Any, list[Any]]]]
    _COMMON: ClassVar[Mapping[str, tuple[Any, list[Any]]]] = {
        "pack_weights": (None, [*[_POINTER] * 2, *[_LONG] * 2, _POINTER, _INT]),
        "convolve_floats": (_LONG, [_LONG] * 3),
        "convolve": (None, [_POINTER, *[_LONG] * 5, *[_POINTER] * 4, _LONG, _INT]),
        "parts_of": (_LONG, [_LONG] * 3),
        "part_floats": (_LONG, [_LONG] * 2),
        "gradient": (None, [_POINTER, *[_LONG] * 3, _FLOAT, *[_POINTER] * 3, _INT]),
    }

    def runnable(self) -> list[tuple[str, ...]]:
        """Compiler flags of the variants that this processor runs, the fastest first."""
        if platform.machine() not in ("x86_64", "AMD64"):
            return []
        here = cpu_flags()
        return [flags for needed, flags in self.variants.items() if here.issuperset(needed)]

    @cached_property
    def functions(self) -> ctypes.CDLL | None:
        """The compiled library; None where the processor or the compiler does not serve."""
        failure = None
        for flags in self.runnable():
            try:
                functions = shared(self.source, *flags)
            except NoCompiler as error:  # a compiler that lacks these flags may have the next
                failure = error
                continue
            for name, (result, arguments) in {**self._COMMON, **self.signatures}.items():
                function = getattr(functions, name)
                function.argtypes, function.restype = arguments, result
            return functions
        if failure is not None:
            notify(
                f"steadyspike: note: no fast {self.dtype} convolutions: {failure}; training is "
                "slower and rounds differently"
            )
        return None

    def serves(self, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> bool:
        """Whether this implementation can do the convolution, and faster than the framework."""
        return (
            x.device.type == "cpu"
            and x.dtype == weight.dtype == self.dtype
            and weight.shape[2:] == (3, 3)
            and tuple(stride) == (1, 1)
            and padding == (1, 1)
            and weight.shape[1] == x.shape[1]  # no groups
            and self.wide_enough(weight)
            and x.is_contiguous(memory_format=torch.channels_last)
            and self._saves(x)
            and self.functions is not None
        )

    def wide_enough(self, weight: Tensor) -> bool:
        """Whether the channels are enough for the products to outweigh the transforms."""
        raise NotImplementedError

    def _saves(self, x: Tensor) -> bool:
        n, height, width = x.shape[0], *x.shape[2:]
        tiles = -(-height // 2) * -(-width // 2)
        direct = (3 * height - 2) * (3 * width - 2)  # it skips what lies beyond the border
        enough = n * tiles >= self.least_tiles
        return enough and direct >= MULTIPLICATIONS_SAVED * 16 * tiles

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of ``x`` with ``weight``, plus ``bias`` (Co,)."""
        weight = weight.detach()
        return self._convolve(x, weight, weight.stride(), 0, bias)

    def grad_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient of x from that of y: a convolution with the weights turned by 180°."""
        down, across = weight.stride()[2:]
        swapped = weight.detach().transpose(0, 1)
        strides = (*swapped.stride()[:2], -down, -across)
        return self._convolve(grad, swapped, strides, 2 * (down + across), None)

    def _convolve(
        self, x: Tensor, weight: Tensor, strides: tuple[int, ...], offset: int, bias: Tensor | None
    ) -> Tensor:
        """Weights (Co, Ci, 3, 3) are read by ``strides`` from ``offset`` values after the first."""
        functions, threads = self._loaded(), torch.get_num_threads()
        outputs, inputs = weight.shape[:2]
        packed = self.packed(inputs, outputs)
        start = weight.data_ptr() + offset * weight.element_size()
        functions.pack_weights(start, _order(strides), inputs, outputs, packed.data_ptr(), threads)
        x = _channels_last(x)
        n, _, height, width = x.shape
        block = self.block(n * -(-height // 2) * -(-width // 2), inputs, outputs)
        y = torch.empty(n, outputs, height, width, dtype=x.dtype, memory_format=torch.channels_last)
        scratch = torch.empty(threads, functions.convolve_floats(inputs, outputs, block))
        shift = None if bias is None else bias.detach().float().contiguous()
        functions.convolve(
            x.data_ptr(), n, height, width, inputs, outputs, packed.data_ptr(),
            None if shift is None else shift.data_ptr(), y.data_ptr(), scratch.data_ptr(), block,
            threads,
        )  # fmt: skip
        return y

    def grad_weight(
        self, x: Tensor, grad: Tensor, weight: Tensor, levels: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The gradients of the weights, in their layout, and of the bias (Co,).

        Args:
            x: the inputs times ``levels`` as bytes; in float32 also the inputs, with levels 1.
            grad: the gradient of y.
            weight: for its shape and layout.
            levels: what the bytes are multiples of the inverse of.
        """
        functions = self._loaded()
        x, grad = _channels_last(x), _channels_last(grad)
        (n, inputs, height, width), outputs = x.shape, len(weight)
        parts = torch.empty(
            functions.parts_of(n, height, width), functions.part_floats(inputs, outputs)
        )
        self.gradient_parts(functions, x, grad, parts)
        of_weight = torch.empty_like(weight, dtype=torch.float32)
        of_bias = torch.empty(outputs)
        functions.gradient(
            parts.data_ptr(), len(parts), inputs, outputs, 1 / levels, of_weight.data_ptr(),
            _order(of_weight.stride()), of_bias.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return of_weight.to(weight.dtype), of_bias.to(weight.dtype)

    def gradient_parts(
        self, functions: ctypes.CDLL, x: Tensor, grad: Tensor, parts: Tensor
    ) -> None:
        """Partial sums of both gradients into ``parts``, which `gradient` adds up."""
        raise NotImplementedError

    def packed(self, inputs: int, outputs: int) -> Tensor:
        """Memory for the transformed weights."""
        raise NotImplementedError

    def block(self, tiles: int, inputs: int, outputs: int) -> int:
        """Tiles of a block. No result depends on it."""
        raise NotImplementedError

    def _loaded(self) -> ctypes.CDLL:
        assert self.functions is not None, "called where it does not serve"
        return self.functions


class _Float32(Winograd):
    dtype = torch.float32
    source = "winograd.c"
    takes_values = True
    variants: ClassVar = {
        ("avx512f", "avx2", "fma"): ("-mavx512f", "-mavx2", "-mfma", "-mprefer-vector-width=512"),
        ("avx2", "fma"): ("-mavx2", "-mfma"),
    }
    least_tiles = 64
    signatures: ClassVar = {
        "packed_floats": (_LONG, [_LONG] * 2),
        "gradient_floats": (_LONG, []),
        "gradient_parts": (None, [_POINTER, _INT, _POINTER, *[_LONG] * 5, *[_POINTER] * 2, _INT]),
    }
    rows = 14  # tiles that the products take at once

    def wide_enough(self, weight: Tensor) -> bool:
        return min(weight.shape[:2]) >= 32

    def packed(self, inputs: int, outputs: int) -> Tensor:
        return torch.empty(self._loaded().packed_floats(inputs, outputs))

    def block(self, tiles: int, inputs: int, outputs: int) -> int:
        return max(BLOCK_BYTES // (64 * (inputs + outputs)) // self.rows, 2) * self.rows

    def gradient_parts(
        self, functions: ctypes.CDLL, x: Tensor, grad: Tensor, parts: Tensor
    ) -> None:
        threads, (n, inputs, height, width) = torch.get_num_threads(), x.shape
        scratch = torch.empty(threads, functions.gradient_floats())
        functions.gradient_parts(
            x.data_ptr(), x.dtype == torch.uint8, grad.data_ptr(), n, height, width, inputs,
            grad.shape[1], parts.data_ptr(), scratch.data_ptr(), threads,
        )  # fmt: skip


class _BFloat16(Winograd):
    """For processors that multiply pairs of bfloat16 but have no tile unit (AMX) for them.

    With AMX the framework is faster. Bits differ from machine to machine, so it is used only
    where no instruction set is pinned.
    """

    dtype = torch.bfloat16
    source = "winograd_bf16.c"
    variants: ClassVar = {
        ("avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx2", "fma"): (
            "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mavx2", "-mfma",
        )
    }  # fmt: skip
    least_tiles = 128
    signatures: ClassVar = {
        "packed_pairs": (_LONG, [_LONG] * 2),
        "gradient_floats": (_LONG, [_LONG]),
        "gradient_parts": (None, [*[_POINTER] * 2, *[_LONG] * 5, *[_POINTER] * 2, _LONG, _INT]),
    }
    pin = "ONEDNN_MAX_CPU_ISA"
    lanes = 32  # channels of either side come in whole vectors
    chunks = 64, 128  # channels of either side in a piece of the weights' gradient

    def runnable(self) -> list[tuple[str, ...]]:
        return [] if "amx_bf16" in cpu_flags() else super().runnable()

    def serves(self, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> bool:
        return self.pin not in os.environ and super().serves(x, weight, stride, padding)

    def wide_enough(self, weight: Tensor) -> bool:
        return all(channels and channels % self.lanes == 0 for channels in weight.shape[:2])

    def packed(self, inputs: int, outputs: int) -> Tensor:
        return torch.empty(self._loaded().packed_pairs(inputs, outputs), dtype=torch.int32)

    def block(self, tiles: int, inputs: int, outputs: int) -> int:
        """Equal blocks, as many for each thread."""
        threads = torch.get_num_threads()
        most = BLOCK_BYTES // (32 * inputs + 64 * self.lanes)
        blocks = -(-tiles // (most * threads)) * threads
        return max(-(-tiles // max(blocks, 1)), 1)

    def chunk(self, parts: int, inputs: int, outputs: int) -> int:
        """Channels of either side in a piece of the gradient. No result depends on it."""
        few, many = self.chunks
        pieces = parts * -(-inputs // many) * -(-outputs // many)
        return many if pieces >= 4 * torch.get_num_threads() else few

    def gradient_parts(
        self, functions: ctypes.CDLL, x: Tensor, grad: Tensor, parts: Tensor
    ) -> None:
        threads, (n, inputs, height, width) = torch.get_num_threads(), x.shape
        outputs = grad.shape[1]
        chunk = self.chunk(len(parts), inputs, outputs)
        scratch = torch.empty(threads, functions.gradient_floats(chunk))
        functions.gradient_parts(
            x.data_ptr(), grad.data_ptr(), n, height, width, inputs, outputs, parts.data_ptr(),
            scratch.data_ptr(), chunk, threads,
        )  # fmt: skip


FLOAT32, BFLOAT16 = _Float32(), _BFloat16()


def find(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> Winograd | None:
    """The implementation for this convolution; None where the framework's is faster."""
    for winograd in (FLOAT32, BFLOAT16):
        if winograd.serves(x, weight, stride, padding):
            return winograd
    return None


def _channels_last(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _order(strides: tuple[int, ...]) -> "ctypes.Array[ctypes.c_int64]":
    """Strides by input, output, row and column."""
    values = (strides[1], strides[0], *strides[2:])
    return (ctypes.c_int64 * len(values))(*values)
