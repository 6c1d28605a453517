"""The spike and the derivative that stands in for its own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.snn.surrogate import spike


def test_fires_where_the_excess_is_at_least_zero() -> None:
    excess = torch.tensor([-5.0, -1e-30, -0.0, 0.0, 1e-30, 5.0])
    assert spike(excess, excess, 4.0).tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_spikes_have_the_dtype_of_the_excess(dtype: torch.dtype) -> None:
    current = torch.randn(3, 4, dtype=dtype, requires_grad=True)
    out = spike(current, current.detach() - 0.25, 4.0)
    out.sum().backward()
    assert out.dtype == dtype
    assert set(out.flatten().tolist()) <= {0.0, 1.0}
    assert current.grad is not None
    assert current.grad.dtype == dtype


@given(x=st.floats(-8, 8), slope=st.floats(0.25, 10), upstream=st.floats(-3, 3).filter(lambda g: g))
def test_derivative_is_that_of_a_sigmoid(x: float, slope: float, upstream: float) -> None:
    current = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    excess = torch.tensor([x], dtype=torch.float64)
    spike(current, excess, slope).backward(torch.tensor([upstream], dtype=torch.float64))
    sigma = 1 / (1 + math.exp(-slope * x))
    assert current.grad is not None
    assert current.grad.item() == pytest.approx(upstream * slope * sigma * (1 - sigma), rel=1e-9)


def test_derivative_at_the_threshold_is_a_quarter_of_the_slope() -> None:
    current = torch.zeros(1, requires_grad=True)
    spike(current, torch.zeros(1), 4.0).backward()
    assert current.grad is not None
    assert current.grad.item() == 1.0


def test_derivative_vanishes_far_away_without_nan() -> None:
    current = torch.zeros(4, requires_grad=True)
    spike(current, torch.tensor([-1e30, -1e4, 1e4, 1e30]), 4.0).sum().backward()
    assert current.grad is not None
    assert current.grad.tolist() == [0, 0, 0, 0]


def test_gradient_goes_to_the_current_alone() -> None:
    current = torch.randn(5, requires_grad=True)
    excess = torch.randn(5, requires_grad=True)
    spike(current, excess, 4.0).sum().backward()
    assert current.grad is not None
    assert excess.grad is None


def test_backward_leaves_what_it_was_given_untouched() -> None:
    current = torch.randn(5, requires_grad=True)
    excess = torch.randn(5)
    upstream = torch.randn(5)
    kept_excess, kept_upstream = excess.clone(), upstream.clone()
    out = spike(current, excess, 4.0)
    (first,) = torch.autograd.grad(out, current, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(out, current, upstream)
    assert torch.equal(first, second)
    assert torch.equal(excess, kept_excess)
    assert torch.equal(upstream, kept_upstream)


def test_expanded_and_transposed_gradients() -> None:
    current = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    excess = torch.randn(4, 3, dtype=torch.float64).t()
    spike(current, excess, 2.0).sum().backward()  # its gradient is an expanded scalar
    sigma = torch.sigmoid(2 * excess)
    assert current.grad is not None
    torch.testing.assert_close(current.grad, 2 * sigma * (1 - sigma))
