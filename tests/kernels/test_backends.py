"""The C and Triton kernels against the reference in float64.

Without a GPU Triton's interpreter runs its kernels on CPU tensors. It is chosen when Triton is
imported, for the whole process; so this file runs itself once more in a process of its own.
"""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.cases import LAYOUTS, assert_near, laid_out, layers
from steadyspike.kernels import cpu, reference
from steadyspike.kernels.norm import StepMoments
from steadyspike.kernels.stabilizer import Stabilizer

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
try:
    from steadyspike.kernels import cuda
    from steadyspike.kernels.cuda import tiles as cuda_tiles
except ImportError:
    cuda = None  # no Triton
if INTERPRETED:
    from triton.runtime.errors import InterpreterError

    try:
        cuda.moments(torch.zeros(1, 1, 1, 64, 64))
    except InterpreterError as error:
        if "converted to Python scalars" not in str(error):
            raise
        reason = "this version of Triton's interpreter cannot loop with this version of numpy"
        pytest.skip(reason, allow_module_level=True)
ON_GPU = () if INTERPRETED else pytest.mark.gpu
BACKENDS = [] if INTERPRETED else [pytest.param(cpu, id="cpu")]
if cuda is not None:
    BACKENDS.append(pytest.param(cuda, id="cuda", marks=ON_GPU))
each_backend = pytest.mark.parametrize("backend", BACKENDS)
#: The interpreter truncates to bfloat16 where a GPU rounds.
BFLOAT16 = 2**-7 if INTERPRETED else 2**-8
FLOAT16 = 2**-11  # half a unit in the last place, relative
settings.register_profile("interpreted", parent=settings.get_profile("steadyspike"), max_examples=8)
if INTERPRETED:
    settings.load_profile("interpreted")
ONE_STEP: dict[str, Any] = {"leak": 0.5, "zero_reset": False, "statistics": True}


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or cuda is None, reason="interpreted already, or no Triton")
def test_under_tritons_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=env, text=True, capture_output=True
    )
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(run.stdout)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def on(backend: ModuleType, *tensors: Any) -> list[Any]:
    """The tensors on the device of a backend, in the same layout."""
    if backend is cpu or INTERPRETED:
        return list(tensors)
    return [each.to("cuda") if isinstance(each, Tensor) else each for each in tensors]


def wide(*values: Any) -> list[Any]:
    return [value.double() if isinstance(value, Tensor) else value for value in values]


@contextmanager
def tiles(small: bool) -> Iterator[None]:
    """With CUDA tiles so small that a few values need several of them, and several programs."""
    sizes = {"TILE": 64, "CHANNELS": 8, "PROGRAMS": 5, "COMBINED": 8}
    with patch.multiple(cuda_tiles, **sizes) if small and cuda else nullcontext():
        yield


@each_backend
@given(layers(), st.booleans())
def test_moments(backend: ModuleType, layer: dict[str, Any], small: bool) -> None:
    (x,) = on(backend, layer["x"])
    with tiles(small):
        mean, var = backend.moments(x)
        one_by_one = [backend.moments(step[None]) for step in x]
    for ours, exact in zip((mean, var), reference.moments(x.double()), strict=True):
        assert ours.dtype == torch.float32
        assert_near(ours, exact)
    assert torch.equal(mean, torch.cat([each for each, _ in one_by_one]))  # whatever K is
    assert torch.equal(var, torch.cat([each for _, each in one_by_one]))


@each_backend
@given(layers(), *[st.booleans()] * 5)
def test_charge_and_fire(
    backend: ModuleType,
    layer: dict[str, Any],
    zero_reset: bool,
    first: bool,
    affine: bool,
    statistics: bool,
    small: bool,
) -> None:
    x, u = layer["x"][0], layer["u"][0].to(backend.membrane_type(layer["x"].dtype))
    before = None if first else u
    scale, shift = (layer[name][0] if affine else None for name in ("scale", "shift"))
    given_ = on(backend, x, scale, shift, before, None if first else torch.tensor(0.3))
    out, spikes = on(backend, torch.empty_like(u), torch.empty_like(x))
    how = {"leak": 0.4, "zero_reset": zero_reset, "statistics": statistics, "fire_at": 0.5}
    with tiles(small):
        sums = backend.charge(*given_, out=out, spikes=spikes, **how)
        again = torch.empty_like(out)
        backend.charge(*given_, out=again, **how)
        fired = torch.empty_like(spikes)
        at = on(backend, torch.tensor(0.25))[0]
        backend.fire(out, at, fired)
        later = torch.empty_like(spikes)
        after = torch.empty_like(out)
        backend.charge(*given_[:3], out, at, out=after, last_spikes=later, **how)
    exact = torch.empty_like(out, dtype=torch.float64)
    reference.charge(*wide(*given_), out=exact, **how)
    rel = FLOAT16 if out.dtype == torch.float16 else 1e-5
    assert_near(out, exact, rel=rel)
    assert torch.equal(out, again)
    # A neuron at the threshold may be on either side of it: the stored u decides.
    assert torch.equal(spikes, (out >= 0.5).to(spikes.dtype))
    assert torch.equal(fired, (out >= 0.25).to(fired.dtype))
    assert torch.equal(fired, later)
    assert (sums is None) is not statistics
    if sums is not None:
        assert sums.dtype == torch.float32
        exact_sums = reference.mean_squares(out.double())  # of u as it is stored
        assert_near(sums[0], exact_sums[0], scale=float(exact.abs().max()) if exact.numel() else 0)
        assert_near(sums[1], exact_sums[1])


