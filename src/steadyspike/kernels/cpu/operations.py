"""The kernels on a CPU: calls of operations.c. `steadyspike.kernels` describes each function."""

import ctypes
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from steadyspike.kernels.cpu.build import library
from steadyspike.kernels.stabilizer import Stabilizer

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_SIGNATURES: dict[str, list[Any]] = {
    "moments": [_POINTER, *[_LONG] * 3, *[_POINTER] * 3, _INT],
    "charge": [
        *[_POINTER] * 5, _FLOAT, _INT, *[_POINTER] * 2, _FLOAT, *[_POINTER] * 2, *[_LONG] * 2, _INT
    ],
    "fire": [*[_POINTER] * 3, _LONG, _INT],
    "grad_sums": [*[_POINTER] * 3, _FLOAT, *[_POINTER] * 6, *[_LONG] * 3, _INT],
    "grad_input": [*[_POINTER] * 3, _FLOAT, *[_POINTER] * 8, *[_LONG] * 3, _INT],
    "pack": [*[_POINTER] * 2, _FLOAT, _LONG, _INT],
    "unpack": [*[_POINTER] * 2, _FLOAT, _LONG, _INT],
}  # fmt: skip


@cache
def _functions(dtype: torch.dtype) -> ctypes.CDLL:
    if dtype not in (torch.float32, torch.bfloat16):  # the C code would read past the end
        raise TypeError(f"the CPU kernels take float32 or bfloat16, not {dtype}")
    functions = library(dtype == torch.bfloat16)
    for name, arguments in _SIGNATURES.items():
        function = getattr(functions, name)
        function.argtypes, function.restype = arguments, None
    functions.scratch_floats.argtypes = [_LONG] * 3
    functions.scratch_floats.restype = _LONG
    return functions


def _rows(x: Tensor) -> Tensor:
    """``x`` (K, N, C, ...) as rows of C channels in memory; a copy if laid out otherwise."""
    if _are_rows(x, 2):
        return x
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def _step_rows(x: Tensor) -> Tensor:
    """The same for one step (N, C, ...)."""
    return x if _are_rows(x, 1) else x.movedim(1, -1).contiguous().movedim(-1, 1)


