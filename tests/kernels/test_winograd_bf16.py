"""Winograd's convolutions in bfloat16 against direct ones in float64, and their own bits."""

import ctypes
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from kernels.cases import using
from kernels.convolutions import LAST, Problem, by_a_layer, exact, problems
from kernels.convolutions import problem as float32_problem
from steadyspike.kernels.cpu import build
from steadyspike.kernels.cpu import winograd_bf16 as winograd

BF16 = torch.bfloat16
ONE = (1, 1)
# Of each result's error to that of the framework's convolution, which rounds only its result.
WORSE = 3.0
ULP = 2.0**-8

here = pytest.mark.skipif(not winograd.runs_here(), reason="no processor for it")


problem = partial(float32_problem, dtype=BF16)


def ours(
    packed: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, levels: int = 1
) -> list[Tensor]:
    x = packed.to(BF16) / levels
    y, grad_x = winograd.convolve(x, weight, bias), winograd.grad_input(grad, weight)
    return [y, grad_x, *winograd.grad_weight(packed, grad, weight, levels)]


# Bytes beyond 7 are where V is rounded another way.
DRAWN = problems([32, 64, 96, 160], (7, 8, 255), BF16)


@here
@given(DRAWN)
def test_against_float64(drawn: tuple[int, Problem]) -> None:
    levels, (packed, weight, bias, grad) = drawn
    found = ours(packed, weight, bias, grad, levels)
    right = exact(packed.double() / levels, weight.double(), bias.double(), grad.double())
    for a, b in zip(found, right, strict=True):
        assert a.dtype == BF16
        assert a.shape == b.shape
        # A product's element is wrong by some roundings of terms as great as the greatest result.
        assert float((a.double() - b).abs().max()) <= 8 * ULP * float(b.abs().max())
    assert found[2].stride() == weight.stride()


@here
def test_integers_are_exact() -> None:
    """Where no rounding is due: spikes, and weights and gradients that U and A dy At hold."""
    generator = torch.Generator().manual_seed(3)
    packed = torch.randint(2, (3, 32, 7, 6), generator=generator, dtype=torch.uint8)
    weight = 4.0 * torch.randint(-1, 2, (64, 32, 3, 3), generator=generator)
    grad = torch.randint(-1, 2, (3, 64, 7, 6), generator=generator).float()
    bias = torch.arange(64.0)
    right = exact(packed.float(), weight, bias, grad)
    found = ours(packed, weight.to(BF16), bias.to(BF16), grad.to(BF16))
    for a, b in zip(found, right, strict=True):
        assert torch.equal(a, b.to(BF16))


@here
@pytest.mark.parametrize("levels", [1, 4])
def test_about_as_exact_as_the_framework(levels: int) -> None:
    packed, weight, _, grad = problem((8, 128, 16, 16), 96, levels)
    bias = torch.zeros(96, dtype=BF16)
    given_ = (packed.to(BF16) / levels, weight, bias, grad)
    right = exact(*(each.double() for each in given_))
    for a, b, c in zip(
        ours(packed, weight, bias, grad, levels), exact(*given_), right, strict=True
    ):
        assert float((a - c).norm()) <= WORSE * float((b - c).norm())


@here
def test_no_images() -> None:
    packed, weight, bias, grad = problem((0, 32, 8, 8), 64)
    y, grad_x, grad_weight, grad_bias = ours(packed, weight, bias, grad)
    assert (y.shape, grad_x.shape) == (grad.shape, packed.shape)
    assert not grad_weight.any()
    assert not grad_bias.any()


def everything(threads: int) -> list[Tensor]:
    with using(threads):  # more tiles than a partial sum takes, the rest of every block odd
        return ours(*problem((37, 96, 15, 17), 160))


@here
def test_the_same_bits_by_any_number_of_threads() -> None:
    one = everything(1)
    for threads in (2, 3, 5):
        for a, b in zip(one, everything(threads), strict=True):
            assert torch.equal(a, b)


