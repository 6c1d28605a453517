"""The spike and the surrogate of its derivative."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steadyspike.snn.surrogate import spike


def derivative(x: Tensor, slope: float) -> Tensor:
    """The surrogate at ``x``, from the backward pass."""
    x = x.detach().requires_grad_()
    spike(x, slope).sum().backward()  # the gradient that arrives is an expanded scalar
    assert x.grad is not None
    return x.grad


def test_fires_where_the_excess_is_at_least_zero() -> None:
    excess = torch.tensor([-5.0, -1e-30, -0.0, 0.0, 1e-30, 5.0])
    assert spike(excess, 4.0).tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype(dtype: torch.dtype) -> None:
    excess = torch.randn(3, 4, dtype=dtype)
    assert spike(excess, 4.0).dtype == derivative(excess, 4.0).dtype == dtype


@given(x=st.floats(-8, 8), slope=st.floats(0.25, 10), upstream=st.floats(-3, 3).filter(bool))
def test_derivative_is_that_of_a_sigmoid(x: float, slope: float, upstream: float) -> None:
    excess = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    spike(excess, slope).backward(torch.tensor([upstream], dtype=torch.float64))
    sigma = 1 / (1 + math.exp(-slope * x))
    assert excess.grad is not None
    assert excess.grad.item() == pytest.approx(upstream * slope * sigma * (1 - sigma), rel=1e-9)


def test_derivative_vanishes_far_away_without_nan() -> None:
    assert derivative(torch.tensor([-1e30, -1e4, 1e4, 1e30]), 4.0).tolist() == [0, 0, 0, 0]


def test_backward_leaves_its_inputs_untouched() -> None:
    excess, upstream = torch.randn(5, requires_grad=True), torch.randn(5)
    before = excess.detach().clone(), upstream.clone()
    out = spike(excess, 4.0)
    (first,) = torch.autograd.grad(out, excess, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(out, excess, upstream)
    assert torch.equal(first, second)
    assert torch.equal(excess.detach(), before[0])
    assert torch.equal(upstream, before[1])


def test_transposed() -> None:
    excess = torch.randn(4, 3, dtype=torch.float64).t()
    sigma = torch.sigmoid(2 * excess)
    torch.testing.assert_close(derivative(excess, 2.0), 2 * sigma * (1 - sigma))
