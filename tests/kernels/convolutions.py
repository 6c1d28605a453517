"""3x3 convolutions of spikes for Winograd's kernels, done exactly and by a layer with and without.

Of the kernels in float32 and of those in bfloat16 alike.
"""

from contextlib import nullcontext
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.snn.conv import convolve

LAST = torch.channels_last
Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(
    shape: tuple[int, int, int, int],
    outputs: int,
    greatest: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """Bytes of inputs up to ``greatest``; weights, bias and a gradient in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    n, inputs, height, width = shape
    packed = torch.randint(greatest + 1, shape, generator=generator, dtype=torch.uint8)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    grad = torch.randn(n, outputs, height, width, generator=generator)
    return packed, weight.to(dtype), bias.to(dtype), grad.to(dtype)


@st.composite
def problems(
    draw: st.DrawFn, channels: list[int], beyond: tuple[int, ...], dtype: torch.dtype
) -> tuple[int, Problem]:
    """A synapse's levels, and a problem whose bytes reach these or a number ``beyond`` them."""
    channel, side = st.sampled_from(channels), st.sampled_from([1, 2, 3, 4, 5, 8, 11])
    shape = draw(st.sampled_from([1, 2, 5])), draw(channel), draw(side), draw(side)
    levels = draw(st.sampled_from([1, 4, 16]))
    greatest = draw(st.sampled_from([levels, *beyond]))
    seed = st.integers(0, 99)
    packed, weight, bias, grad = problem(shape, draw(channel), greatest, draw(seed), dtype)
    if draw(st.booleans()):
        packed, weight, grad = (
            each.contiguous(memory_format=LAST) for each in (packed, weight, grad)
        )
    return levels, (packed, weight, bias, grad)


def exact(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor]:
    """y and the gradients of x, weight and bias, by autograd, in the type given."""
    leaves = [each.detach().clone().requires_grad_() for each in (x, weight, bias)]
    y = F.conv2d(*leaves, padding=1)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


def by_a_layer(
    winograd: ModuleType,
    conv: nn.Conv2d,
    x: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype = torch.float32,
) -> list[tuple[Tensor, Tensor]]:
    """What a training step makes of ``x`` with the kernels and without: each result in pairs.

    y and the gradients of x and of the layer's parameters. With them alone all three are called.
    """
    calls: list[str] = []

    def noted(name: str) -> None:
        real = getattr(winograd, name)

        def called(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(winograd, name, called)

    names = ["convolve", "grad_input", "grad_weight"]
    for name in names:
        noted(name)
    made = []
    for which in (nullcontext(), kernels.disabled()):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), which:
            y = convolve(conv, x, 4)
        weights = torch.linspace(-1, 2, y.numel()).view_as(y)
        grads = torch.autograd.grad((y * weights).sum(), [x, *conv.parameters()])
        made.append([y.detach(), *grads])
    assert calls == names
    return list(zip(*made, strict=True))
