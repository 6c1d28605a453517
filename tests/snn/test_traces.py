"""Pooling, dropout, convolutions and linear layers of spikes that have a trace."""

from typing import Any

import pytest
import torch
from torch import nn

from snn import unrolled
from steadyspike import sequence
from steadyspike.models.blocks import StepDropout
from steadyspike.snn.conv import AveragePool, Convolution, convolve, linear
from steadyspike.snn.rule import Traced, on_traces


def traced(steps: int = 5, shape: tuple[int, ...] = (2, 3, 4, 4)) -> Traced:
    spikes = (torch.rand(steps, *shape, dtype=torch.float64) < 0.4).double()
    return Traced(spikes.requires_grad_(), torch.rand(steps, *shape, dtype=torch.float64))


def test_layers_without_weights_act_on_both() -> None:
    x = traced()
    pooled = AveragePool()(x)
    expected = nn.functional.avg_pool2d
    for ours, theirs in ((pooled.spikes, x.spikes), (pooled.trace, x.trace)):
        torch.testing.assert_close(ours, expected(theirs.flatten(0, 1), 2).unflatten(0, (5, 2)))
    dropout = StepDropout(0.5)
    with sequence(dropout, steps=5):
        both = dropout(Traced(torch.ones(5, 2, 30), torch.ones(5, 2, 30)))
    assert torch.equal(both.spikes, both.trace)
    assert set(both.trace.unique().tolist()) == {0.0, 2.0}
    total = x + on_traces(lambda y: 2 * y, x) * 0.5
    torch.testing.assert_close(total.trace, 2 * x.trace)
    torch.testing.assert_close(total.spikes, 2 * x.spikes)


@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_convolve_spikes_and_learn_from_traces(channels: int, dtype: Any) -> None:
    """32 channels are enough for Winograd's convolutions; both are compared with float64."""
    layer = Convolution(channels, 32, 3, padding=1).to(memory_format=torch.channels_last)
    x = traced(2, (8, channels, 16, 16))
    last = torch.channels_last
    spikes, trace = (
        each.detach().float().flatten(0, 1).contiguous(memory_format=last).unflatten(0, (2, 8))
        for each in (x.spikes, x.trace)
    )
    weights = torch.randn(2, 8, 32, 16, 16)
    spikes.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = convolve(layer, Traced(spikes, trace), 1)
    assert y.dtype == dtype
    ours = torch.autograd.grad((y * weights).sum(), [spikes, layer.weight, layer.bias])
    weight, bias = (p.detach().double().requires_grad_() for p in layer.parameters())
    plain = unrolled.with_trace(
        lambda s, w: nn.functional.conv2d(s, w, bias, padding=1),
        weight,
        (flat := spikes.detach().double().flatten(0, 1).requires_grad_()),
        trace.double().flatten(0, 1),
    )
    loss = (plain * weights.double().flatten(0, 1)).sum()
    # The bias is in both convolutions of `with_trace`, so its gradient is counted twice.
    grad_x, grad_weight, grad_bias = torch.autograd.grad(loss, [flat, weight, bias])
    expected = grad_x.unflatten(0, (2, 8)), grad_weight, weights.double().sum((0, 1, 3, 4))
    assert grad_bias is not None
    allowed = 2e-2 if dtype is torch.bfloat16 else 1e-5
    for a, b in zip(ours, expected, strict=True):
        assert (a.double() - b).abs().max() <= allowed * b.abs().max()


def test_a_linear_layer_learns_from_the_trace() -> None:
    layer = nn.Linear(6, 3).double()
    x = traced(4, (5, 6))
    weights = torch.randn(4, 5, 3, dtype=torch.float64)
    y = linear(layer, x)
    torch.testing.assert_close(y, layer(x.spikes))
    of_x, of_weight, of_bias = torch.autograd.grad(
        (y * weights).sum(), [x.spikes, layer.weight, layer.bias]
    )
    torch.testing.assert_close(of_weight, torch.einsum("kno,kni->oi", weights, x.trace))
    torch.testing.assert_close(of_x, weights @ layer.weight)
    torch.testing.assert_close(of_bias, weights.sum((0, 1)))