@each_backend
@given(layers(), st.booleans(), st.sampled_from([1.0, 4.0, 40.0]), st.booleans())
def test_gradient(
    backend: ModuleType, layer: dict[str, Any], norm_alone: bool, slope: float, small: bool
) -> None:
    x, grad = layer["x"], layer["grad"]
    u = None if norm_alone else layer["u"].to(backend.membrane_type(x.dtype))
    thresholds = None if norm_alone else torch.linspace(-0.5, 0.5, len(x))
    given_ = on(backend, grad, u, thresholds, slope, x, layer["mean"], layer["std"])
    exactly = wide(*given_)
    coefficients = on(backend, *(layer[name] for name in "abc"))
    nothing = (None,) * 6
    with tiles(small):
        sums = backend.grad_sums(*given_)
        found = backend.grad_input(*given_, *coefficients)
        without_a_norm = backend.grad_input(*given_[:4], *nothing)
    terms = x[0].numel() / x.shape[2] * slope
    normalized = float((x.double().abs().max() + 4) / layer["std"].min()) if x.numel() else 1
    for ours, exact, size in zip(sums, reference.grad_sums(*exactly), (1, normalized), strict=True):
        assert_near(ours, exact, scale=math.sqrt(terms) * size)
    rel = BFLOAT16 if x.dtype == torch.bfloat16 else 1e-5
    assert found.dtype == x.dtype
    assert_near(found, reference.grad_input(*exactly, *wide(*coefficients)), rel=rel)
    assert_near(without_a_norm, reference.grad_input(*exactly[:4], *nothing), rel=rel)


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm_alone", [False, True])
def test_gradient_of_currents_that_all_steps_have(
    backend: ModuleType, norm_alone: bool, dtype: torch.dtype
) -> None:
    x, grad, u = (laid_out(torch.randn(3, 4, 17, 6, 5), "channels last") for _ in range(3))
    vectors = torch.randn(5, 3, 17)
    mean, std, a, b, c = (
        vectors[0, :1].expand(3, -1),
        vectors[1, :1].abs().expand(3, -1) + 1,
        *vectors[2:],
    )
    thresholds = None if norm_alone else torch.linspace(-0.5, 0.5, 3)
    kept = None if norm_alone else u.to(backend.membrane_type(dtype))
    x, grad = x[:1].to(dtype), grad.to(dtype)
    given_ = on(backend, grad, kept, thresholds, 4.0, x, mean, std)
    with tiles(small=True):
        sums = backend.grad_sums(*given_)
        found = backend.grad_input(*given_, *on(backend, a, b, c))
    exactly = wide(*given_)
    every = [*exactly[:4], exactly[4].expand(grad.shape), *exactly[5:]]
    for ours, exact in zip(sums, reference.grad_sums(*every), strict=True):
        assert_near(ours, exact, scale=100)
    exact = reference.grad_input(*every, *wide(*on(backend, a, b, c))).sum(0, keepdim=True)
    assert found.dtype == dtype
    assert_near(found, exact, rel=3 * BFLOAT16 if dtype == torch.bfloat16 else 1e-5)


