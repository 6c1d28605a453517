"""Layers of any shape, layout and type for the kernels, and how near a result has to be."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

BFLOAT16 = 2**-8  # half a unit in the last place, relative, and room for what is stored twice
LAYOUTS = ("contiguous", "channels last", "strided", "still", "transposed")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The numbers of ``x`` (K, N, C, ...) in memory as named; "still" repeats the first step."""
    if layout == "channels last":
        return x.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "strided":  # others lie between
        return torch.stack([x, x + 1], -1)[..., 0]
    if layout == "still":
        return x[:1].expand(x.shape)
    if layout == "transposed":  # batch and steps
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    return x.contiguous()


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """A layer's tensors: currents far from zero or not, each tensor in a layout of its own."""
    steps, batch = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 2, 5]))
    channels = draw(st.sampled_from([1, 3, 8, 17, 64, 200]))
    places = draw(st.sampled_from([(), (1, 1), (7,), (3, 5), (8, 8), (33, 9)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = random(steps, batch, channels, *places) * 2 + draw(st.sampled_from([0.0, 30.0]))
    u, grad = random(*x.shape), random(*x.shape)
    if draw(st.booleans()):  # as the framework's convolutions give them
        x, u, grad = (laid_out(each, "channels last") for each in (x, u, grad))
    else:
        x, u, grad = (laid_out(each, draw(st.sampled_from(LAYOUTS))) for each in (x, u, grad))
    if draw(st.booleans()):
        x, grad = x.bfloat16(), grad.bfloat16()
    k = {name: random(steps, channels) for name in ("mean", "a", "b", "c", "scale", "shift")}
    return {"x": x, "u": u, "grad": grad, **k, "std": random(steps, channels).abs() + 0.1}


def assert_near(ours: Tensor, exact: Tensor, scale: float = 0.0, rel: float = 1e-5) -> None:
    """Within ``rel`` of the greatest exact number, or of what was added up to it."""
    assert ours.shape == exact.shape
    if exact.numel():
        bound = rel * max(float(exact.abs().max()), scale, 1e-3)
        assert float((ours.double() - exact).abs().max()) <= bound


@contextmanager
def using(threads: int) -> Iterator[None]:
    """So many of the framework's threads, until its end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
