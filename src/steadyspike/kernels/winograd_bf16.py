"""Convolutions of 3 by 3 in bfloat16 by Winograd's algorithm on a CPU: winograd_bf16.c, on tensors.

Tensors are bfloat16 and channels last: x (N, Ci, H, W), weights (Co, Ci, 3, 3), y (N, Co, H, W).
Only for processors that multiply pairs of bfloat16 and have no tiles for them (AMX), with which
the framework is fast, and only where no instruction set is asked for: bits differ from machine to
machine.
"""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from steadyspike.kernels.compiled import NoCompiler, shared

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_SIGNATURES = {
    "packed_pairs": (_LONG, [_LONG] * 2),
    "pack_weights": (None, [*[_POINTER] * 2, *[_LONG] * 2, _POINTER, _INT]),
    "convolve_floats": (_LONG, [_LONG] * 3),
    "convolve": (None, [_POINTER, *[_LONG] * 5, *[_POINTER] * 4, _LONG, _INT]),
    "parts_of": (_LONG, [_LONG] * 3),
    "part_floats": (_LONG, [_LONG] * 2),
    "gradient_floats": (_LONG, [_LONG]),
    "gradient_parts": (None, [*[_POINTER] * 2, *[_LONG] * 5, *[_POINTER] * 2, _LONG, _INT]),
    "gradient": (None, [_POINTER, *[_LONG] * 3, _FLOAT, *[_POINTER] * 3, _INT]),
}

NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx2", "fma"}
FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mavx2", "-mfma")
FASTER_ELSEWHERE = "amx_bf16"
PIN = "ONEDNN_MAX_CPU_ISA"
CHANNELS = 32  # whole vectors of either side
TILES = 128  # of all images: with fewer the weights' transform costs more
SAVED = 1.4  # products of the direct way to those of this one, which tiles beyond the image lessen
CHUNKS = 64, 128  # channels of either side in a piece of the weights' gradient
BLOCK_BYTES = 768 << 10  # of a block's transforms, to stay in the second cache


@cache
def runs_here() -> bool:
    """Whether the processor has what is needed, and the framework no faster way with it."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        told = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return told >= NEEDED and FASTER_ELSEWHERE not in told


@cache
def _functions() -> ctypes.CDLL | None:
    if not runs_here():
        return None
    try:
        functions = shared("winograd_bf16.c", *FLAGS)
    except NoCompiler as error:
        print(
            f"steadyspike: note: no fast convolutions in bfloat16: {error}; training is slower "
            "and rounds otherwise",
            file=sys.stderr,
        )
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = arguments, result
    return functions


def serves(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> bool:
    """Whether the functions below can do this convolution, and do it faster than the framework."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.bfloat16
        and weight.shape[2:] == (3, 3)
        and tuple(stride) == (1, 1)
        and padding == (1, 1)
        and weight.shape[1] == x.shape[1]  # not in groups
        and all(channels and channels % CHANNELS == 0 for channels in weight.shape[:2])
        and _pays(x.shape[0], *x.shape[2:])
        and x.is_contiguous(memory_format=torch.channels_last)
        and PIN not in os.environ
        and _functions() is not None
    )


def _pays(n: int, height: int, width: int) -> bool:
    tiles = -(-height // 2) * -(-width // 2)
    direct = (3 * height - 2) * (3 * width - 2)  # it leaves the border out
    return n * tiles >= TILES and direct >= SAVED * 16 * tiles


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of ``x`` with ``weight``, of stride 1 and padding 1, plus ``bias``."""
    return _convolve(x, weight.detach(), weight.stride(), bias, 0)


def grad_input(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient (N, Ci, H, W) from that of y: a convolution with the weights turned around."""
    down, across = weight.stride()[2:]
    swapped = weight.detach().transpose(0, 1)
    strides = (*swapped.stride()[:2], -down, -across)
    return _convolve(grad, swapped, strides, None, 2 * (down + across))


def _convolve(
    x: Tensor, weight: Tensor, strides: tuple[int, ...], bias: Tensor | None, offset: int
) -> Tensor:
    """With weights (outputs, inputs, ...) that begin ``offset`` values after their tensor does."""
    functions = _loaded()
    threads = torch.get_num_threads()
    x = _rows(x)
    (n, inputs, height, width), outputs = x.shape, len(weight)
    packed = torch.empty(functions.packed_pairs(inputs, outputs), dtype=torch.int32)
    begin = weight.data_ptr() + offset * weight.element_size()
    order = (strides[1], strides[0], *strides[2:])
    functions.pack_weights(begin, _longs(order), inputs, outputs, packed.data_ptr(), threads)
    y = torch.empty(n, outputs, height, width, dtype=x.dtype, memory_format=torch.channels_last)
    block = _block(n * -(-height // 2) * -(-width // 2), inputs, threads)
    scratch = torch.empty(threads, functions.convolve_floats(inputs, outputs, block))
    shift = None if bias is None else bias.detach().float().contiguous()
    functions.convolve(
        x.data_ptr(), n, height, width, inputs, outputs, packed.data_ptr(),
        None if shift is None else shift.data_ptr(), y.data_ptr(), scratch.data_ptr(), block,
        threads,
    )  # fmt: skip
    return y


def grad_weight(x: Tensor, grad: Tensor, weight: Tensor, levels: int = 1) -> tuple[Tensor, Tensor]:
    """The gradients of the weights, in their layout, and of the bias (Co,).

    Args:
        x: bytes that hold ``levels`` times the inputs.
        grad: the gradient of y.
        weight: for its shape and layout.
        levels: 1 where x are the inputs.
    """
    functions = _loaded()
    threads = torch.get_num_threads()
    x, grad = _rows(x), _rows(grad)
    n, inputs, height, width = x.shape
    outputs = len(weight)
    count = functions.parts_of(n, height, width)
    parts = torch.empty(count, functions.part_floats(inputs, outputs))
    chunk = _chunk(count, inputs, outputs, threads)
    scratch = torch.empty(threads, functions.gradient_floats(chunk))
    functions.gradient_parts(
        x.data_ptr(), grad.data_ptr(), n, height, width, inputs, outputs, parts.data_ptr(),
        scratch.data_ptr(), chunk, threads,
    )  # fmt: skip
    of_weight = torch.empty_like(weight, dtype=torch.float32)
    of_bias = torch.empty(outputs)
    strides = of_weight.stride()
    order = _longs((strides[1], strides[0], *strides[2:]))
    functions.gradient(
        parts.data_ptr(), count, inputs, outputs, 1 / levels, of_weight.data_ptr(), order,
        of_bias.data_ptr(), threads,
    )  # fmt: skip
    return of_weight.to(weight.dtype), of_bias.to(weight.dtype)


def _loaded() -> ctypes.CDLL:
    functions = _functions()
    assert functions is not None, "asked without `serves`"
    return functions


def _block(tiles: int, inputs: int, threads: int) -> int:
    """Tiles of a block: equal ones, as many for each thread. No result depends on it."""
    most = BLOCK_BYTES // (32 * inputs + 64 * CHANNELS)
    blocks = -(-tiles // (most * threads)) * threads
    return max(-(-tiles // max(blocks, 1)), 1)


def _chunk(parts: int, inputs: int, outputs: int, threads: int) -> int:
    """Channels of either side in a piece: many transform less. No result depends on it."""
    few, many = CHUNKS
    pieces = parts * -(-inputs // many) * -(-outputs // many)
    return many if pieces >= 4 * threads else few


def _rows(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _longs(values: tuple[int, ...]) -> "ctypes.Array[ctypes.c_int64]":
    return (ctypes.c_int64 * len(values))(*values)