@each_backend
@given(
    st.sampled_from([1, 3, 128, 200]),
    st.integers(1, 3),
    st.sampled_from([None, 0.5, 1.5, math.inf]),
    *[st.booleans()] * 4,
    st.integers(0, 2**16),
)
def test_a_norms_arithmetic_on_channels(
    backend: ModuleType,
    channels: int,
    steps: int,
    limit: float | None,
    biased: bool,
    still: bool,
    renormalizes: bool,
    shared: bool,
    seed: int,
) -> None:
    """Forward, at inference, backward, and the running statistics."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    mean, var = random(steps, channels), random(steps, channels).square() + 0.1
    if still:
        mean, var = mean[:1].expand(steps, -1), var[:1].expand(steps, -1)
    running, affine = (random(channels), random(channels).square() + 0.1), random(2, channels)
    offset = random(channels) if biased else None
    sums = random(2, 2, steps, channels)

    def everything(kernels: ModuleType, *given_: Any) -> list[Tensor]:
        mean, var, running_mean, running_var, affine, offset, sums, weight = given_
        running = running_mean.clone(), running_var.clone()
        how = {"eps": 1e-2}
        moments = StepMoments.empty(mean, steps + 1)
        for each, value in zip(
            (moments.means, moments.variances, moments.own), (0.5, 2, 3), strict=True
        ):
            each.fill_(value)
        scales = kernels.norm_forward(
            mean, var, running, affine, offset, limit=limit, moments=moments.part(1, steps), **how
        )
        without = kernels.norm_forward(
            mean, var, running, affine, offset, limit=limit, moments=None, **how
        )
        inference = kernels.norm_inference(running, affine, offset, steps=steps, **how)
        inference = [each.clone() for each in inference]  # some share memory with `running`
        whole = sums[1].unbind() if shared else None
        count = 7 * steps if renormalizes else None
        backward = kernels.norm_backward(*sums[0], whole, scales, count)
        fallbacks = moments.own.sum(dtype=torch.int64)
        for step_weight, between, unbias in ((0.25, True, 1.0), (weight, False, 1.5)):
            kernels.norm_fold(
                moments, running, weight=step_weight, between=between, unbias=unbias,
                fallbacks=fallbacks if between else None,
            )  # fmt: skip
        kept = [moments.means, moments.variances, moments.own, *running, fallbacks]
        assert all(torch.equal(a, b) for a, b in zip(scales, without, strict=True))
        return [*scales, *inference, *backward, *kept]

    given_ = (mean, var, *running, affine, offset, sums, torch.tensor(0.125))
    exact = everything(reference, *wide(*given_))
    for ours, expected in zip(everything(backend, *on(backend, *given_)), exact, strict=True):
        assert_near(ours.cpu(), expected.double(), scale=10)


@each_backend
@pytest.mark.parametrize("channels", [1, 3, 64])
@pytest.mark.parametrize(("mean", "std"), [(1e3, 1e-2), (1e4, 1.0), (-30.0, 1.0)])
def test_statistics_far_from_zero(
    backend: ModuleType, mean: float, std: float, channels: int
) -> None:
    (x,) = on(backend, torch.randn(1, 8, channels, 16, 8) * std + mean)
    x[:, 0] *= 2  # the first values are nothing like the rest
    with tiles(small=True):
        moments = backend.moments(x)
        found = backend.charge(x[0], *[None] * 4, out=torch.empty_like(x[0]), **ONE_STEP)
    for ours, exact in zip(moments, reference.moments(x.double()), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)
    exact = torch.empty_like(x[0], dtype=torch.float64)
    expected = reference.charge(x[0].double(), *[None] * 4, out=exact, **ONE_STEP)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def thresholds_of(backend: ModuleType, steps: Tensor, v_threshold: float) -> list[float]:
    """θ of each step (K, N, C, ...) by a backend's stabilizer, without leak."""
    first, thresholds = steps.new_empty(2), steps.new_full((len(steps),), torch.nan)
    for k, x in enumerate(steps):
        stabilizer = Stabilizer(v_threshold, first, k == 0, thresholds[k])
        u = torch.empty_like(x)
        how = {"leak": 0.0, "zero_reset": False, "stabilizer": stabilizer}
        assert backend.charge(x, *[None] * 4, out=u, **how) is None
    return thresholds.tolist()


@each_backend
@given(layers(), st.sampled_from([0.5, 1.0, -2.0]), st.booleans())
def test_thresholds(
    backend: ModuleType, layer: dict[str, Any], v_threshold: float, small: bool
) -> None:
    steps = torch.stack([u * (k + 1) + k for k, u in enumerate(layer["u"])])
    (given_,) = on(backend, steps)
    with tiles(small):
        ours = thresholds_of(backend, given_, v_threshold)
    exact = thresholds_of(reference, steps.double(), v_threshold)
    assert ours[0] == v_threshold
    if steps[0].numel() > 3:  # of very few numbers, a quantile may be any number of deviations
        assert ours == pytest.approx(exact, rel=1e-4, abs=1e-4)


