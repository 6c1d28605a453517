"""The C kernels against plain torch in float64, and their gradient against autograd's."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.cases import BFLOAT16, LAYOUTS, assert_near, laid_out, layers
from steadyspike.kernels import cpu, reference


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
        u = u.clone()
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
@pytest.mark.parametrize("levels", [1, 4, 16, 49, 255])
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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_of_any_layout(layout: str) -> None:
    x = laid_out(torch.randint(0, 200, (3, 2, 5, 4, 7)) / 4, layout)
    packed = cpu.pack(x, 4)
    assert torch.equal(packed, (x * 4).byte())
    if layout in ("contiguous", "channels last", "transposed"):
        assert packed.stride() == x.stride()
    packed = laid_out(packed, layout)
    assert torch.equal(cpu.unpack(packed, 4, torch.float32), x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spikes", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("currents", [torch.float32, torch.bfloat16])
def test_outputs_of_any_layout_and_type(
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
    given_ = {"leak": 0.5, "zero_reset": False, "statistics": False}
    cpu.charge(x, scale, shift, before, theta, out=u, spikes=fired, fire_at=0.25, **given_)
    exact = torch.empty(x.shape, dtype=torch.float64)
    reference.charge(x.double(), scale.double(), shift, before, theta, out=exact, **given_)
    assert_near(u, exact)
    assert torch.equal(fired, (u >= 0.25).to(spikes))
    cpu.fire(u, theta, fired)
    assert torch.equal(fired, (u >= 0.5).to(spikes))
    assert (memory[0, x.numel() :] == 7).all()
    assert (memory[1] == 7).all()


def test_other_types_are_refused() -> None:
    x, half = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float16)
    with pytest.raises(TypeError, match="float64"):
        cpu.fire(x, torch.tensor(0.0), x.double())
    given_ = {"leak": 0.5, "zero_reset": False, "statistics": False}
    with pytest.raises(TypeError, match="float16"):
        cpu.charge(half, None, None, None, None, out=x, **given_)
    with pytest.raises(TypeError, match="float64"):
        cpu.charge(x, None, None, None, None, out=x.double(), **given_)


@pytest.mark.parametrize("channels", [1, 2, 8, 64, 512])
@pytest.mark.parametrize(("mean", "std"), [(1e3, 1e-2), (1e4, 1.0), (-30.0, 1.0)])
def test_statistics_far_from_zero(mean: float, std: float, channels: int) -> None:
    x = torch.randn(1, 8, channels, 32, 16) * std + mean
    for ours, exact in zip(cpu.moments(x), reference.moments(x.double()), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=0)
    given_ = {"leak": 0.5, "zero_reset": False, "statistics": True}
    exact = torch.empty(x.shape[1:], dtype=torch.float64)
    expected = reference.charge(x[0].double(), None, None, None, None, out=exact, **given_)
    ours = cpu.charge(x[0], None, None, None, None, out=torch.empty_like(x[0]), **given_)
    assert ours is not None
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [1, 8, 512])
@pytest.mark.parametrize("value", [0.1, 0.7, -123.4])
def test_equal_numbers_do_not_vary(value: float, channels: int) -> None:
    """However many: a silent layer is told by it."""
    x = torch.full((1, 16, channels, 32, 16), value)
    mean, var = cpu.moments(x)
    assert torch.equal(mean, torch.full_like(mean, value))
    assert not var.any()
    sums = cpu.charge(
        x[0], None, None, None, None, leak=0.5, zero_reset=False, out=torch.empty_like(x[0]),
        statistics=True,
    )  # fmt: skip
    assert sums is not None
    assert sums.tolist() == [float(x[0, 0, 0, 0, 0]), 0]


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
    # What fired is set to zero from wherever it was.
    fired = torch.tensor([[math.inf, 2.0, 0.5]])
    reset = torch.empty_like(fired)
    cpu.charge(
        torch.zeros(1, 3), None, None, fired, torch.tensor(1.0), leak=0.5, zero_reset=True,
        out=reset, statistics=False,
    )  # fmt: skip
    assert reset.tolist() == [[0, 0, 0.25]]
    low = torch.tensor([math.nan, math.inf, -math.inf, 3e38]).bfloat16().view(1, 1, 4)
    same = cpu.grad_input(
        low, None, torch.zeros(1), 4.0, torch.zeros_like(low),
        *(torch.full((1, 4), each) for each in (0.0, 1.0, 1.0, 0.0, 0.0)),
    )  # fmt: skip
    assert torch.equal(same.nan_to_num(7.0, 8.0, 9.0), low.nan_to_num(7.0, 8.0, 9.0))
