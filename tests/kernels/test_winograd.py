"""Winograd convolutions against direct ones in float64, and their bits against themselves."""

import ctypes
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.cases import using
from steadyspike import kernels
from steadyspike.kernels.cpu import build, winograd
from steadyspike.kernels.cpu.winograd import BFLOAT16, FLOAT32, Winograd
from steadyspike.snn.conv import Convolution, convolve

LAST, ONE = torch.channels_last, (1, 1)
BF16 = torch.bfloat16
#: Greatest error of a result, relative to its greatest value. A bfloat16 result is a sum of terms
#: as great as itself, each rounded to 8 bits.
BOUND = {FLOAT32: 1e-5, BFLOAT16: 8 * 2.0**-8}
Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def here(which: Winograd) -> Any:
    mark = pytest.mark.skipif(not which.runnable(), reason="not for this processor")
    return pytest.param(which, marks=mark, id=str(which.dtype))


both = pytest.mark.parametrize("which", [here(FLOAT32), here(BFLOAT16)])


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BFLOAT16.pin, raising=False)


def problem(
    shape: tuple[int, ...], outputs: int, dtype: torch.dtype, greatest: int = 1, seed: int = 0
) -> Problem:
    """Bytes of inputs up to ``greatest``; weights, bias and a gradient in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    n, inputs, height, width = shape
    packed = torch.randint(greatest + 1, shape, generator=generator, dtype=torch.uint8)
    floats = [
        torch.randn(size, generator=generator).to(dtype)
        for size in ((outputs, inputs, 3, 3), (outputs,), (n, outputs, height, width))
    ]
    return packed, floats[0], floats[1], floats[2]


def exact(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> list[Tensor]:
    """y and the gradients of x, weight and bias by autograd, in the inputs' type."""
    leaves = [each.detach().clone().requires_grad_() for each in (x, weight, bias)]
    y = F.conv2d(*leaves, padding=1)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


def ours(which: Winograd, given_: Problem, levels: int = 1) -> list[Tensor]:
    packed, weight, bias, grad = given_
    x = packed.to(which.dtype) / levels
    y, grad_x = which.convolve(x, weight, bias), which.grad_input(grad, weight)
    return [y, grad_x, *which.grad_weight(packed, grad, weight, levels)]


def error(found: Tensor, right: Tensor) -> float:
    """Of the worst element, relative to the greatest."""
    assert found.shape == right.shape
    return float((found.double() - right).abs().max() / right.abs().max().clamp(min=1e-3))


@st.composite
def problems(draw: st.DrawFn, which: Winograd) -> tuple[int, Problem]:
    """The levels of the inputs, and a problem in any layout; bytes may exceed the levels."""
    channels = [1, 3, 16, 31, 33, 64, 70, 96, 130] if which is FLOAT32 else [32, 64, 96, 160]
    channel, side = st.sampled_from(channels), st.sampled_from([1, 2, 3, 4, 5, 8, 11])
    shape = draw(st.sampled_from([1, 2, 5])), draw(channel), draw(side), draw(side)
    levels = draw(st.sampled_from([1, 4, 16]))
    greatest = draw(st.sampled_from([levels, 7, 8, 255]))  # over 7, bfloat16 rounds otherwise
    seed = draw(st.integers(0, 99))
    packed, weight, bias, grad = problem(shape, draw(channel), which.dtype, greatest, seed)
    if draw(st.booleans()):
        packed, weight, grad = (
            each.contiguous(memory_format=LAST) for each in (packed, weight, grad)
        )
    return levels, (packed, weight, bias, grad)


@both
@given(st.data())
def test_against_float64(which: Winograd, data: st.DataObject) -> None:
    levels, given_ = data.draw(problems(which))
    packed, weight, bias, grad = given_
    right = exact(packed.double() / levels, weight.double(), bias.double(), grad.double())
    found = ours(which, given_, levels)
    for a, b in zip(found, right, strict=True):
        assert a.dtype == which.dtype
        assert error(a, b) <= BOUND[which]
    assert found[2].stride() == weight.stride()
    if which is FLOAT32:  # which takes the inputs themselves too
        for a, b in zip(which.grad_weight(packed / levels, grad, weight), found[2:], strict=True):
            assert torch.equal(a, b)