@here
def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert winograd._chunk(2, 96, 160, 2) == 64
    before = everything(2)
    monkeypatch.setattr(winograd, "_block", lambda *_: 5)
    monkeypatch.setattr(winograd, "_chunk", lambda *_: 128)
    for a, b in zip(before, everything(2), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As on a processor that runs it, whatever this one is, and unpinned; nothing is called."""
    monkeypatch.delenv(winograd.PIN, raising=False)
    monkeypatch.setattr(winograd, "runs_here", lambda: True)
    monkeypatch.setattr(winograd, "shared", lambda *_: ctypes.CDLL(None))
    monkeypatch.setattr(winograd, "_SIGNATURES", {})
    winograd._functions.cache_clear()
    yield monkeypatch
    winograd._functions.cache_clear()


def operands() -> tuple[Tensor, Tensor]:
    x = torch.zeros(8, 64, 8, 8, dtype=BF16).contiguous(memory_format=LAST)
    return x, torch.zeros(32, 64, 3, 3, dtype=BF16)


@pytest.mark.usefixtures("able")
def test_where_it_serves() -> None:
    x, weight = operands()
    assert winograd.serves(x, weight, ONE, ONE)
    assert not winograd.serves(x, weight, (2, 2), ONE)
    assert not winograd.serves(x, weight, ONE, (0, 0))
    assert not winograd.serves(x, weight, ONE, "same")
    assert not winograd.serves(x, weight[:31], ONE, ONE)
    assert not winograd.serves(x, weight[:0], ONE, ONE)
    assert not winograd.serves(x, weight[:, :32], ONE, ONE)
    assert not winograd.serves(x[:, :48], weight[:, :48], ONE, ONE)
    assert not winograd.serves(x[:7], weight, ONE, ONE)  # few tiles
    assert not winograd.serves(x, weight[..., :1], ONE, ONE)
    assert not winograd.serves(x.contiguous(), weight, ONE, ONE)
    assert not winograd.serves(x.float(), weight.float(), ONE, ONE)
    assert not winograd.serves(x.float(), weight, ONE, ONE)
    for side, wanted in ((1, False), (3, False), (4, True), (5, False), (7, True), (8, True)):
        many = torch.zeros(64, 64, side, side, dtype=BF16).contiguous(memory_format=LAST)
        assert winograd.serves(many, weight, ONE, ONE) is wanted


def test_a_pinned_instruction_set_is_kept(able: pytest.MonkeyPatch) -> None:
    assert winograd.serves(*operands(), ONE, ONE)
    able.setenv(winograd.PIN, "AVX2")
    assert not winograd.serves(*operands(), ONE, ONE)


def test_a_compiler_that_does_not_know_the_flags(
    able: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shared(*_: str) -> ctypes.CDLL:
        raise build.NoCompiler("cc: unrecognized option")

    able.setattr(winograd, "shared", shared)
    assert not winograd.serves(*operands(), ONE, ONE)
    assert "cc: unrecognized option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("machine", "flags", "wanted"),
    [
        ("x86_64", winograd.NEEDED, True),
        ("aarch64", winograd.NEEDED, False),
        ("x86_64", winograd.NEEDED | {winograd.FASTER_ELSEWHERE}, False),
        ("x86_64", winograd.NEEDED - {"avx512_bf16"}, False),
    ],
)
def test_processors(
    machine: str, flags: set[str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd.platform, "machine", lambda: machine)
    monkeypatch.setattr(winograd.Path, "read_text", lambda _: f"flags : {' '.join(flags)}\n")
    assert winograd.runs_here.__wrapped__() is wanted


def test_a_processor_that_it_cannot_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "runs_here", lambda: False)
    winograd._functions.cache_clear()
    assert not winograd.serves(*operands(), ONE, ONE)
    winograd._functions.cache_clear()


@here
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_uses_it(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training steps' convolution of spikes under autocast, with the framework's gradients."""
    monkeypatch.delenv(winograd.PIN, raising=False)
    conv = nn.Conv2d(32, 64, 3, padding=1, bias=bias).to(memory_format=LAST)
    flat = problem((8, 32, 9, 8), 64, 4)[0].float().div(4).contiguous(memory_format=LAST)
    x = flat.unflatten(0, (2, 4)).requires_grad_()
    for a, b in by_a_layer(winograd, conv, x, monkeypatch, BF16):
        assert (a.dtype, a.stride()) == (b.dtype, b.stride())
        assert float((a - b).abs().max()) <= 8 * ULP * float(b.abs().max())
