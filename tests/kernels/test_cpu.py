"""The C kernels against plain torch in float64, and their gradient against autograd's."""

import ctypes
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steadyspike.kernels import compiled, cpu, reference

BFLOAT16 = 2**-8  # half a unit in the last place, relative, and room for what is stored twice


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """A layer's tensors: currents far from zero or not, of any shape and layout."""
    steps, batch = draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 2, 5]))
    channels = draw(st.sampled_from([1, 3, 8, 17, 64]))
    places = draw(st.sampled_from([(), (1, 1), (3, 5), (8, 8), (33, 9)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = random(steps, batch, channels, *places) * 2 + draw(st.sampled_from([0.0, 30.0]))
    u, grad = random(*x.shape), random(*x.shape)
    if places and draw(st.booleans()):
        x, u, grad = (_channels_last(each) for each in (x, u, grad))
    if draw(st.booleans()):
        x, grad = x.bfloat16(), grad.bfloat16()
    k = {name: random(steps, channels) for name in ("mean", "a", "b", "c", "scale", "shift")}
    return {"x": x, "u": u, "grad": grad, **k, "std": random(steps, channels).abs() + 0.1}


def _channels_last(x: Tensor) -> Tensor:
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def assert_near(ours: Tensor, exact: Tensor, scale: float = 0.0, rel: float = 1e-5) -> None:
    """Within ``rel`` of the greatest exact number, or of what was added up to it."""
    assert ours.shape == exact.shape
    if exact.numel():
        bound = rel * max(float(exact.abs().max()), scale, 1e-3)
        assert float((ours.double() - exact).abs().max()) <= bound


@given(layers())
def test_moments(layer: dict[str, Any]) -> None:
    x = layer["x"]
    mean, var = cpu.moments(x)
    exact_mean, exact_var = reference.moments(x.double())
    assert_near(mean, exact_mean)
    assert_near(var, exact_var)


@given(layers(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_charge(
    layer: dict[str, Any], zero_reset: bool, first: bool, affine: bool, statistics: bool
) -> None:
    x, before = layer["x"][0], None if first else layer["u"][0]
    scale, shift = (layer[name][0] if affine else None for name in ("scale", "shift"))
    threshold = None if first else torch.tensor(0.3)
    given_ = {"leak": 0.4, "zero_reset": zero_reset, "statistics": statistics}
    out, fired = torch.empty_like(layer["u"][0]), torch.empty_like(x)
    sums = cpu.charge(
        x, scale, shift, before, threshold, out=out, spikes=fired, fire_at=0.5, **given_
    )
    wide = [None if t is None else t.double() for t in (x, scale, shift, before, threshold)]
    exact = torch.empty_like(out, dtype=torch.float64)
    exact_sums = reference.charge(*wide, out=exact, **given_)
    assert_near(out, exact)
    assert torch.equal(fired, (out >= 0.5).to(x.dtype))
    if not statistics:
        assert sums is None
        return
    assert sums is not None
    assert exact_sums is not None
    assert_near(sums[0], exact_sums[0], scale=float(exact.abs().max()) if exact.numel() else 0)
    assert_near(sums[1], exact_sums[1])


@given(layers())
def test_fire(layer: dict[str, Any]) -> None:
    u = layer["u"][0]
    if u.numel():
        u[(0,) * u.dim()] = 0.25  # just at the threshold
    out = torch.empty_like(layer["x"][0])
    cpu.fire(u, torch.tensor(0.25), out)
    assert torch.equal(out, (u >= 0.25).to(out.dtype))


@given(layers(), st.booleans(), st.sampled_from([1.0, 4.0, 40.0]))
def test_gradient(layer: dict[str, Any], norm_alone: bool, slope: float) -> None:
    x, grad, u = layer["x"], layer["grad"], None if norm_alone else layer["u"]
    thresholds = torch.linspace(-0.5, 0.5, len(x))
    given_ = (grad, u, thresholds, slope, x, layer["mean"], layer["std"])
    wide = [None if t is None else t.double() if isinstance(t, Tensor) else t for t in given_]
    rel = 1e-5
    terms = x[0].numel() / x.shape[2] * slope
    normalized = float((x.double().abs().max() + 4) / layer["std"].min()) if x.numel() else 1
    for ours, exact, size in zip(
        cpu.grad_sums(*given_), reference.grad_sums(*wide), (1, normalized), strict=True
    ):
        assert_near(ours, exact, scale=math.sqrt(terms) * size)
    coefficients = [layer[name] for name in "abc"]
    ours = cpu.grad_input(*given_, *coefficients)
    exact = reference.grad_input(*wide, *(each.double() for each in coefficients))
    assert ours.dtype == x.dtype
    rel = BFLOAT16 if x.dtype == torch.bfloat16 else rel
    assert_near(ours, exact, rel=rel)
    nothing = (None,) * 6
    ours = cpu.grad_input(grad, u, thresholds, slope, *nothing)
    exact = reference.grad_input(*wide[:4], *nothing)
    assert_near(ours, exact, rel=rel)


def test_gradient_of_a_written_out_layer() -> None:
    """Batch normalization, then k σ(k (u - θ)) as the derivative of a step: by autograd."""
    x = torch.randn(1, 6, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in "wb")
    over, at = (0, 1, 3, 4), (1, 1, -1, 1, 1)
    mean, var = x.mean(over), x.var(over, unbiased=False)
    std = (var + 1e-4).sqrt()
    u = (x - mean.view(at)) / std.view(at) * weight.view(at) + bias.view(at)
    grad = torch.randn_like(x)
    expected = torch.autograd.grad((torch.sigmoid(4 * (u - 0.7)) * grad).sum(), [x, weight, bias])
    given_ = [
        t.detach().float() if isinstance(t, Tensor) else t
        for t in (grad, u, torch.tensor([0.7]), 4.0, x, mean[None], std[None])
    ]
    total, dot = cpu.grad_sums(*given_)
    assert_near(dot[0], expected[1])
    assert_near(total[0], expected[2])
    a = (weight / std)[None].float().detach()
    count = x.numel() / 5
    ours = cpu.grad_input(*given_, a, -a * total / count, -a * dot / count)
    assert_near(ours, expected[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("levels", [1, 4, 16, 255])
def test_bytes(levels: int, dtype: torch.dtype) -> None:
    most = 255 if dtype == torch.float32 else min(255, 128)  # what bfloat16 tells apart
    x = (torch.arange(most + 1) / levels).to(dtype).repeat(40)
    x = x[: 8 * (len(x) // 8)].view(2, 4, -1, 1).contiguous(memory_format=torch.channels_last)
    if dtype == torch.bfloat16 and levels == 255:
        return  # 1/255 is no number of bfloat16
    packed = cpu.pack(x, levels)
    assert packed.dtype == torch.uint8
    assert packed.stride() == x.stride()
    assert torch.equal(cpu.unpack(packed, levels, dtype), x)


def test_what_is_no_number_stays_none() -> None:
    x = torch.randn(1, 4, 3, 5, 5)
    x[0, 1, 2, 3, 4] = math.nan
    mean, var = cpu.moments(x)
    assert mean.isnan().tolist() == var.isnan().tolist() == [[False, False, True]]
    u = torch.empty_like(x[0])
    sums = cpu.charge(
        x[0], None, None, None, None, leak=0.5, zero_reset=False, out=u, statistics=True
    )
    assert sums is not None
    assert sums.isnan().all()
    grad = torch.ones_like(x)
    assert cpu.grad_input(grad, u[None], torch.zeros(1), 4.0, *(None,) * 6).isnan().sum() == 1
    low = torch.tensor([math.nan, math.inf, -math.inf, 3e38]).bfloat16().view(1, 1, 4)
    same = cpu.grad_input(
        low, None, torch.zeros(1), 4.0, torch.zeros_like(low),
        *(torch.full((1, 4), each) for each in (0.0, 1.0, 1.0, 0.0, 0.0)),
    )  # fmt: skip
    assert torch.equal(same.nan_to_num(7.0, 8.0, 9.0), low.nan_to_num(7.0, 8.0, 9.0))


def everything(threads: int) -> list[Tensor]:
    """Every kernel on a layer of many blocks."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(3)
        x, grad = (_channels_last(torch.randn(2, 9, 40, 31, 17) + 1) for _ in "xg")
        vectors = [torch.rand(2, 40) + 0.1 for _ in range(5)]
        mean, var = cpu.moments(x)
        u = torch.empty_like(x)
        sums = []
        state: tuple[Tensor | None, Tensor | None] = (None, None)
        for k in range(2):
            sums.append(
                cpu.charge(
                    x[k], mean[k], var[k], *state, leak=0.5, zero_reset=False, out=u[k],
                    statistics=True,
                )
            )  # fmt: skip
            state = u[k], torch.tensor(1.5)
        given_ = (grad, u, torch.tensor([1.0, 1.5]), 4.0, x, mean, var)
        return [mean, var, u, *sums, *cpu.grad_sums(*given_), cpu.grad_input(*given_, *vectors[:3])]
    finally:
        torch.set_num_threads(before)


def test_the_same_bits_by_any_number_of_threads() -> None:
    one = everything(1)
    for threads in (2, 3, 5):
        for a, b in zip(one, everything(threads), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("flags", [("-O1",), ("-O3",), ("-O2", "-mavx512f"), ("-O3", "-mno-avx2")])
def test_the_same_bits_by_any_compilation(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another vector width, or none; run where this machine can."""
    expected = everything(1)
    if "-mavx512f" in flags and "avx512f" not in Path("/proc/cpuinfo").read_text():
        return
    path = tmp_path / "other.so"
    own = [flag for flag in compiled.FLAGS if not flag.startswith("-O")]
    subprocess.run(
        ["cc", *own, *flags, "-shared", str(compiled.SOURCE), "-o", str(path), "-lm"], check=True
    )
    cpu._functions.cache_clear()
    monkeypatch.setattr(cpu, "library", lambda _: ctypes.CDLL(str(path)))
    try:
        for a, b in zip(expected, everything(1), strict=True):
            assert torch.equal(a, b)
    finally:
        cpu._functions.cache_clear()


def test_torchs_own_threads_do_the_work() -> None:
    """No second pool of threads that would compete with the first."""
    torch.set_num_threads(2)
    try:
        torch.randn(1000, 1000).exp()  # torch's are awake
        before = len(list(Path("/proc/self/task").iterdir()))
        everything(2)
        assert len(list(Path("/proc/self/task").iterdir())) <= before
    finally:
        torch.set_num_threads(1)
