"""Winograd's convolutions against direct ones in float64, and their bits against themselves."""

import ctypes
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from kernels.cases import using
from kernels.convolutions import LAST, Problem, by_a_layer, exact, problem, problems
from steadyspike.kernels.cpu import build, winograd

pytestmark = pytest.mark.skipif(not winograd.variants(), reason="no processor for it")
REL = 1e-5


def ours(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor]:
    y, grad_x = winograd.convolve(x, weight, bias), winograd.grad_input(grad, weight)
    return [y, grad_x, *winograd.grad_weight(x, grad, weight)]


def error(found: Tensor, right: Tensor) -> float:
    """Of the worst element, by the greatest."""
    assert found.shape == right.shape
    return float((found.double() - right).abs().max() / right.abs().max().clamp(min=1e-3))


@given(problems([1, 3, 16, 31, 33, 64, 70, 96, 130], (), torch.float32))
def test_against_float64(drawn: tuple[int, Problem]) -> None:
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
    with using(threads):  # more tiles than a partial sum takes, the rest of every block odd
        packed, weight, bias, grad = problem((37, 70, 15, 17), 130)
        return ours(packed.float(), weight, bias, grad)


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
    real, asked = build.shared, []

    def shared(source: str, *flags: str) -> ctypes.CDLL:
        asked.append(flags)
        if len(asked) < 2:
            raise build.NoCompiler("cc: unrecognized option")
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


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_uses_it(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training steps' convolution of spikes, with the framework's gradients."""
    conv = nn.Conv2d(32, 48, 3, padding=1, bias=bias).to(memory_format=LAST)
    flat = problem((6, 32, 9, 8), 48, 4)[0].float().div(4).contiguous(memory_format=LAST)
    x = flat.unflatten(0, (2, 3)).requires_grad_()
    for a, b in by_a_layer(winograd, conv, x, monkeypatch):
        assert a.stride() == b.stride()
        assert error(a, b.double()) <= REL