@both
@pytest.mark.parametrize("levels", [1, 4])
def test_about_as_exact_as_the_framework(which: Winograd, levels: int) -> None:
    packed, weight, bias, grad = problem((8, 128, 16, 16), 96, which.dtype, levels)
    bias = torch.zeros_like(bias)
    plain = (packed.to(which.dtype) / levels, weight, bias, grad)
    right = exact(*(each.double() for each in plain))
    found = ours(which, (packed, weight, bias, grad), levels)
    for a, b, c in zip(found, exact(*plain), right, strict=True):
        assert float((a - c).norm()) <= 3 * float((b - c).norm())


@both
def test_integers_are_exact(which: Winograd) -> None:
    """Where nothing has to be rounded: spikes, and small whole weights and gradients."""
    generator = torch.Generator().manual_seed(3)
    packed = torch.randint(2, (3, 32, 7, 6), generator=generator, dtype=torch.uint8)
    weight = 4.0 * torch.randint(-1, 2, (64, 32, 3, 3), generator=generator)
    grad = torch.randint(-1, 2, (3, 64, 7, 6), generator=generator).float()
    right = exact(packed.float(), weight, torch.arange(64.0), grad)
    rounded = [each.to(which.dtype) for each in (weight, torch.arange(64.0), grad)]
    found = ours(which, (packed, rounded[0], rounded[1], rounded[2]))
    for a, b in zip(found, right, strict=True):
        assert torch.equal(a, b.to(which.dtype))


@both
def test_no_images(which: Winograd) -> None:
    given_ = problem((0, 32, 8, 8), 64, which.dtype)
    y, grad_x, *gradients = ours(which, given_)
    assert (y.shape, grad_x.shape) == (given_[3].shape, given_[0].shape)
    assert not any(each.any() for each in gradients)


