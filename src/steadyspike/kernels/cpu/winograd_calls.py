"""What the calls of winograd.c and winograd_bf16.c have in common."""

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

POINTER, LONG, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
#: Result and arguments of the functions that are the same in both.
SIGNATURES = {
    "pack_weights": (None, [*[POINTER] * 2, *[LONG] * 2, POINTER, INT]),
    "convolve_floats": (LONG, [LONG] * 3),
    "convolve": (None, [POINTER, *[LONG] * 5, *[POINTER] * 4, LONG, INT]),
    "parts_of": (LONG, [LONG] * 3),
    "part_floats": (LONG, [LONG] * 2),
    "gradient": (None, [POINTER, *[LONG] * 3, FLOAT, *[POINTER] * 3, INT]),
}
SAVED = 1.4  # products of the direct way to those of this one, which tiles beyond the image lessen


def declare(functions: ctypes.CDLL, signatures: Mapping[str, tuple[Any, Any]]) -> None:
    """Tell ctypes what each function takes and gives."""
    for name, (result, arguments) in signatures.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = arguments, result


def possible(
    x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: object, dtype: torch.dtype
) -> bool:
    """Whether it is a 3 by 3 convolution on a CPU, channels last, that leaves height and width."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == dtype
        and weight.shape[2:] == (3, 3)
        and tuple(stride) == (1, 1)
        and padding == (1, 1)
        and weight.shape[1] == x.shape[1]  # not in groups
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def pays(x: Tensor, least: int) -> bool:
    """Whether the images have ``least`` tiles in all and lie well enough in them."""
    n, height, width = x.shape[0], *x.shape[2:]
    tiles = -(-height // 2) * -(-width // 2)
    direct = (3 * height - 2) * (3 * width - 2)  # it leaves the border out
    return n * tiles >= least and direct >= SAVED * 16 * tiles


def as_given(weight: Tensor) -> tuple[Tensor, tuple[int, ...], int]:
    """Weights for y: the tensor, its strides, and how many values after its start they begin."""
    return weight.detach(), weight.stride(), 0


def turned(weight: Tensor) -> tuple[Tensor, tuple[int, ...], int]:
    """Weights for the gradient of x, a convolution too: turned around, channels swapped."""
    down, across = weight.stride()[2:]
    swapped = weight.detach().transpose(0, 1)
    return swapped, (*swapped.stride()[:2], -down, -across), 2 * (down + across)


def pack_weights(
    functions: ctypes.CDLL, weights: tuple[Tensor, tuple[int, ...], int], packed: Tensor
) -> None:
    """Weights (outputs, inputs, 3, 3), as `as_given` or `turned` tells them, into ``packed``."""
    weight, strides, offset = weights
    begin = weight.data_ptr() + offset * weight.element_size()
    outputs, inputs = weight.shape[:2]
    functions.pack_weights(
        begin, _order(strides), inputs, outputs, packed.data_ptr(), torch.get_num_threads()
    )


def convolve(
    functions: ctypes.CDLL, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, block: int
) -> Tensor:
    """y (N, outputs, H, W) in x's type; ``block`` tiles at a time, by which no result changes."""
    n, inputs, height, width = x.shape
    threads = torch.get_num_threads()
    y = torch.empty(n, outputs, height, width, dtype=x.dtype, memory_format=torch.channels_last)
    scratch = torch.empty(threads, functions.convolve_floats(inputs, outputs, block))
    shift = None if bias is None else bias.detach().float().contiguous()
    functions.convolve(
        x.data_ptr(), n, height, width, inputs, outputs, packed.data_ptr(),
        None if shift is None else shift.data_ptr(), y.data_ptr(), scratch.data_ptr(), block,
        threads,
    )  # fmt: skip
    return y


def add_up(
    functions: ctypes.CDLL, parts: Tensor, weight: Tensor, inputs: int, levels: int
) -> tuple[Tensor, Tensor]:
    """The gradients of weights and bias from partial sums, in the weights' layout, float32."""
    outputs = len(weight)
    of_weight = torch.empty_like(weight, dtype=torch.float32)
    of_bias = torch.empty(outputs)
    functions.gradient(
        parts.data_ptr(), len(parts), inputs, outputs, 1 / levels, of_weight.data_ptr(),
        _order(of_weight.stride()), of_bias.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return of_weight, of_bias


def rows(x: Tensor) -> Tensor:
    """``x`` without history, channels last."""
    return x.detach().contiguous(memory_format=torch.channels_last)


def _order(strides: tuple[int, ...]) -> "ctypes.Array[ctypes.c_int64]":
    """Strides by input, output, row and column."""
    values = (strides[1], strides[0], *strides[2:])
    return (ctypes.c_int64 * len(values))(*values)