@each_backend
def test_thresholds_of_layers_that_do_not_vary(backend: ModuleType) -> None:
    """Silent at first, later, by rounding alone, or NaN."""
    varied = torch.randn(1, 4, 3, 5, 5)
    for silent in (torch.zeros_like(varied), torch.full_like(varied, 0.1)):
        (at_first, later) = on(backend, torch.cat([silent, varied]), torch.cat([varied, silent]))
        assert thresholds_of(backend, at_first, 1.5) == [1.5, 1.5]
        assert thresholds_of(backend, later, 1.5) == [1.5, 1.5]
    (one, lost) = on(backend, torch.ones(2, 1, 1), torch.cat([varied, varied * torch.nan, varied]))
    assert thresholds_of(backend, one, 1.5) == [1.5, 1.5]
    first, second, third = thresholds_of(backend, lost, 1.5)
    assert (first, third) == (1.5, pytest.approx(1.5, rel=1e-5))
    assert math.isnan(second)
    assert math.isnan(thresholds_of(backend, lost[1:], 1.5)[1])


@each_backend
@pytest.mark.parametrize("value", [0.1, 0.7, -123.4])
def test_equal_numbers_do_not_vary(backend: ModuleType, value: float) -> None:
    """However many; a silent layer is recognized by it."""
    (x,) = on(backend, torch.full((1, 16, 8, 16, 8), value))
    mean, var = backend.moments(x)
    sums = backend.charge(x[0], *[None] * 4, out=torch.empty_like(x[0]), **ONE_STEP)
    rounding = 0 if backend is cpu else (2**-23 * value) ** 2
    assert_near(mean, torch.full_like(mean, value).double(), rel=1e-7 if rounding else 0)
    assert (var <= rounding).all()
    assert float(sums[1]) <= rounding * x.numel()


@each_backend
def test_nan_stays_where_it_is(backend: ModuleType) -> None:
    (x,) = on(backend, torch.randn(2, 9, 5, 4, 4))
    x[1, 8, 3, 2, 1] = torch.nan
    zero, one = on(backend, torch.zeros(5), torch.ones(()))
    out, after = torch.empty_like(x[1]), torch.empty_like(x[1])
    reset = {**ONE_STEP, "zero_reset": True}
    with tiles(small=True):
        found = [
            *backend.moments(x),
            *backend.grad_sums(x, None, None, 4.0, torch.ones_like(x), *on_rows(zero, one)),
        ]
        sums = backend.charge(x[1], zero + 1, zero, None, one, out=out, **reset)
        backend.charge(x[0], zero + 1, zero, out, one, out=after, **reset)
    for each in found:
        assert each.isnan()[1, 3]
        assert each.isnan().sum() == 1
    assert sums.isnan().all()
    assert torch.equal(after.isnan(), out.isnan())


def on_rows(zero: Tensor, one: Tensor) -> tuple[Tensor, Tensor]:
    """A mean and a standard deviation for two steps."""
    return zero.expand(2, -1).contiguous(), (zero + one).expand(2, -1).contiguous()