def _are_rows(x: Tensor, channels: int) -> bool:
    """Whether in memory dimension ``channels`` runs fastest, then the last, and so on."""
    shape, strides, expected = x.shape, x.stride(), 1
    for dim in (channels, *range(x.dim() - 1, channels, -1), *range(channels - 1, -1, -1)):
        if shape[dim] != 1 and strides[dim] != expected:
            return False
        expected *= shape[dim]
    return True


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialized, in the shape and layout of `_rows`."""
    return torch.empty_like(x, dtype=dtype)


def _size(x: Tensor) -> tuple[int, int, int]:
    """K, R and C of (K, N, C, ...)."""
    return x.shape[0], x.shape[1] * math.prod(x.shape[3:]), x.shape[2]


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _floats(x: Tensor) -> Tensor:
    return x.float().contiguous()


def _expect_float32(out: Tensor) -> None:
    if out.dtype != torch.float32:
        raise TypeError(f"membranes are float32, not {out.dtype}")


def _scratch(functions: ctypes.CDLL, x: Tensor) -> Tensor:
    return torch.empty(functions.scratch_floats(*_size(x)))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each step and channel: (K, N, C, ...) to two (K, C)."""
    x = _rows(x)
    functions = _functions(x.dtype)
    mean, var = torch.empty(2, x.shape[0], x.shape[2]).unbind()
    scratch = _scratch(functions, x)
    threads = torch.get_num_threads()
    functions.moments(_at(x), *_size(x), _at(mean), _at(var), _at(scratch), threads)
    return mean, var


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
    """One step's membranes into ``out``; their statistics or threshold if asked for."""
    _expect_float32(out)
    if last_spikes is not None and before is not None and threshold is not None:
        fire(before, threshold, last_spikes)
    x, rows = _step_rows(x), _step_rows(out)
    before = None if before is None else _step_rows(before.float())
    scale, shift, threshold = (
        None if each is None else _floats(each) for each in (scale, shift, threshold)
    )
    # The C code writes spikes in the type of x.
    fired = None if spikes is None or spikes.dtype != x.dtype else _step_rows(spikes)
    R, C = x.shape[0] * math.prod(x.shape[2:]), x.shape[1]
    functions = _functions(x.dtype)
    sums, scratch = None, None
    if statistics or stabilizer is not None:
        sums = torch.zeros(2, dtype=torch.float64)
        scratch = torch.empty(functions.scratch_floats(1, R, C) // C, dtype=torch.float64)
    functions.charge(
        _at(x), _at(scale), _at(shift), _at(before), _at(threshold), leak, zero_reset, _at(rows),
        _at(fired), fire_at or 0.0, _at(sums), _at(scratch), R, C, torch.get_num_threads(),
    )  # fmt: skip
    _copy_back(rows, out)
    if fired is not None and spikes is not None:
        _copy_back(fired, spikes)
    elif spikes is not None and fire_at is not None:
        fire(out, torch.tensor(fire_at), spikes)
    found = None if sums is None else sums.float()
    if stabilizer is not None and found is not None:
        stabilizer.write(found, out.numel())
    return found if statistics else None


def _copy_back(rows: Tensor, out: Tensor) -> None:
    """Copies ``rows`` into ``out`` where `_step_rows` had to make a copy."""
    if rows.data_ptr() != out.data_ptr():
        out.copy_(rows)


def fire(u: Tensor, threshold: Tensor, out: Tensor) -> None:
    """One step: ``out`` is 1 where u reaches the threshold, else 0."""
    u, rows, threshold = _step_rows(u.float()), _step_rows(out), _floats(threshold)
    threads = torch.get_num_threads()
    _functions(out.dtype).fire(_at(u), _at(threshold), _at(rows), u.numel(), threads)
    _copy_back(rows, out)


def _steps(grad: Tensor, *given: Any) -> Iterator[Any]:
    """The arguments of the gradient's functions for each step, if all have the same currents."""
    for k in range(len(grad)):
        step = slice(k, k + 1)
        yield (
            grad[step],
            *(
                each[step] if isinstance(each, Tensor) and len(each) == len(grad) else each
                for each in given
            ),
        )


def grad_sums(
    grad: Tensor,
    u: Tensor | None,
    thresholds: Tensor | None,
    slope: float,
    x: Tensor,
    mean: Tensor,
    std: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sums of the normalized currents' gradient g, and of g times them: two (K, C)."""
    if len(x) < len(grad):
        each = [grad_sums(*given) for given in _steps(grad, u, thresholds, slope, x, mean, std)]
        total, dot = (torch.cat(sums) for sums in zip(*each, strict=True))
        return total, dot
    x = _rows(x)
    grad = _rows(grad.to(x.dtype))
    u = None if u is None else _rows(u.float())
    mean, std = _floats(mean), _floats(std)
    thresholds = None if thresholds is None else _floats(thresholds)
    functions = _functions(x.dtype)
    total, dot = torch.empty(2, x.shape[0], x.shape[2]).unbind()
    scratch = _scratch(functions, x)
    functions.grad_sums(
        _at(grad), _at(u), _at(thresholds), slope, _at(x), _at(mean), _at(std), _at(total),
        _at(dot), _at(scratch), *_size(x), torch.get_num_threads(),
    )  # fmt: skip
    return total, dot


def grad_input(
    grad: Tensor,
    u: Tensor | None,
    thresholds: Tensor | None,
    slope: float,
    x: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    c: Tensor | None,
) -> Tensor:
    """The currents' gradient a g + b + c Î, (K, N, C, ...); without ``x`` it is g."""
    if x is not None and len(x) < len(grad):
        steps = _steps(grad, u, thresholds, slope, x, mean, std, a, b, c)
        whole = grad_input(*next(steps))
        for step in steps:
            whole += grad_input(*step)
        return whole
    dtype = grad.dtype if x is None else x.dtype
    grad = _rows(grad.to(dtype))
    x = None if x is None else _rows(x)
    u = None if u is None else _rows(u.float())
    thresholds, mean, std, a, b, c = (
        None if each is None else _floats(each) for each in (thresholds, mean, std, a, b, c)
    )
    out = _like(grad, dtype)
    scratch = torch.empty(len(grad) * grad.shape[2])
    _functions(dtype).grad_input(
        _at(grad), _at(u), _at(thresholds), slope, _at(x), _at(mean), _at(std), _at(a), _at(b),
        _at(c), _at(out), _at(scratch), *_size(grad), torch.get_num_threads(),
    )  # fmt: skip
    return out


def pack(x: Tensor, levels: int) -> Tensor:
    """Multiples of 1/levels, up to 255/levels, as bytes in the same layout."""
    out = torch.empty_like(x, dtype=torch.uint8)
    x = _laid_out_as(out, x)
    _functions(x.dtype).pack(_at(x), _at(out), levels, x.numel(), torch.get_num_threads())
    return out


def unpack(packed: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """What was packed, exactly."""
    out = torch.empty_like(packed, dtype=dtype)
    packed = _laid_out_as(out, packed)
    _functions(dtype).unpack(_at(packed), _at(out), levels, out.numel(), torch.get_num_threads())
    return out


def _laid_out_as(out: Tensor, x: Tensor) -> Tensor:
    """``x``, or a copy that fills a piece of memory in the order of ``out``, its ``empty_like``."""
    return x if x.stride() == out.stride() else torch.empty_like(out, dtype=x.dtype).copy_(x)
