"""The Triton kernels against plain torch in float64.

On a machine without a GPU Triton's interpreter runs them on CPU tensors. It is chosen when Triton
is imported, for the whole process; so this file runs itself in a process of its own. On a machine
with a GPU the same tests run a second time, compiled.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from triton.runtime.errors import InterpreterError

from steadyspike.kernels import cuda, reference
from steadyspike.kernels.cuda import tiles as cuda_tiles

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# The interpreter cuts a bfloat16 off where a GPU rounds it.
BFLOAT16 = 2**-7 if INTERPRETED else 2**-8

if INTERPRETED:
    try:
        cuda.moments(torch.zeros(1, 1, 1, 64, 64))
    except InterpreterError as error:
        if "converted to Python scalars" not in str(error):
            raise
        reason = "this version of Triton's interpreter cannot loop with this version of numpy"
        pytest.skip(reason, allow_module_level=True)

runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no GPU"
)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="they are interpreted right now")
def test_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=env, text=True, capture_output=True
    )
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(run.stdout)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


@contextmanager
def tiles(small: bool) -> Iterator[None]:
    """With tiles so small that a few values need several of them, and several programs."""
    sizes = {"TILE": 64, "CHANNELS": 8, "PROGRAMS": 5, "COMBINED": 8}
    with patch.multiple(cuda_tiles, **sizes) if small else nullcontext():
        yield


def draw(shape: tuple[int, ...], dtype: torch.dtype, last: bool, scale: float = 1.0) -> Tensor:
    """Random (K, N, C, ...), channels last in memory or not."""
    x = torch.randn(shape) * scale
    if last and len(shape) == 5:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    return x.to(DEVICE, dtype)


def close(actual: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    """Within ``relative`` of the largest value."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() if actual.numel() else torch.zeros(())
    largest = expected.double().abs().max() if expected.numel() else torch.zeros(())
    assert error <= relative * largest, f"{error} off {largest}"


