"""Convolutions of 3 by 3 by Winograd's algorithm on a CPU: winograd.c, called on tensors.

Tensors are float32 and channels last: x (N, Ci, H, W), weights (Co, Ci, 3, 3), y (N, Co, H, W).
"""

import ctypes
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
    "packed_floats": (LONG, [LONG] * 2),
    "gradient_floats": (LONG, []),
    "gradient_parts": (None, [POINTER, INT, POINTER, *[LONG] * 5, *[POINTER] * 2, INT]),
}

# Of each the processor's flags that it needs; both give the same bits.
VARIANTS = {
    ("avx512f", "avx2", "fma"): ("-mavx512f", "-mavx2", "-mfma", "-mprefer-vector-width=512"),
    ("avx2", "fma"): ("-mavx2", "-mfma"),
}
CHANNELS = 32  # of either side: with fewer the transforms cost more than the products save
TILES = 64  # of all images: with fewer the weights' transform costs more
BLOCK_BYTES = 768 << 10  # of a block's transforms, to stay in the second cache
ROWS = 14  # tiles that the products take at once


@cache
def variants() -> list[tuple[str, ...]]:
    """Flags of the compilations that this machine can run, the fastest first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    try:
        told = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return []
    return [flags for needed, flags in VARIANTS.items() if set(needed) <= set(told)]


@cache
def _functions() -> ctypes.CDLL | None:
    failure = None
    for flags in variants():
        try:
            functions = shared("winograd.c", *flags)
        except NoCompiler as error:  # one that does not know these flags may know the next
            failure = error
            continue
        calls.declare(functions, _SIGNATURES)
        return functions
    if failure is not None:
        notify(
            f"steadyspike: note: no fast convolutions: {failure}; training is slower and rounds "
            "otherwise"
        )
    return None


def serves(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> bool:
    """Whether the functions below can do this convolution, and do it faster than the framework."""
    return (
        calls.possible(x, weight, stride, padding, torch.float32)
        and min(weight.shape[:2]) >= CHANNELS
        and calls.pays(x, TILES)
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
    packed = torch.empty(functions.packed_floats(inputs, outputs))
    calls.pack_weights(functions, weights, packed)
    return calls.convolve(functions, calls.rows(x), packed, outputs, bias, _block(inputs, outputs))


def grad_weight(x: Tensor, grad: Tensor, weight: Tensor, levels: int = 1) -> tuple[Tensor, Tensor]:
    """The gradients of the weights, in their layout, and of the bias (Co,).

    Args:
        x: the inputs, or bytes that hold ``levels`` times them.
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
    scratch = torch.empty(threads, functions.gradient_floats())
    functions.gradient_parts(
        x.data_ptr(), x.dtype == torch.uint8, grad.data_ptr(), n, height, width, inputs, outputs,
        parts.data_ptr(), scratch.data_ptr(), threads,
    )  # fmt: skip
    return calls.add_up(functions, parts, weight, inputs, levels)


def _loaded() -> ctypes.CDLL:
    functions = _functions()
    assert functions is not None, "asked without `serves`"
    return functions


def _block(inputs: int, outputs: int) -> int:
    """Tiles of a block: whole turns of the products. No result depends on it."""
    return max(BLOCK_BYTES // (64 * (inputs + outputs)) // ROWS, 2) * ROWS
