"""Winograd's convolutions against direct ones in float64, and their bits against themselves."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.kernels import compiled, winograd
from steadyspike.synapse import convolve

pytestmark = pytest.mark.skipif(not winograd.variants(), reason="no processor for it")
REL = 1e-5
LAST = torch.channels_last


def problem(
    shape: tuple[int, int, int, int], outputs: int, levels: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bytes of inputs, weights, bias and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    n, inputs, height, width = shape
    packed = torch.randint(levels + 1, shape, generator=generator, dtype=torch.uint8)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    grad = torch.randn(n, outputs, height, width, generator=generator)
    return packed, weight, bias, grad


def exact(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor]:
    """y and the gradients of x, weight and bias, by autograd, in the type given."""
    leaves = [each.detach().clone().requires_grad_() for each in (x, weight, bias)]
    y = F.conv2d(*leaves, padding=1)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


def ours(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor]:
    y, grad_x = winograd.convolve(x, weight, bias), winograd.grad_input(grad, weight)
    return [y, grad_x, *winograd.grad_weight(x, grad, weight)]


def error(found: Tensor, right: Tensor) -> float:
    """Of the worst element, by the greatest."""
    assert found.shape == right.shape
    return float((found.double() - right).abs().max() / right.abs().max().clamp(min=1e-3))


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, tuple[Tensor, Tensor, Tensor, Tensor]]:
    channels = st.sampled_from([1, 3, 16, 31, 33, 64, 70, 96, 130])
    side = st.sampled_from([1, 2, 3, 4, 5, 8, 11])
    shape = draw(st.sampled_from([1, 2, 5])), draw(channels), draw(side), draw(side)
    levels = draw(st.sampled_from([1, 4, 16]))
    packed, weight, bias, grad = problem(shape, draw(channels), levels, draw(st.integers(0, 99)))
    if draw(st.booleans()):
        packed, weight, grad = (
            each.contiguous(memory_format=LAST) for each in (packed, weight, grad)
        )
    return levels, (packed, weight, bias, grad)


@given(problems())
def test_against_float64(drawn: tuple[int, tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
    levels, (packed, weight, bias, grad) = drawn
    x = packed.float() / levels
    right = exact(x.double(), weight.double(), bias.double(), grad.double())
    found = ours(x, weight, bias, grad)
    for a, b in zip(found, right, strict=True):
        assert error(a, b) <= REL
    assert found[2].stride() == weight.stride()
    for a, b in zip(winograd.grad_weight(packed, grad, weight, levels), found[2:], strict=True):
        assert torch.equal(a, b)  # bytes are the inputs, exactly
    assert error(winograd.convolve(x, weight), right[0] - bias.double().view(-1, 1, 1)) <= REL


def test_as_exact_as_the_direct_way() -> None:
    packed, weight, bias, grad = problem((8, 128, 16, 16), 96)
    given_ = (packed.float(), weight, bias, grad)
    right = exact(*(each.double() for each in given_))
    for a, b, c in zip(ours(*given_), exact(*given_), right, strict=True):
        assert float((a - c).norm()) <= 2 * float((b - c).norm())


def test_no_images() -> None:
    packed, weight, bias, grad = problem((0, 32, 8, 8), 40)
    y, grad_x, grad_weight, grad_bias = ours(packed.float(), weight, bias, grad)
    assert (y.shape, grad_x.shape) == (grad.shape, packed.shape)
    assert not grad_weight.any()
    assert not grad_bias.any()


def everything(threads: int) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:  # more tiles than a partial sum takes, the rest of every block odd
        packed, weight, bias, grad = problem((37, 70, 15, 17), 130)
        return ours(packed.float(), weight, bias, grad)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def forget() -> Iterator[None]:
    winograd._functions.cache_clear()
    yield
    winograd._functions.cache_clear()


def test_the_same_bits_by_any_number_of_threads() -> None:
    one = everything(1)
    for threads in (2, 3, 5):
        for a, b in zip(one, everything(threads), strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("forget")
def test_the_same_bits_by_every_variant_that_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = winograd.variants()
    made = [everything_by((flags,), monkeypatch) for flags in variants]
    made += [everything_by(((*flags, "-O1"),), monkeypatch) for flags in variants]
    for other in made[1:]:
        for a, b in zip(made[0], other, strict=True):
            assert torch.equal(a, b)


def everything_by(
    variants: tuple[tuple[str, ...], ...], monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    monkeypatch.setattr(winograd, "variants", lambda: list(variants))
    winograd._functions.cache_clear()
    return everything(1)


@pytest.mark.usefixtures("forget")
def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(2)
    monkeypatch.setattr(winograd, "_block", lambda *_: 5)
    for a, b in zip(before, everything(2), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("forget")
def test_a_compiler_that_knows_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then the next variant serves, and without any the framework."""
    real, asked = compiled.shared, []

    def shared(source: str, *flags: str) -> ctypes.CDLL:
        asked.append(flags)
        if len(asked) < 2:
            raise compiled.NoCompiler("cc: unrecognized option")
        return real(source, *flags)

    known = winograd.VARIANTS["avx2", "fma"]
    monkeypatch.setattr(winograd, "variants", lambda: [("-mnew",), known])
    monkeypatch.setattr(winograd, "shared", shared)
    packed, weight, _, _ = problem((4, 32, 8, 8), 40)
    x = packed.float().contiguous(memory_format=LAST)
    assert winograd.serves(x, weight, (1, 1), (1, 1))
    assert asked == [("-mnew",), known]
    winograd._functions.cache_clear()
    monkeypatch.setattr(winograd, "variants", lambda: [])
    assert not winograd.serves(x, weight, (1, 1), (1, 1))
    assert capsys.readouterr().err == ""
    asked.clear()
    winograd._functions.cache_clear()
    monkeypatch.setattr(winograd, "variants", lambda: [("-mnew",)])
    assert not winograd.serves(x, weight, (1, 1), (1, 1))
    assert "cc: unrecognized option" in capsys.readouterr().err