@dataclass(frozen=True)
class Case:
    """Currents of a layer: (K, N, C, ...), their type, channels last in memory, `tiles`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    last: bool
    small: bool

    def draw(self, dtype: torch.dtype | None = None, last: bool | None = None) -> Tensor:
        return draw(self.shape, dtype or self.dtype, self.last if last is None else last)


def cases() -> list[Case]:
    of = random.Random(0)
    shapes: list[tuple[int, ...]] = [(1, 1, 1), (1, 1, 64, 1, 1), (2, 3, 70), (2, 60, 3, 5, 5)]
    for number in range(6):
        places = (of.randint(1, 5), of.randint(1, 5)) if number % 3 else ()
        shapes.append((of.randint(1, 3), of.randint(1, 4), of.randint(1, 40), *places))
    types = [torch.float32, torch.bfloat16]
    return [
        Case(shape, types[n % 2], last=n % 4 < 2, small=n % 3 > 0) for n, shape in enumerate(shapes)
    ]


CASES = cases()
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@runs_kernels
@each_case
def test_moments(case: Case) -> None:
    x = case.draw()
    with tiles(case.small):
        mean, var = cuda.moments(x)
        again = cuda.moments(x)
        each = [cuda.moments(step[None]) for step in x]
    expected_mean, expected_var = reference.moments(x.double())
    close(mean, expected_mean)
    close(var, expected_var)
    assert mean.dtype == var.dtype == torch.float32
    assert torch.equal(mean, again[0])
    assert torch.equal(var, again[1])
    assert torch.equal(mean, torch.cat([m for m, _ in each]))  # whatever K is
    assert torch.equal(var, torch.cat([v for _, v in each]))


@runs_kernels
@pytest.mark.parametrize("small", [False, True])
def test_moments_far_from_zero(small: bool) -> None:
    x = draw((1, 40, 3, 3, 3), torch.float32, last=True)
    x[:, :, 1] += 1e4
    x[:, :, 2] = x[:, :, 2] * 1e-3 - 1e3
    with tiles(small):
        mean, var = cuda.moments(x)
    expected_mean, expected_var = reference.moments(x.double())
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=0)


@runs_kernels
@pytest.mark.parametrize("small", [False, True])
def test_moments_of_places_that_differ_far_more_than_their_values(small: bool) -> None:
    """The first tile, whose mean is the pivot, is nothing like the rest."""
    x = draw((1, 40, 2, 3, 3), torch.float32, last=True)
    x[:, :9] += 1e4
    with tiles(small):
        mean, var = cuda.moments(x)
    expected_mean, expected_var = reference.moments(x.double())
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=0)


@runs_kernels
@pytest.mark.parametrize("small", [False, True])
def test_moments_of_equal_values(small: bool) -> None:
    x = torch.full((2, 9, 3, 5, 5), 0.1, device=DEVICE)
    with tiles(small):
        mean, var = cuda.moments(x)
    close(mean, torch.full_like(mean, 0.1))
    assert (var <= (2**-23 * 0.1) ** 2).all()


@runs_kernels
def test_a_value_that_is_none_makes_its_channel_none() -> None:
    x = draw((2, 9, 5, 4, 4), torch.float32, last=True)
    x[1, 8, 3, 2, 1] = torch.nan
    with tiles(small=True):
        for moment in cuda.moments(x):
            lost = moment.isnan()
            assert lost[1, 3]
            assert lost.sum() == 1
        out = torch.empty_like(x[1])
        zero, one = torch.zeros(5, device=DEVICE), torch.ones((), device=DEVICE)
        found = cuda.charge(
            x[1], zero + 1, zero, None, one, leak=0.5, zero_reset=True, out=out, statistics=True
        )
        assert found is not None
        assert found.isnan().all()
        # It stays in the membrane, also through a reset to zero.
        cuda.charge(
            x[0], zero + 1, zero, out, one, leak=0.5, zero_reset=True, statistics=False,
            out=(after := torch.empty_like(out)),
        )  # fmt: skip
        assert torch.equal(after.isnan(), out.isnan())
        unit = torch.ones(2, 5, device=DEVICE)
        for sums in cuda.grad_sums(x, None, None, 4.0, torch.ones_like(x), 0 * unit, unit):
            assert torch.equal(sums.isnan(), lost)


@runs_kernels
@pytest.mark.parametrize("number", range(32))
def test_charge_and_fire(number: int) -> None:
    case = CASES[number % len(CASES)]
    first, norm, zero_reset, statistics, other_layout = (number >> bit & 1 for bit in range(5))
    other = case.last ^ bool(other_layout)
    x, spikes, fired = (case.draw()[0] for _ in range(3))
    before = None if first else case.draw(torch.float32, other)[0]
    scale, shift = (draw(case.shape[2:3], torch.float32, False) for _ in range(2))
    threshold = torch.tensor(0.3, device=DEVICE)
    affine = (scale, shift) if norm else (None, None)
    how: dict[str, Any] = {"leak": 0.75, "zero_reset": bool(zero_reset), "fire_at": 0.5}
    how["statistics"] = bool(statistics)
    out = case.draw(torch.float32, other)[0]
    with tiles(case.small):
        found = cuda.charge(x, *affine, before, threshold, out=out, spikes=spikes, **how)
        again = torch.empty_like(out)
        found_again = cuda.charge(x, *affine, before, threshold, out=again, **how)
        cuda.fire(out, threshold, fired)

    expected = torch.empty_like(out, dtype=torch.float64)
    wide = [None if each is None else each.double() for each in (x, *affine, before, threshold)]
    reference.charge(*wide, out=expected, **how)
    close(out, expected)
    # A neuron at the threshold may be on either side of it: that of the u that is kept counts.
    assert torch.equal(spikes, (out >= 0.5).to(case.dtype))
    assert torch.equal(fired, (out >= threshold).to(case.dtype))
    assert torch.equal(out, again)
    if not statistics:
        assert found is None
        return
    assert found is not None
    assert found_again is not None
    assert torch.equal(found, found_again)
    u = out.double()
    assert abs(found[0] - u.mean()) <= 1e-5 * u.abs().max()
    torch.testing.assert_close(
        found[1].double(), (u - u.mean()).square().sum(), rtol=1e-5, atol=1e-12
    )


@runs_kernels
@pytest.mark.parametrize("small", [False, True])
def test_statistics_of_u_far_from_zero(small: bool) -> None:
    x = draw((1, 40, 6, 3, 3), torch.float32, last=True)[0] + 1e4
    out = torch.empty_like(x)
    with tiles(small):
        found = cuda.charge(
            x, None, None, None, None, leak=0.5, zero_reset=False, out=out, statistics=True
        )
    assert found is not None
    assert torch.equal(out, x)
    torch.testing.assert_close(found[0].double(), x.double().mean(), rtol=1e-6, atol=0)
    squares = (x.double() - x.double().mean()).square().sum()
    torch.testing.assert_close(found[1].double(), squares, rtol=1e-5, atol=0)


@runs_kernels
@each_case
@pytest.mark.parametrize("what", ["both", "norm", "neuron"])
def test_gradients_are_those_of_autograd(case: Case, what: str) -> None:
    """Through γ (x - mean x) / √(var x + ε) + β and σ(k (u - θ)), written out in float64."""
    shape, dtype = case.shape, case.dtype
    steps, channels, slope = shape[0], shape[2], 4.0
    x = draw(shape, dtype, case.last, scale=2.0)
    grad = case.draw()
    over = [dim for dim in range(len(shape)) if dim not in (0, 2)]
    along = (steps, 1, channels, *[1] * (len(shape) - 3))
    thresholds = torch.rand(steps, device=DEVICE) + 0.5
    norm, neuron = what != "neuron", what != "norm"

    wide = x.double().requires_grad_()
    weight = torch.rand(steps, channels, dtype=torch.float64, device=DEVICE) + 0.5
    bias = torch.zeros_like(weight)
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    mean = wide.mean(over, keepdim=True)
    std = ((wide - mean).square().mean(over, keepdim=True) + 1e-4).sqrt()
    y = weight.view(along) * (wide - mean) / std + bias.view(along) if norm else wide
    kept = case.draw(torch.float32)  # u: some of it from steps before, without a gradient
    u = y + (kept - y).detach()
    theta = thresholds.double().view(-1, *[1] * (len(shape) - 1))
    (grad.double() * (torch.sigmoid(slope * (u - theta)) if neuron else y)).sum().backward()

    seen = (kept, thresholds) if neuron else (None, None)
    mean, std = (each.detach().view(steps, channels).float() for each in (mean, std))
    with tiles(case.small):
        if not norm:
            actual = cuda.grad_input(grad, *seen, slope, None, None, None, None, None, None)
        else:
            sums = cuda.grad_sums(grad, *seen, slope, x, mean, std)
            again = cuda.grad_sums(grad, *seen, slope, x, mean, std)
            assert torch.equal(sums[0], again[0])
            assert torch.equal(sums[1], again[1])
            a = weight.detach().float() / std
            b, c = (-a * each / (x.numel() / (steps * channels)) for each in sums)
            actual = cuda.grad_input(grad, *seen, slope, x, mean, std, a, b, c)
    assert wide.grad is not None
    g = (grad.double() * slope * 0.25).abs().max()  # what the sums and differences are made of
    if norm:
        assert bias.grad is not None
        assert weight.grad is not None
        count = x.numel() / (steps * channels)
        assert (sums[0] - bias.grad).abs().max() <= 1e-5 * max(bias.grad.abs().max(), g)
        assert (sums[1] - weight.grad).abs().max() <= 1e-5 * max(weight.grad.abs().max(), g) * count
        size = (a.abs().max() * g).item()
    else:
        size = g.item()
    assert actual.dtype == dtype
    assert actual.stride() == x.stride()
    error = (actual.double() - wide.grad).abs()
    bound = 1e-5 * size + (BFLOAT16 * wide.grad.abs() if dtype == torch.bfloat16 else 0)
    assert (error <= bound).all(), (error - bound).max()


@runs_kernels
@each_case
def test_gradients_with_any_coefficients(case: Case) -> None:
    shape = case.shape
    x, grad, u = case.draw(), case.draw(last=not case.last), case.draw(torch.float32)
    thresholds = torch.rand(shape[0], device=DEVICE)
    vectors = [draw((shape[0], shape[2]), torch.float32, False) for _ in range(4)]
    std = torch.rand(shape[0], shape[2], device=DEVICE) + 0.5
    mean, a, b, c = vectors
    given_ = (grad, u, thresholds, 2.5, x, mean, std)
    wide = [each.double() if isinstance(each, Tensor) else each for each in given_]
    with tiles(case.small):
        for actual, expected in zip(
            cuda.grad_sums(*given_), reference.grad_sums(*wide), strict=True
        ):
            close(actual, expected)
        actual = cuda.grad_input(*given_, a, b, c)
    expected = reference.grad_input(*wide, a.double(), b.double(), c.double())
    close(actual, expected, 1e-5 if case.dtype == torch.float32 else BFLOAT16)


@runs_kernels
def test_surrogate_far_from_the_threshold() -> None:
    u = torch.tensor([-torch.inf, -1e38, -1e4, -20.0, 0.0, 20.0, 1e4, 1e38, torch.inf])
    u = u.view(1, -1, 1).to(DEVICE)
    grad, theta = torch.ones_like(u), torch.zeros(1, device=DEVICE)
    g = cuda.grad_input(grad, u, theta, 4.0, None, None, None, None, None, None).flatten()
    assert g[[0, 1, 2, 6, 7, 8]].tolist() == [0] * 6
    tail = 4 * torch.exp(torch.tensor(-80.0, dtype=torch.float64))
    torch.testing.assert_close(g[[3, 5]].cpu().double(), tail.expand(2), rtol=1e-5, atol=0)
    assert g[4] == 1


@runs_kernels
@each_case
@pytest.mark.parametrize("levels", [1, 3, 16])
def test_packed_and_back(case: Case, levels: int) -> None:
    # A third in bfloat16 is for the GPU, see BFLOAT16.
    dtype = torch.float32 if levels == 3 else case.dtype
    numbers = (case.draw(torch.float32) * 100).abs().clamp(max=255).round()
    # Divided on the CPU: CUDA multiplies by the rounded inverse of a scalar.
    x = (numbers.cpu() / levels).to(DEVICE, dtype)
    with tiles(case.small):
        packed = cuda.pack(x, levels)
        back = cuda.unpack(packed, levels, dtype)
    assert packed.dtype == torch.uint8
    assert torch.equal(packed, reference.pack(x, levels))
    assert packed.stride() == x.stride() == back.stride()
    assert back.dtype == dtype
    assert torch.equal(back, x)


@runs_kernels
def test_packed_from_a_slice() -> None:
    x = torch.arange(60.0, device=DEVICE).view(3, 4, 5)[:, 1:3, ::2]
    assert torch.equal(cuda.unpack(cuda.pack(x, 1), 1, torch.float32), x)


@runs_kernels
@pytest.mark.parametrize("shape", [(2, 0, 3, 4, 4), (1, 0, 3), (2, 2, 3, 0, 4)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    steps, channels = shape[0], shape[2]
    x = torch.empty(shape, device=DEVICE)
    vector, thresholds = torch.ones(steps, channels, device=DEVICE), torch.ones(steps).to(DEVICE)
    zeros = [[0.0] * channels] * steps
    for moment in (
        *cuda.moments(x),
        *cuda.grad_sums(x, x, thresholds, 4.0, x, vector, vector),
    ):
        assert moment.tolist() == zeros
    found = cuda.charge(
        x[0], vector[0], vector[0], None, thresholds[0], leak=0.5, zero_reset=False,
        out=torch.empty_like(x[0]), statistics=True,
    )  # fmt: skip
    assert found is not None
    assert found.tolist() == [0, 0]
    cuda.fire(x[0], thresholds[0], x[0])
    given_ = (x, x, thresholds, 4.0, x, *[vector] * 5)
    assert cuda.grad_input(*given_).shape == shape
    assert cuda.unpack(cuda.pack(x, 1), 1, x.dtype).shape == shape


@runs_kernels
def test_steps_that_lie_apart_are_not_copied() -> None:
    """Steps of a longer buffer, further apart than 32 bits can count."""
    apart = 2**31 + 8
    # Memory that nobody touches is not there.
    buffer = torch.empty(apart + 64, dtype=torch.bfloat16, device=DEVICE)
    x = buffer.as_strided((2, 4, 3, 2, 2), (apart, 12, 1, 6, 3))
    x.copy_(torch.randn(2, 4, 3, 2, 2))
    assert cuda_tiles.rows_of(x).data_ptr() == x.data_ptr()
    mean, var = cuda.moments(x)
    expected_mean, expected_var = reference.moments(x.double())
    close(mean, expected_mean)
    close(var, expected_var)
