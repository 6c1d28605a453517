"""Convolutions and poolings keep bytes, and give what the framework's own give."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadyspike import kernels, sequence
from steadyspike.snn.conv import AveragePool, Convolution, StillCurrent, convolve


def grads(x: Tensor, conv: Convolution, y: Tensor) -> list[Tensor]:
    conv.zero_grad()
    leaves = [x, *conv.parameters()]
    weights = torch.linspace(-1, 2, y.numel()).view_as(y).to(y.dtype)
    return list(torch.autograd.grad((y * weights).sum(), leaves))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("levels", "bias"), [(1, True), (4, False), (16, True)])
def test_bytes_lose_nothing(levels: int, bias: bool, stride: int, layout: Any) -> None:
    assert kernels.backend(torch.empty(0)) is not kernels.reference, "a C compiler is needed here"
    conv = Convolution(3, 5, 3, stride, padding=1, bias=bias).to(memory_format=layout)
    flat = (
        torch.randint(levels + 1, (6, 3, 7, 5)).float().div(levels).contiguous(memory_format=layout)
    )
    x = flat.unflatten(0, (2, 3)).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        packed = convolve(conv, x, levels)
    assert {t.dtype for t in kept if t.numel() == x.numel()} == {torch.uint8}
    with kernels.disabled():
        plain = convolve(conv, x, levels)
    assert torch.equal(packed, plain)
    for ours, theirs in zip(grads(x, conv, packed), grads(x, conv, plain), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("levels", [None, 1])
@pytest.mark.parametrize("learns", [False, True])
def test_a_bias_can_be_left_out(learns: bool, levels: int | None) -> None:
    conv, seen = Convolution(3, 5, 3, padding=1), []
    conv.register_forward_hook(lambda *_: seen.append(1))  # as operations are counted
    x = torch.randint(2, (2, 3, 3, 8, 8)).float()
    with torch.set_grad_enabled(learns):
        y, bare = convolve(conv, x, levels), convolve(conv, x, levels, biased=False)
    torch.testing.assert_close(bare + conv.bias.view(-1, 1, 1), y)
    assert len(seen) == (0 if learns and levels else 2)
    if learns:
        leaves = list(conv.parameters())
        weight, bias = torch.autograd.grad(bare.sum(), leaves, allow_unused=True)
        assert bias is None
        torch.testing.assert_close(weight, torch.autograd.grad(y.sum(), leaves)[0])


def test_autocast_reaches_the_packed_convolution() -> None:
    conv = Convolution(3, 5, 3, padding=1)
    x = torch.randint(2, (2, 3, 3, 8, 8)).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        packed = convolve(conv, x, 1)
        with kernels.disabled():
            plain = convolve(conv, x, 1)
    assert packed.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(packed, plain)
    for ours, theirs in zip(grads(x, conv, packed), grads(x, conv, plain), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 6), (1, 2, 3, 7, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_keeps_nothing(shape: tuple[int, ...], layout: Any) -> None:
    x = torch.randn(shape[0] * shape[1], *shape[2:]).contiguous(memory_format=layout)
    x = x.unflatten(0, shape[:2]).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ours = AveragePool()(x)
    assert kept == []
    theirs = nn.AvgPool2d(2)(x.flatten(0, 1)).unflatten(0, shape[:2])
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    (a,), (b,) = (torch.autograd.grad((y * weights).sum(), x) for y in (ours, theirs))
    assert torch.equal(a, b)


def test_still_frames_are_computed_once() -> None:
    conv = Convolution(2, 3, 3, padding=1).double()
    calls: list[int] = []
    conv.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    layer = StillCurrent()
    frames = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    weights = torch.randn(4, 4, 3, 5, 5, dtype=torch.float64)
    with sequence(layer, steps=4, still=True):
        for k, part in enumerate(frames.expand(4, *frames.shape).split(1)):
            (layer(conv, part) * weights[k]).sum().backward()
        assert conv.weight.grad is None  # it comes at the end
    assert calls == [4]
    once = [parameter.grad for parameter in conv.parameters()]
    conv.zero_grad()
    (torch.stack([conv(frames)] * 4) * weights).sum().backward()
    for ours, parameter in zip(once, conv.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


def test_a_body_that_raises_has_no_gradient() -> None:
    conv, layer = Convolution(2, 3, 3), StillCurrent()

    def body() -> None:
        with sequence(layer, steps=2, still=True):
            layer(conv, torch.randn(1, 4, 2, 5, 5)).sum().backward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert conv.weight.grad is None
