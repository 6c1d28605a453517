"""The kernels in plain torch, which the others are held to: worked by hand, and by autograd."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from kernels.cases import assert_near, layers
from steadyspike.kernels import reference

THETA = torch.tensor(1.0, dtype=torch.float64)


@given(layers())
def test_moments(layer: dict[str, Any]) -> None:
    """Step by step and channel by channel."""
    x = layer["x"].double()
    mean, var = reference.moments(x)
    for k in range(len(x)):
        for channel in range(x.shape[2]):
            values = x[k, :, channel].flatten().tolist()
            exact = math.fsum(values) / max(len(values), 1)
            squares = math.fsum((value - exact) ** 2 for value in values)
            assert float(mean[k, channel]) == pytest.approx(exact, abs=1e-12)
            assert float(var[k, channel]) == pytest.approx(squares / max(len(values), 1), abs=1e-12)


@pytest.mark.parametrize(("zero_reset", "third"), [(False, 1.75), (True, 1.5)])
def test_charge_by_hand(zero_reset: bool, third: float) -> None:
    """Below the threshold, just at it (which fires), and over it; u = 2 x - 0.5 + r / 2."""
    x = torch.tensor([[0.125], [1.0], [1.0]], dtype=torch.float64)
    before = torch.tensor([[0.5], [1.0], [1.5]], dtype=torch.float64)
    scale, shift = torch.tensor([[2.0], [-0.5]], dtype=torch.float64)
    out, spikes = torch.empty_like(x), torch.empty_like(x)
    sums = reference.charge(
        x, scale, shift, before, THETA, leak=0.5, zero_reset=zero_reset, out=out,
        statistics=True, spikes=spikes, fire_at=1.5,
    )  # fmt: skip
    assert out.flatten().tolist() == [0.0, 1.5, third]
    assert spikes.flatten().tolist() == [0.0, 1.0, 1.0]
    assert sums is not None
    mean = (1.5 + third) / 3
    squares = mean**2 + (1.5 - mean) ** 2 + (third - mean) ** 2
    assert sums.tolist() == pytest.approx([mean, squares], rel=1e-14)


def test_first_charge_and_fire_by_hand() -> None:
    x = torch.tensor([[0.5, 1.0], [1.5, -2.0]], dtype=torch.float64)
    out, spikes = torch.empty_like(x), torch.empty_like(x)
    nothing = reference.charge(
        x, None, None, None, None, leak=0.5, zero_reset=False, out=out, statistics=False
    )
    assert nothing is None
    assert torch.equal(out, x)
    reference.fire(out, THETA, spikes)
    assert spikes.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("places", [(), (3, 2)])
def test_gradient_of_a_normalization(places: tuple[int, ...]) -> None:
    """Σ g, Σ g Î, and with their means taken off the currents' gradient, by autograd.

    Of currents normalized by their own statistics, to σ(k (u - θ)) in place of spikes.
    """
    x = (torch.randn(2, 6, 5, *places, dtype=torch.float64) + 3).requires_grad_()
    grad, slope = torch.randn_like(x), 3.0
    thresholds = torch.tensor([0.2, -0.4], dtype=torch.float64)
    gamma, beta = (torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in "gb")

    def along(vector: Tensor) -> Tensor:
        return vector.reshape(2, 1, -1, *[1] * len(places))

    over = [1, *range(3, x.dim())]
    mean, std = x.mean(over), (x.var(over, unbiased=False) + 1e-4).sqrt()
    u = along(gamma) * (x - along(mean)) / along(std) + along(beta)
    fired = torch.sigmoid(slope * (u - along(thresholds[:, None])))
    expected = torch.autograd.grad(fired, [x, gamma, beta], grad)

    given_ = (grad, u.detach(), thresholds, slope, x.detach(), mean.detach(), std.detach())
    total, dot = reference.grad_sums(*given_)
    assert_near(dot, expected[1], rel=1e-12)
    assert_near(total, expected[2], rel=1e-12)
    a, count = (gamma / std).detach(), x[0].numel() / 5
    ours = reference.grad_input(*given_, a, -a * total / count, -a * dot / count)
    assert_near(ours, expected[0], rel=1e-12)


@given(layers())
def test_gradient_without_a_neuron_or_a_norm(layer: dict[str, Any]) -> None:
    grad, x = layer["grad"].double(), layer["x"].double()
    thresholds, nothing = torch.zeros(len(x), dtype=torch.float64), (None,) * 6
    assert torch.equal(reference.grad_input(grad, None, thresholds, 4.0, *nothing), grad)
    u = layer["u"].double().requires_grad_()
    expected = torch.autograd.grad(torch.sigmoid(4 * u), u, grad)[0]
    ours = reference.grad_input(grad, u.detach(), thresholds, 4.0, *nothing)
    assert_near(ours, expected, rel=1e-12)
    zero = torch.zeros(len(x), x.shape[2], dtype=torch.float64)
    total, dot = reference.grad_sums(grad, None, thresholds, 4.0, x, zero, zero + 2)
    over = [dim for dim in range(x.dim()) if dim not in (0, 2)]
    assert_near(total, grad.sum(over), scale=grad.numel(), rel=1e-14)
    assert_near(dot, (grad * x / 2).sum(over), scale=30 * grad.numel(), rel=1e-14)


@pytest.mark.parametrize("levels", [1, 4, 49, 255])  # 49 (1 / 49) is less than 1
def test_bytes(levels: int) -> None:
    counts = torch.arange(256)
    x = counts.double() / levels
    packed = reference.pack(x, levels)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == counts.tolist()
    assert torch.equal(reference.unpack(packed, levels, torch.float64), x)