@each_backend
def test_surrogate_far_from_the_threshold(backend: ModuleType) -> None:
    infinity = torch.inf
    u = torch.tensor([-infinity, -1e38, -1e4, -20.0, 0.0, 20.0, 1e4, 1e38, infinity])
    u, theta = on(backend, u.view(1, -1, 1), torch.zeros(1))
    g = backend.grad_input(torch.ones_like(u), u, theta, 4.0, *[None] * 6).flatten().cpu()
    assert g[[0, 1, 2, 6, 7, 8]].abs().max() <= 1e-30
    tail = 4 * torch.exp(torch.tensor(-80.0, dtype=torch.float64))
    torch.testing.assert_close(g[[3, 5]].double(), tail.expand(2), rtol=1e-5, atol=0)
    assert g[4] == 1


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("levels", [1, 3, 4, 16])
def test_bytes(backend: ModuleType, levels: int, layout: str, dtype: torch.dtype) -> None:
    if levels == 3 and dtype == torch.bfloat16:
        return  # a third in bfloat16 is for the GPU, see BFLOAT16
    most = 255 if dtype == torch.float32 else 128  # bfloat16 has 8 bits
    counts = torch.randint(most + 1, (3, 2, 5, 4, 7))
    # Divided on the CPU: CUDA multiplies by the rounded inverse of a scalar.
    (x,) = on(backend, laid_out((counts / levels).to(dtype), layout))
    packed = backend.pack(x, levels)
    assert packed.dtype == torch.uint8
    expected = counts[:1].expand(counts.shape) if layout == "still" else counts
    assert torch.equal(packed.cpu(), expected.byte())
    if layout in ("contiguous", "channels last", "transposed"):
        assert packed.stride() == x.stride()
    back = backend.unpack(packed, levels, dtype)
    assert back.dtype == dtype
    assert torch.equal(back, x)


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape", [(3, 200, 6, 4), (2, 3, 7, 5), (2, 64, 33, 2), (1, 8, 3, 9), (0, 3, 4, 4)], ids=str
)
def test_pooling(
    backend: ModuleType, shape: tuple[int, ...], layout: Any, dtype: torch.dtype
) -> None:
    x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    y = backend.pool(*on(backend, x))
    exact = torch.empty(*shape[:2], *(side // 2 for side in shape[2:]), dtype=torch.float64)
    for row, column in itertools.product(range(exact.shape[2]), range(exact.shape[3])):
        window = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        exact[:, :, row, column] = window.double().mean((2, 3))
    rel = BFLOAT16 if dtype == torch.bfloat16 else 1e-6
    assert y.dtype == dtype
    assert_near(y.cpu(), exact, rel=rel)
    grad = torch.randn(exact.shape).to(dtype).contiguous(memory_format=layout)
    back = backend.unpool(*on(backend, grad), x.shape).cpu()
    expected = torch.zeros(shape, dtype=dtype)  # a row or column too many has no gradient
    spread = (grad / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected[:, :, : spread.shape[2], : spread.shape[3]] = spread
    assert torch.equal(back, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spikes", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("currents", [torch.float32, torch.bfloat16])
def test_outputs_of_any_layout_and_type_on_a_cpu(
    currents: torch.dtype, spikes: torch.dtype, layout: str
) -> None:
    """And nothing is written beside them."""
    shape = (1, 3, 6, 5, 4)
    x = torch.randn(shape).to(currents)[0]
    memory = torch.full((2, x.numel() * 4), 7.0).to(spikes)
    fired = memory[0, : x.numel()].view(x.shape)
    u = laid_out(torch.zeros(shape), layout)[0]
    scale, shift = torch.rand(6, 2)[:, 0], torch.rand(6, dtype=torch.float64)
    before, theta = torch.rand(shape, dtype=torch.float64)[0], torch.tensor(0.5).double()
    how = {"leak": 0.5, "zero_reset": False, "statistics": False}
    cpu.charge(x, scale, shift, before, theta, out=u, spikes=fired, fire_at=0.25, **how)
    exact = torch.empty(x.shape, dtype=torch.float64)
    reference.charge(x.double(), scale.double(), shift, before, theta, out=exact, **how)
    assert_near(u, exact)
    assert torch.equal(fired, (u >= 0.25).to(spikes))
    cpu.fire(u, theta, fired)
    assert torch.equal(fired, (u >= 0.5).to(spikes))
    assert (memory[0, x.numel() :] == 7).all()
    assert (memory[1] == 7).all()


def test_other_types_are_refused_on_a_cpu() -> None:
    x, half = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float16)
    with pytest.raises(TypeError, match="float64"):
        cpu.fire(x, torch.tensor(0.0), x.double())
    with pytest.raises(TypeError, match="float16"):
        cpu.charge(half, *[None] * 4, out=x, **ONE_STEP)
    with pytest.raises(TypeError, match="float64"):
        cpu.charge(x, *[None] * 4, out=x.double(), **ONE_STEP)


@pytest.mark.skipif(cuda is None, reason="no Triton")
@pytest.mark.parametrize("device", [pytest.param("cpu" if INTERPRETED else "cuda", marks=ON_GPU)])
def test_steps_that_lie_apart_are_not_copied(device: str) -> None:
    """Steps of a longer buffer, further apart than 32 bits can count."""
    apart = 2**31 + 8
    # Memory that is never touched is never allocated.
    buffer = torch.empty(apart + 64, dtype=torch.bfloat16, device=device)
    x = buffer.as_strided((2, 4, 3, 2, 2), (apart, 12, 1, 6, 3))
    x.copy_(torch.randn(2, 4, 3, 2, 2))
    assert cuda_tiles.rows_of(x).data_ptr() == x.data_ptr()
    for ours, exact in zip(cuda.moments(x), reference.moments(x.double()), strict=True):
        assert_near(ours, exact)