def everything(which: Winograd, threads: int) -> list[Tensor]:
    with using(threads):  # more tiles than a partial sum takes, the last of every block odd
        return ours(which, problem((37, 96, 15, 17), 160, which.dtype))


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@both
def test_same_bits_by_any_number_of_threads_and_any_block(
    which: Winograd, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = everything(which, 1)
    assert all(same(one, everything(which, threads)) for threads in (2, 3, 5))
    monkeypatch.setattr(type(which), "block", lambda *_: 5)
    if which is BFLOAT16:
        with using(2):
            assert BFLOAT16.chunk(2, 96, 160) == 64
        monkeypatch.setattr(type(which), "chunk", lambda *_: 128)
    assert same(one, everything(which, 2))


@both
def test_same_bits_by_every_variant(which: Winograd, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for flags in which.runnable():
        for more in ((), ("-O1",)):
            another = type(which)()
            monkeypatch.setattr(another, "runnable", lambda flags=flags, more=more: [flags + more])
            made.append(everything(another, 1))
    assert all(same(made[0], other) for other in made[1:])


class _Anywhere(type(BFLOAT16)):  # type: ignore[misc]
    """As on a processor that runs it; nothing is called."""

    functions = ctypes.CDLL(None)


class _AnywhereFloat32(type(FLOAT32)):  # type: ignore[misc]
    functions = ctypes.CDLL(None)


@pytest.mark.parametrize("which", [_AnywhereFloat32(), _Anywhere()], ids=["float32", "bfloat16"])
def test_where_it_serves(which: Winograd) -> None:
    x = torch.zeros(8, 64, 8, 8, dtype=which.dtype).contiguous(memory_format=LAST)
    weight = torch.zeros(32, 64, 3, 3, dtype=which.dtype)
    other = torch.float32 if which.dtype == BF16 else BF16
    assert which.serves(x, weight, ONE, ONE)
    refused: list[tuple[Any, ...]] = [
        (x, weight, (2, 2), ONE),
        (x, weight, ONE, (0, 0)),
        (x, weight, ONE, "same"),
        (x, weight[:31], ONE, ONE),
        (x, weight[:, :32], ONE, ONE),  # groups
        (x[:3], weight, ONE, ONE),  # few tiles
        (x, weight[..., :1], ONE, ONE),
        (x.contiguous(), weight, ONE, ONE),
        (x.double(), weight.double(), ONE, ONE),
        (x.to(other), weight.to(other), ONE, ONE),
        (x.to(other), weight, ONE, ONE),
    ]
    assert not any(which.serves(*arguments) for arguments in refused)
    for side, wanted in ((1, False), (3, False), (4, True), (5, False), (7, True), (8, True)):
        many = torch.zeros(64, 64, side, side, dtype=which.dtype).contiguous(memory_format=LAST)
        assert which.serves(many, weight, ONE, ONE) is wanted


def test_a_pinned_instruction_set_rules_out_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(8, 64, 8, 8, dtype=BF16).contiguous(memory_format=LAST)
    weight = torch.zeros(32, 64, 3, 3, dtype=BF16)
    assert _Anywhere().serves(x, weight, ONE, ONE)
    monkeypatch.setenv(BFLOAT16.pin, "AVX2")
    assert not _Anywhere().serves(x, weight, ONE, ONE)


@pytest.mark.parametrize(
    ("machine", "changed", "wanted"),
    [
        ("x86_64", set(), True),
        ("aarch64", set(), False),
        ("x86_64", {"amx_bf16"}, False),  # the framework is faster
        ("x86_64", {"avx512_bf16"}, False),
    ],
)
def test_processors(
    machine: str, changed: set[str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (needed,) = BFLOAT16.variants
    monkeypatch.setattr(winograd.platform, "machine", lambda: machine)
    monkeypatch.setattr(winograd, "cpu_flags", lambda: frozenset(set(needed) ^ changed))
    assert bool(type(BFLOAT16)().runnable()) is wanted


def test_a_compiler_that_knows_no_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next variant serves; without any, the framework, with one note."""
    real, asked = build.shared, []

    def first_fails(source: str, *flags: str) -> ctypes.CDLL:
        asked.append(flags)
        if flags == ("-mnew",):
            raise build.NoCompiler("cc: unrecognized option")
        return real(source, *flags)

    monkeypatch.setattr(winograd, "shared", first_fails)
    known = FLOAT32.variants["avx2", "fma"]
    for variants, served, said in (
        ([("-mnew",), known], True, False),
        ([], False, False),
        ([("-mnew",)], False, True),
    ):
        which = type(FLOAT32)()
        monkeypatch.setattr(which, "runnable", lambda variants=variants: variants)
        assert (which.functions is not None) is served
        assert ("unrecognized option" in capsys.readouterr().err) is said
    assert asked == [("-mnew",), known, ("-mnew",)]


@both
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_uses_it(which: Winograd, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step's convolution of spikes, with the framework's results."""
    conv = Convolution(32, 64, 3, padding=1, bias=bias).to(memory_format=LAST)
    bytes_ = problem((8, 32, 9, 8), 64, which.dtype, 4)[0]
    flat = bytes_.float().div(4).contiguous(memory_format=LAST)
    x = flat.unflatten(0, (2, 4)).requires_grad_()
    calls: list[str] = []
    for name in ("convolve", "grad_input", "grad_weight"):
        real = getattr(type(which), name)

        def called(*args: Any, real: Any = real, name: str = name) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(type(which), name, called)
    made = []
    for kernels_used in (nullcontext(), kernels.disabled()):
        with torch.autocast("cpu", which.dtype, enabled=which is BFLOAT16), kernels_used:
            y = convolve(conv, x, 4)
        weights = torch.linspace(-1, 2, y.numel()).view_as(y)
        grads = torch.autograd.grad((y * weights).sum(), [x, *conv.parameters()])
        made.append([y.detach(), *grads])
    assert calls == ["convolve", "grad_input", "grad_weight"]
    for a, b in zip(*made, strict=True):
        assert (a.dtype, a.stride()) == (b.dtype, b.stride())
        assert error(a, b.double()) <= BOUND[which]
