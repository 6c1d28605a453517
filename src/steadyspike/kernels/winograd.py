"""Convolutions of 3 by 3 by Winograd's algorithm on a CPU: winograd.c, called on tensors.

Tensors are float32 and channels last: x (N, Ci, H, W), weights (Co, Ci, 3, 3), y (N, Co, H, W).
"""

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from steadyspike.kernels.compiled import NoCompiler, shared

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_SIGNATURES = {
    "packed_floats": (_LONG, [_LONG] * 2),
    "pack_weights": (None, [*[_POINTER] * 2, *[_LONG] * 2, _POINTER, _INT]),
    "convolve_floats": (_LONG, [_LONG] * 3),
    "convolve": (None, [_POINTER, *[_LONG] * 5, *[_POINTER] * 4, _LONG, _INT]),
    "parts_of": (_LONG, [_LONG] * 3),
    "part_floats": (_LONG, [_LONG] * 2),
    "gradient_floats": (_LONG, []),
    "gradient_parts": (None, [_POINTER, _INT, _POINTER, *[_LONG] * 5, *[_POINTER] * 2, _INT]),
    "gradient": (None, [_POINTER, *[_LONG] * 3, _FLOAT, *[_POINTER] * 3, _INT]),
}

# Of each the processor's flags that it needs; both give the same bits.
VARIANTS = {
    ("avx512f", "avx2", "fma"): ("-mavx512f", "-mavx2", "-mfma", "-mprefer-vector-width=512"),
    ("avx2", "fma"): ("-mavx2", "-mfma"),
}
CHANNELS = 32  # of either side: with fewer the transforms cost more than the products save
TILES = 64  # of all images: with fewer the weights' transform costs more
SAVED = 1.4  # products of the direct way to those of this one, which tiles beyond the image lessen
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
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(functions, name)
            function.argtypes, function.restype = arguments, result
        return functions
    if failure is not None:
        print(
            f"steadyspike: note: no fast convolutions: {failure}; training is slower and rounds "
            "otherwise",
            file=sys.stderr,
        )
    return None


def serves(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object) -> bool:
    """Whether the functions below can do this convolution, and do it faster than the framework."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[2:] == (3, 3)
        and tuple(stride) == (1, 1)
        and padding == (1, 1)
        and weight.shape[1] == x.shape[1]  # not in groups
        and min(weight.shape[:2]) >= CHANNELS
        and _pays(x.shape[0], *x.shape[2:])
        and x.is_contiguous(memory_format=torch.channels_last)
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
    packed = torch.empty(functions.packed_floats(inputs, outputs))
    begin = weight.data_ptr() + offset * weight.element_size()
    order = (strides[1], strides[0], *strides[2:])
    functions.pack_weights(begin, _longs(order), inputs, outputs, packed.data_ptr(), threads)
    y = torch.empty(n, outputs, height, width, memory_format=torch.channels_last)
    block = _block(inputs, outputs)
    scratch = torch.empty(threads, functions.convolve_floats(inputs, outputs, block))
    shift = None if bias is None else bias.detach().contiguous()
    functions.convolve(
        x.data_ptr(), n, height, width, inputs, outputs, packed.data_ptr(),
        None if shift is None else shift.data_ptr(), y.data_ptr(), scratch.data_ptr(), block,
        threads,
    )  # fmt: skip
    return y


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
    x, grad = _rows(x), _rows(grad)
    n, inputs, height, width = x.shape
    outputs = len(weight)
    count = functions.parts_of(n, height, width)
    parts = torch.empty(count, functions.part_floats(inputs, outputs))
    scratch = torch.empty(threads, functions.gradient_floats())
    functions.gradient_parts(
        x.data_ptr(), x.dtype == torch.uint8, grad.data_ptr(), n, height, width, inputs, outputs,
        parts.data_ptr(), scratch.data_ptr(), threads,
    )  # fmt: skip
    of_weight, of_bias = torch.empty_like(weight), torch.empty(outputs)
    strides = of_weight.stride()
    order = _longs((strides[1], strides[0], *strides[2:]))
    functions.gradient(
        parts.data_ptr(), count, inputs, outputs, 1 / levels, of_weight.data_ptr(), order,
        of_bias.data_ptr(), threads,
    )  # fmt: skip
    return of_weight, of_bias


def _loaded() -> ctypes.CDLL:
    functions = _functions()
    assert functions is not None, "asked without `serves`"
    return functions


def _block(inputs: int, outputs: int) -> int:
    """Tiles of a block: whole turns of the products. No result depends on it."""
    return max(BLOCK_BYTES // (64 * (inputs + outputs)) // ROWS, 2) * ROWS


def _rows(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _longs(values: tuple[int, ...]) -> "ctypes.Array[ctypes.c_int64]":
    return (ctypes.c_int64 * len(values))(*values)
