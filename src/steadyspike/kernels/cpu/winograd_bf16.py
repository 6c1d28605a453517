"""Convolutions of 3 by 3 in bfloat16 by Winograd's algorithm on a CPU: winograd_bf16.c, on tensors.

Tensors are bfloat16 and channels last: x (N, Ci, H, W), weights (Co, Ci, 3, 3), y (N, Co, H, W).
Only for processors that multiply pairs of bfloat16 and have no tiles for them (AMX), with which
the framework is fast, and only where no instruction set is asked for: bits differ from machine to
machine.
"""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from steadyspike.console import notify
from steadyspike.kernels.cpu import winograd_calls as calls
from steadyspike.kernels.cpu.build import NoCompiler, shared
from steadyspike.kernels.cpu.winograd_calls import INT, LONG, POINTER

_SIGNATURES = {
    **calls.SIGNATURES,
    "packed_pairs": (LONG, [LONG] * 2),
    "gradient_floats": (LONG, [LONG]),
    "gradient_parts": (None, [*[POINTER] * 2, *[LONG] * 5, *[POINTER] * 2, LONG, INT]),
}

NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx2", "fma"}
FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mavx2", "-mfma")
FASTER_ELSEWHERE = "amx_bf16"
PIN = "ONEDNN_MAX_CPU_ISA"
CHANNELS = 32  # whole vectors of either side
TILES = 128  # of all images: with fewer the weights' transform costs more
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
        notify(
            f"steadyspike: note: no fast convolutions in bfloat16: {error}; training is slower "
            "and rounds otherwise"
        )
        return None
    calls.declare(functions, _SIGNATURES)
    return functions


def serves(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> bool:
    """Whether the functions below can do this convolution, and do it faster than the framework."""
    return (
        calls.possible(x, weight, stride, padding, torch.bfloat16)
        and all(channels and channels % CHANNELS == 0 for channels in weight.shape[:2])
        and calls.pays(x, TILES)
        and PIN not in os.environ
        and _functions() is not None
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of ``x`` with ``weight``, of stride 1 and padding 1, plus ``bias``."""
    return _convolve(x, calls.as_given(weight), bias)


def grad_input(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient (N, Ci, H, W) from that of y: a convolution with the weights turned around."""
    return _convolve(grad, calls.turned(weight), None)


def _convolve(
    x: Tensor, weights: tuple[Tensor, tuple[int, ...], int], bias: Tensor | None
) -> Tensor:
    functions = _loaded()
    outputs, inputs = weights[0].shape[:2]
    packed = torch.empty(functions.packed_pairs(inputs, outputs), dtype=torch.int32)
    calls.pack_weights(functions, weights, packed)
    n, height, width = x.shape[0], *x.shape[2:]
    block = _block(n * -(-height // 2) * -(-width // 2), inputs, torch.get_num_threads())
    return calls.convolve(functions, calls.rows(x), packed, outputs, bias, block)


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
    x, grad = calls.rows(x), calls.rows(grad)
    (n, inputs, height, width), outputs = x.shape, len(weight)
    count = functions.parts_of(n, height, width)
    parts = torch.empty(count, functions.part_floats(inputs, outputs))
    chunk = _chunk(count, inputs, outputs, threads)
    scratch = torch.empty(threads, functions.gradient_floats(chunk))
    functions.gradient_parts(
        x.data_ptr(), grad.data_ptr(), n, height, width, inputs, outputs, parts.data_ptr(),
        scratch.data_ptr(), chunk, threads,
    )  # fmt: skip
    of_weight, of_bias = calls.add_up(functions, parts, weight, inputs, levels)
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
