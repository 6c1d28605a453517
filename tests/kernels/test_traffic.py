"""Counts of the kernels against the tensors that the reference takes and gives, and by counting."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from steadyspike.kernels import reference, traffic
from steadyspike.kernels.traffic import Traffic

SHAPES = [(2, 3, 5, 4, 6), (1, 4, 7)]
TYPES = [torch.float32, torch.bfloat16]


def size(values: Any) -> int:
    tensors = [value for value in values if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def moved(function: Any, *given: Any, into: tuple[Tensor, ...] = (), **options: Any) -> Any:
    """Bytes of what a kernel is given, and of what it gives and writes to."""
    result = function(*given, **options)
    results = result if isinstance(result, tuple) else (result,)
    return size(given), size(results) + size(into)


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return tuple(request.param)


@pytest.fixture(params=TYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    assert isinstance(request.param, torch.dtype)
    return request.param


def same(count: Traffic, bytes_moved: tuple[int, int]) -> None:
    assert (count.read, count.written) == bytes_moved


def test_moments(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    same(traffic.moments(shape, dtype), moved(reference.moments, torch.ones(shape, dtype=dtype)))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("spikes", [True, False])
def test_charge(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    norm: bool,
    first: bool,
    statistics: bool,
    spikes: bool,
) -> None:
    x = torch.ones(shape[1:], dtype=dtype)
    out, fired = torch.empty(shape[1:]), torch.empty_like(x)
    vector = torch.ones(shape[2]) if norm else None
    before, threshold = (None, None) if first else (torch.ones(shape[1:]), torch.ones(()))
    expected = moved(
        reference.charge, x, vector, vector, before, threshold,
        leak=0.5, zero_reset=True, out=out, statistics=statistics,
        spikes=fired if spikes else None, fire_at=1.0,
        into=(out, fired) if spikes else (out,),
    )  # fmt: skip
    options = {"norm": norm, "first": first, "statistics": statistics, "spikes": spikes}
    same(traffic.charge(shape[1:], dtype, **options), expected)


def test_fire(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    out = torch.empty(shape[1:], dtype=dtype)
    count = traffic.fire(shape[1:], dtype)
    read, written = moved(reference.fire, torch.ones(shape[1:]), torch.ones(()), out, into=(out,))
    same(count, (read - size([out]), written))


@pytest.mark.parametrize("neuron", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_gradients(shape: tuple[int, ...], dtype: torch.dtype, neuron: bool, norm: bool) -> None:
    x = torch.ones(shape, dtype=dtype)
    u, thresholds = (torch.ones(shape), torch.ones(shape[0])) if neuron else (None, None)
    vector = torch.ones(shape[0], shape[2])
    given = (x, u, thresholds, 4.0)
    if not norm:
        same(
            traffic.grad_input(shape, dtype, neuron=neuron, norm=False),
            moved(reference.grad_input, *given, *[None] * 6),
        )
        return
    same(
        traffic.grad_sums(shape, dtype, neuron=neuron),
        moved(reference.grad_sums, *given, x, vector, vector),
    )
    same(
        traffic.grad_input(shape, dtype, neuron=neuron),
        moved(reference.grad_input, *given, x, *[vector] * 5),
    )


def test_packing(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype)
    same(traffic.pack(shape, dtype), moved(reference.pack, x, 1))
    same(traffic.unpack(shape, dtype), moved(reference.unpack, reference.pack(x, 1), 1, dtype))


class Number:
    """A value that counts what is done with it."""

    done = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def _made(self, value: float) -> "Number":
        Number.done += 1
        return Number(value)

    def __add__(self, other: Any) -> "Number":
        return self._made(self.value + getattr(other, "value", other))

    def __sub__(self, other: Any) -> "Number":
        return self._made(self.value - getattr(other, "value", other))

    def __mul__(self, other: Any) -> "Number":
        return self._made(self.value * getattr(other, "value", other))

    def __truediv__(self, other: Any) -> "Number":
        return self._made(self.value / getattr(other, "value", other))

    def __ge__(self, other: Any) -> bool:
        Number.done += 1
        return bool(self.value >= getattr(other, "value", other))

    def __abs__(self) -> "Number":
        return self._made(abs(self.value))

    def exp(self) -> "Number":
        return self._made(math.exp(self.value))


def gradient(grad: Number, u: Number) -> Number:
    e = abs((u - 1.0) * -4.0).exp()
    one_more = e + 1.0
    return grad * (e * 4.0 / (one_more * one_more))


def operations(function: Any) -> int:
    Number.done = 0
    function()
    return Number.done


def test_operations_a_value() -> None:
    x, u, total = Number(0.5), Number(1.5), Number(0.0)

    def spread(value: Number) -> None:
        difference = value - 0.25
        _ = total + difference, total + difference * difference

    def charge() -> Number:
        fired = u >= 1.0
        return x * 2.0 + 1.0 + (u - 1.0 if fired else u) * 0.5

    one, step = (1, 1, 1), (1, 1)
    dtype = torch.float32
    assert traffic.moments(one, dtype).operations == operations(lambda: spread(x))
    assert traffic.charge(step, dtype).operations == operations(charge)
    assert traffic.charge(step, dtype, first=True).operations == operations(lambda: x * 2.0 + 1.0)
    assert traffic.charge(step, dtype, statistics=True, spikes=True).operations == operations(
        lambda: (spread(charge()), x >= 1.0)
    )
    assert traffic.fire(step, dtype).operations == operations(lambda: u >= 1.0)
    assert traffic.grad_sums(one, dtype).operations == operations(
        lambda: (total + (g := gradient(x, u)), total + g * (x - 0.1))
    )
    assert traffic.grad_input(one, dtype).operations == operations(
        lambda: gradient(x, u) * 2.0 + 1.0 + (x - 0.1) * 0.3
    )
    assert traffic.pack(one, dtype).operations == operations(lambda: x * 4.0 + 0.5)
    assert traffic.unpack(one, dtype).operations == operations(lambda: x / 4.0)


def test_traffic_adds_up() -> None:
    assert Traffic(1, 2, 3) + Traffic(10, 20, 30) == Traffic(11, 22, 33)
    assert Traffic(1, 2, 3).bytes == 3
