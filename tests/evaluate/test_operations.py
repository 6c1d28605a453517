"""Operations of one synapse layer, against counts by hand and by brute force."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from evaluate.counts import Map, all_ones, count, reached, straight
from steadyspike.evaluate.operations import energy_nanojoule, fan_out
from steadyspike.models.blocks import per_step
from steadyspike.snn.neuron import LIF


class Routed(nn.Module):
    """Neurons that turn frames of 0 and 1 into the same spikes, a route, and a synapse layer."""

    def __init__(self, route: Map, synapse: nn.Module) -> None:
        super().__init__()
        self.neuron = LIF(reset="zero")
        self.route = route
        self.synapse = synapse

    def forward(self, frames: Tensor) -> Tensor:
        spikes = self.neuron(frames)
        assert torch.equal(spikes, frames)
        return per_step(self.synapse, self.route(spikes))


def pooled(spikes: Tensor) -> Tensor:
    return per_step(nn.AvgPool2d(2), spikes)


def spiking_operations(route: Map, synapse: nn.Module, spikes: Tensor) -> float:
    total = count(Routed(route, synapse.to(spikes)), spikes).total()
    assert total.multiply_accumulates == 0
    return float(total.synaptic_operations)


def one_spike(*place: int, size: int) -> Tensor:
    frames = torch.zeros(1, 1, 1, size, size)
    frames[0, 0, 0, *place] = 1
    return frames


# By hand


@pytest.mark.parametrize(
    ("layer", "size", "place", "positions"),
    [
        ({"kernel_size": 3, "padding": 1}, 4, (0, 0), 4),
        ({"kernel_size": 3, "padding": 1}, 4, (2, 1), 9),
        # Outputs are centred on rows and columns 0, 2 and 4.
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5, (0, 0), 1),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5, (3, 1), 4),
        ({"kernel_size": 1, "stride": 2}, 4, (2, 1), 0),
    ],
)
def test_a_spike_costs_its_fan_out(
    layer: dict[str, int], size: int, place: tuple[int, int], positions: int
) -> None:
    conv = nn.Conv2d(1, 5, **layer)
    spikes = one_spike(*place, size=size)
    assert spiking_operations(straight, conv, spikes) == 5 * positions
    # T steps add up, samples share: 3 spikes over 2 samples
    more = torch.cat([torch.cat([spikes, spikes], 1), torch.cat([spikes, 0 * spikes], 1)])
    assert spiking_operations(straight, conv, more) == 1.5 * 5 * positions


def test_a_spike_counts_in_every_window_of_average_pooling_that_it_is_in() -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1)
    spikes = one_spike(2, 1, size=5)  # in two of the four windows
    pool = nn.AvgPool2d(3, 2)
    assert spiking_operations(lambda x: per_step(pool, x), conv, spikes) == 2 * 4 * 3


def test_global_pooling_loses_no_spike() -> None:
    generator = torch.Generator().manual_seed(2)
    for side in (3, 7, 14):  # 1/9, 1/49 and 1/196 are not exact in binary
        spikes = torch.rand(2, 2, 5, side, side, generator=generator).round()
        total = spiking_operations(lambda x: x.mean((-2, -1)), nn.Linear(5, 11), spikes)
        assert total == 11 * spikes.sum().item() / 2


def test_a_sum_of_spikes_counts_each() -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1)
    spikes = one_spike(1, 1, size=4) + one_spike(0, 0, size=4)
    assert spiking_operations(lambda x: x + x, conv, spikes) == 2 * (9 + 4) * 3
    assert spiking_operations(lambda x: pooled(x + x) + pooled(x), conv, spikes) == 3 * 2 * 4 * 3


def test_max_pooling_lets_one_spike_through() -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    spikes = one_spike(1, 1, size=4) + one_spike(0, 0, size=4)
    # (1, 1) lies in all four windows of 4 by 4, (0, 0) in the first alone, with (1, 1)
    assert spiking_operations(lambda x: per_step(pool, x), conv, spikes) == 4 * 4 * 3


@pytest.mark.parametrize(
    "route",
    [
        lambda x: x + 0.5,
        lambda x: x + torch.ones_like(x),
        lambda x: x * torch.full_like(x, 0.5),
        lambda x: x + 2 * x,  # spikes of two values in one tensor
        lambda x: x.add_(0.5),
        lambda x: x.sigmoid(),
        lambda x: per_step(nn.AvgPool2d(2, ceil_mode=True), x),
        lambda x: per_step(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), x),
    ],
)
def test_real_valued_inputs_are_multiplied(route: Map) -> None:
    spikes = torch.ones(3, 2, 1, 4, 4)
    conv = nn.Conv2d(1, 6, 1)
    side = route(spikes.clone()).shape[-1]
    total = count(Routed(route, conv), spikes).total()
    assert total.synaptic_operations == 0
    assert total.multiply_accumulates == 3 * 6 * side**2
    assert total.dense_multiply_accumulates == 6 * side**2


def test_energy() -> None:
    # 0.9 pJ an addition, 3.7 pJ a multiplication
    assert energy_nanojoule(1000, 0) == pytest.approx(0.9)
    assert energy_nanojoule(0, 1000) == pytest.approx(0.9 + 3.7)
    model = nn.Sequential(nn.Linear(3, 5), LIF(reset="zero"), nn.Linear(5, 2))
    nn.init.zeros_(model[0].weight)
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([2.0, 0, 2, 0, 2]))  # three of five spike, at every step
    assert count(model, torch.randn(4, 6, 3)).total().model_dump() == {
        "synaptic_operations": 4 * 3 * 2,
        "multiply_accumulates": 4 * 3 * 5,
        "energy_nanojoule": pytest.approx((24 * 0.9 + 60 * 4.6) / 1000),
        "dense_multiply_accumulates": 3 * 5 + 5 * 2,
    }


# By brute force


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    groups = draw(st.sampled_from([1, 2]))

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    return nn.Conv2d(
        2, 4, pair(1, 4), pair(1, 3), padding=pair(0, 3), dilation=pair(1, 2), groups=groups
    )


@given(convolutions(), st.integers(1, 7), st.integers(1, 7))
def test_fan_out_against_brute_force(conv: nn.Conv2d, height: int, width: int) -> None:
    for axis, size in enumerate((height, width)):
        span = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        assume(size + 2 * int(conv.padding[axis]) >= span)
    want = reached(all_ones(conv), torch.Size((2, height, width)))
    assert torch.equal(fan_out(conv, want.shape), want)


ROUTES: dict[str, Map] = {
    "straight": straight,
    "scaled": lambda x: 2.74 * x,
    "average pooling": pooled,
    "pooled twice and scaled": lambda x: pooled(pooled(x) * 2.74),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("route", list(ROUTES.values()), ids=list(ROUTES))
def test_operations_against_brute_force(route: Map, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    spikes = torch.rand(3, 4, 2, 7, 6, generator=generator).round().to(dtype)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    ones = all_ones(conv)
    each = reached(lambda x: ones(route(x[None])[0]), spikes.shape[2:])
    want = (spikes * each).sum().item() / 4
    assert spiking_operations(route, conv, spikes) == want > 0