def test_where_it_serves() -> None:
    x = torch.zeros(4, 64, 8, 8).contiguous(memory_format=LAST)
    weight = torch.zeros(32, 64, 3, 3)
    one = (1, 1)
    assert winograd.serves(x, weight, one, one)
    assert not winograd.serves(x, weight, (2, 2), one)
    assert not winograd.serves(x, weight, one, (0, 0))
    assert not winograd.serves(x, weight, one, "same")
    assert not winograd.serves(x, weight[:3], one, one)
    assert not winograd.serves(x, weight[:, :32], one, one)
    assert not winograd.serves(x[:3], weight, one, one)  # few tiles
    assert not winograd.serves(x, weight[..., :1], one, one)
    assert not winograd.serves(x.contiguous(), weight, one, one)
    assert not winograd.serves(x.double(), weight.double(), one, one)
    assert not winograd.serves(x.bfloat16(), weight.bfloat16(), one, one)
    for side, wanted in ((1, False), (3, False), (4, True), (5, False), (7, True), (8, True)):
        many = torch.zeros(64, 64, side, side).contiguous(memory_format=LAST)
        assert winograd.serves(many, weight, one, one) is wanted


def noted(name: str, calls: list[str]) -> Callable[..., Any]:
    real = getattr(winograd, name)

    def called(*args: Any) -> Any:
        calls.append(name)
        return real(*args)

    return called


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_uses_it(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training steps' convolution of spikes, with the framework's gradients."""
    calls: list[str] = []
    for name in ("convolve", "grad_input", "grad_weight"):
        monkeypatch.setattr(winograd, name, noted(name, calls))
    conv = nn.Conv2d(32, 48, 3, padding=1, bias=bias).to(memory_format=LAST)
    flat = problem((6, 32, 9, 8), 48, 4)[0].float().div(4).contiguous(memory_format=LAST)
    x = flat.unflatten(0, (2, 3)).requires_grad_()
    made = []
    for disabled in (False, True):
        conv.zero_grad()
        if disabled:
            with kernels.disabled():
                y = convolve(conv, x, 4)
        else:
            y = convolve(conv, x, 4)
        weights = torch.linspace(-1, 2, y.numel()).view_as(y)
        grads = torch.autograd.grad((y * weights).sum(), [x, *conv.parameters()])
        made.append([y.detach(), *grads])
    assert calls == ["convolve", "grad_input", "grad_weight"]
    for a, b in zip(*made, strict=True):
        assert a.stride() == b.stride()
        assert error(a, b.double()) <= REL
