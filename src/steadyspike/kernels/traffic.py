"""What each kernel moves to and from memory and computes, from shapes alone.

Every tensor counts once a call: what a kernel reads twice it finds in a cache, and what its
programs leave for one another (under a megabyte a step) never leaves the cache. A fused layer is
memory-bound by far, so that these bytes over a GPU's bandwidth are the time it takes.

Shapes are the kernels' (K, N, C, ...); a type is that of currents, spikes and their gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

FLOAT32 = 4  # bytes of u, of statistics and of what there is once a channel or step
SURROGATE_OPERATIONS = 9  # grad k σ (1 - σ): u - θ, times k, |·|, exp, k e, 1 + e, ², /, times grad


@dataclass(frozen=True)
class Traffic:
    """Bytes read and written, and arithmetic operations (an exponential or division is one)."""

    read: int = 0
    written: int = 0
    operations: int = 0

    @property
    def bytes(self) -> int:
        return self.read + self.written

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.read + other.read,
            self.written + other.written,
            self.operations + other.operations,
        )


def moments(shape: Sequence[int], dtype: torch.dtype) -> Traffic:
    steps, channels = shape[0], shape[2]
    return Traffic(
        read=prod(shape) * dtype.itemsize,
        written=2 * steps * channels * FLOAT32,
        operations=4 * prod(shape),  # x - pivot, its sum, its square, that one's sum
    )


def charge(
    shape: Sequence[int],
    dtype: torch.dtype,
    *,
    norm: bool = True,
    first: bool = False,
    statistics: bool = False,
    spikes: bool = False,
) -> Traffic:
    """One step; ``shape`` (N, C, ...). ``first``: there is no u before."""
    values, channels = prod(shape), shape[1]
    read = values * dtype.itemsize
    written = values * FLOAT32
    each = 0
    if norm:
        read += 2 * channels * FLOAT32
        each += 2
    if not first:
        read += values * FLOAT32 + FLOAT32  # and θ
        each += 4  # compare, subtract, times the leak, add
    if statistics:
        written += 2 * FLOAT32
        each += 4  # as moments
    if spikes:
        written += values * dtype.itemsize
        each += 1
    return Traffic(read, written, each * values)


def fire(shape: Sequence[int], dtype: torch.dtype) -> Traffic:
    """One step; ``shape`` (N, C, ...)."""
    values = prod(shape)
    return Traffic(values * FLOAT32 + FLOAT32, values * dtype.itemsize, values)


def grad_sums(shape: Sequence[int], dtype: torch.dtype, *, neuron: bool = True) -> Traffic:
    """``neuron`` False: a norm that none follows."""
    values, steps, channels = prod(shape), shape[0], shape[2]
    return _through_neuron(shape, neuron) + Traffic(
        read=2 * values * dtype.itemsize + 2 * steps * channels * FLOAT32,
        written=2 * steps * channels * FLOAT32,
        operations=4 * values,  # Σ g, x - mean, times g, Σ
    )


def grad_input(
    shape: Sequence[int], dtype: torch.dtype, *, neuron: bool = True, norm: bool = True
) -> Traffic:
    """``neuron`` False: a norm that none follows; ``norm`` False: neurons that none precedes."""
    values, steps, channels = prod(shape), shape[0], shape[2]
    traffic = _through_neuron(shape, neuron) + Traffic(
        read=values * dtype.itemsize, written=values * dtype.itemsize
    )
    if norm:
        traffic += Traffic(
            read=values * dtype.itemsize + 5 * steps * channels * FLOAT32,
            operations=5 * values,  # a g, + b, x - mean, times c / std, +
        )
    return traffic


def _through_neuron(shape: Sequence[int], neuron: bool) -> Traffic:
    """From the gradient of spikes to g: u and θ of each step are read."""
    if not neuron:
        return Traffic()
    values = prod(shape)
    return Traffic(read=(values + shape[0]) * FLOAT32, operations=SURROGATE_OPERATIONS * values)


def pack(shape: Sequence[int], dtype: torch.dtype) -> Traffic:
    values = prod(shape)
    return Traffic(values * dtype.itemsize, values, 2 * values)


def unpack(shape: Sequence[int], dtype: torch.dtype) -> Traffic:
    values = prod(shape)
    return Traffic(values, values * dtype.itemsize, values)
