"""Synaptic operations and multiply-accumulates against hand counts and a count by brute force.

By brute force: with all weights one, a spike put alone on an input changes as many outputs as it
causes operations.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from no_waiting import NoReading, no_waiting
from steadyspike.evaluate.operations import Operations, energy_nanojoule, fan_out
from steadyspike.models import VGGSNN, NFResNet34, ResNet19, SEWResNet34
from steadyspike.models.blocks import per_step
from steadyspike.neuron import LIF
from steadyspike.sequence import sequence

Map = Callable[[Tensor], Tensor]


class Routed(nn.Module):
    """Neurons that pass frames of 0 and 1 on as spikes, a route, and a synapse layer."""

    def __init__(self, route: Map, synapse: nn.Module) -> None:
        super().__init__()
        self.neuron = LIF(reset="zero")
        self.route = route
        self.synapse = synapse

    def forward(self, frames: Tensor) -> Tensor:
        spikes = self.neuron(frames)
        assert torch.equal(spikes, frames)
        return per_step(self.synapse, self.route(spikes))


def straight(spikes: Tensor) -> Tensor:
    return spikes


def pooled(spikes: Tensor) -> Tensor:
    return per_step(nn.AvgPool2d(2), spikes)


def count(model: nn.Module, frames: Tensor, chunk: int | None = None, batch: int = 100) -> Any:
    """The operations of ``model`` over frames (T, N, ...), in batches and chunks of steps."""
    operations = Operations(model.eval(), len(frames))
    with torch.no_grad():
        for part in frames.split(batch, dim=1):
            with operations.counted(part.shape[1]), sequence(model, len(frames)):
                for steps in part.split(chunk or len(frames)):
                    model(steps)
    return operations


def spiking_operations(route: Map, synapse: nn.Module, spikes: Tensor) -> float:
    summary = count(Routed(route, synapse.to(spikes)), spikes).summary()
    assert summary["multiply_accumulates"] == 0
    return float(summary["synaptic_operations"])


def one_spike(*place: int, size: int) -> Tensor:
    frames = torch.zeros(1, 1, 1, size, size)
    frames[0, 0, 0, *place] = 1
    return frames


def reached(way: Map, shape: torch.Size) -> Tensor:
    """How many outputs of a linear ``way`` from spikes (N, ...) each of them changes, alone."""
    ones = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return way(ones).flatten(1).count_nonzero(1).reshape(shape)


def all_ones(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer).double()
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


# By hand


@pytest.mark.parametrize(
    ("layer", "size", "place", "positions"),
    [
        ({"kernel_size": 3, "padding": 1}, 4, (0, 0), 4),
        ({"kernel_size": 3, "padding": 1}, 4, (0, 1), 6),
        ({"kernel_size": 3, "padding": 1}, 4, (2, 1), 9),
        ({"kernel_size": 3}, 4, (0, 0), 1),
        # Outputs are centred on rows and columns 0, 2 and 4.
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5, (0, 0), 1),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5, (0, 1), 2),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5, (3, 1), 4),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 5, (2, 2), 1),
        ({"kernel_size": 1, "stride": 2}, 4, (2, 0), 1),
        ({"kernel_size": 1, "stride": 2}, 4, (2, 1), 0),
        # A row of 7 with a kernel of 7 and stride 2: outputs centred on 0, 2, 4, 6.
        ({"kernel_size": 7, "padding": 3, "stride": 2}, 7, (0, 3), 2 * 4),
        # Taps two apart: a corner reaches itself and the outputs two away.
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, 5, (0, 0), 4),
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, 5, (2, 2), 9),
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


def test_a_convolution_in_groups_reaches_the_channels_of_its_own() -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    spikes = torch.zeros(1, 1, 4, 3, 3)
    spikes[0, 0, 1, 1, 1] = 1
    assert spiking_operations(straight, conv, spikes) == 9 * 3
    assert count(Routed(straight, conv), spikes).summary()["dense_multiply_accumulates"] == (
        4 * 3 * 49  # 7 taps fall inside a row of 3, and 7 inside a column
    )


def test_all_spikes_of_a_pooling_window_count_and_those_left_out_do_not() -> None:
    conv = nn.Conv2d(1, 3, 3, padding=1)
    spikes = torch.zeros(1, 1, 1, 5, 5)
    spikes[..., 0, 0] = spikes[..., 1, 1] = 1  # one window: 2/4
    assert spiking_operations(pooled, conv, spikes) == 2 * 4 * 3
    spikes[..., 4, 0] = spikes[..., 3, 4] = 1  # in the last row and the last column, of no window
    assert spiking_operations(pooled, conv, spikes) == 2 * 4 * 3
    twice = lambda x: pooled(pooled(x))  # noqa: E731
    assert spiking_operations(twice, conv, spikes) == 2 * 1 * 3  # 2/16 on a single position
    overlapping = lambda x: per_step(nn.AvgPool2d(3, 2), x)  # noqa: E731
    spikes = one_spike(2, 1, size=5)  # in two of the four windows
    assert spiking_operations(overlapping, conv, spikes) == 2 * 4 * 3


def test_global_pooling_brings_every_spike() -> None:
    generator = torch.Generator().manual_seed(2)
    for side in (3, 7, 14):  # 1/9, 1/49 and 1/196 are no numbers of a computer
        spikes = torch.rand(2, 2, 5, side, side, generator=generator).round()
        total = spiking_operations(lambda x: x.mean((-2, -1)), nn.Linear(5, 11), spikes)
        assert total == 11 * spikes.sum().item() / 2


def test_the_gesture_scale_is_no_more_than_a_spike() -> None:
    spikes = torch.zeros(1, 1, 40)
    spikes[..., :7] = 1
    assert spiking_operations(lambda x: x * 2.74, nn.Linear(40, 11), spikes) == 7 * 11
    assert spiking_operations(lambda x: 2.74 * x, nn.Linear(40, 11), spikes) == 7 * 11


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
        lambda x: x + 2 * x,  # spikes of two worths in one tensor
        lambda x: x.clone().add_(0.5),
        lambda x: x.sigmoid(),
        lambda x: per_step(nn.AvgPool2d(2, ceil_mode=True), x),
        lambda x: per_step(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), x),
    ],
)
def test_what_is_no_number_of_spikes_is_multiplied(route: Map) -> None:
    spikes = torch.ones(3, 2, 1, 4, 4)
    conv = nn.Conv2d(1, 6, 1)
    summary = count(Routed(route, conv), spikes).summary()
    side = route(spikes).shape[-1]
    assert summary["synaptic_operations"] == 0
    assert summary["multiply_accumulates"] == 3 * 6 * side**2
    assert summary["dense_multiply_accumulates"] == 6 * side**2


def test_a_tensor_changed_in_place_is_a_number_of_spikes_no_more() -> None:
    def route(spikes: Tensor) -> Tensor:
        return spikes.add_(0.5)

    model = Routed(route, nn.Conv2d(1, 6, 1))
    assert count(model, torch.ones(1, 1, 1, 4, 4)).summary()["multiply_accumulates"] == 6 * 16


def test_energy() -> None:
    # 0.9 pJ an addition, 3.7 pJ a multiplication
    assert energy_nanojoule(1000, 0) == pytest.approx(0.9)
    assert energy_nanojoule(0, 1000) == pytest.approx(0.9 + 3.7)
    model = nn.Sequential(nn.Linear(3, 5), LIF(reset="zero"), nn.Linear(5, 2))
    nn.init.zeros_(model[0].weight)
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([2.0, 0, 2, 0, 2]))  # three of five spike, at every step
    assert count(model, torch.randn(4, 6, 3)).summary() == {
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
def test_fan_out_is_what_a_spike_changes(conv: nn.Conv2d, height: int, width: int) -> None:
    for axis, size in enumerate((height, width)):
        span = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        assume(size + 2 * int(conv.padding[axis]) >= span)
    want = reached(all_ones(conv), torch.Size((2, height, width)))
    assert torch.equal(fan_out(conv, height, width), want)


ROUTES: dict[str, Map] = {
    "straight": straight,
    "average pooling": pooled,
    "windows 2 by 3": lambda x: per_step(nn.AvgPool2d((2, 3)), x),
    "summed and copied": lambda x: per_step(nn.AvgPool2d(2, divisor_override=1), x.contiguous()),
    "pooled twice and scaled": lambda x: pooled(pooled(x) * 2.74),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("route", list(ROUTES.values()), ids=list(ROUTES))
def test_operations_are_what_each_spike_changes(route: Map, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    spikes = torch.rand(3, 4, 2, 7, 6, generator=generator).round().to(dtype)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    ones = all_ones(conv)
    each = reached(lambda x: ones(route(x[None])[0]), spikes.shape[2:])
    want = (spikes * each).sum().item() / 4
    assert spiking_operations(route, conv, spikes) == want > 0


def lively(model: nn.Module) -> nn.Module:
    """In double precision, with running variances under which the untrained network spikes."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=3)
            elif hasattr(module, "running_var"):
                module.running_var.fill_(0.2)
    return model.double().eval()


def networks(**options: Any) -> dict[str, nn.Module]:
    torch.manual_seed(1)
    small = dict(widths=(3, 4), blocks=(1, 2), **options)
    return {
        name: lively(model)
        for name, model in {
            "vggsnn": VGGSNN(2, 3, widths=(3, "P", 4, 5), **options),
            "gesture": VGGSNN(
                2, 3, widths=(3, "P", 4), head="gesture", head_widths=(8, 7), **options
            ),
            "resnet19": ResNet19(2, 3, hidden_width=6, image_size=10, **small),
            "sew": SEWResNet34(2, 3, **small),
            "nf": NFResNet34(2, 3, **small),
        }.items()
    }


every = pytest.mark.parametrize("name", ["vggsnn", "gesture", "resnet19", "sew", "nf"])


def clip(steps: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, 4, 2, 10, 10, generator=generator, dtype=torch.float64)


def gap(x: Tensor) -> Tensor:
    return x.mean((-2, -1))


def flat_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2).flatten(1)


# Each spiking synapse layer of `networks`, and where its spikes come from: neurons, and what lies
# between. Those of a residual sum come from every block before, "max" after a pooling of the stem.
WIRING: dict[str, dict[str, list[tuple[str, Map]]]] = {
    "vggsnn": {
        "features.2.conv": [("features.0.neuron", lambda x: F.avg_pool2d(x, 2))],
        "features.3.conv": [("features.2.neuron", straight)],
        "classifier": [("features.3.neuron", gap)],
    },
    "gesture": {
        "features.2.conv": [("features.0.neuron", lambda x: F.avg_pool2d(x, 2))],
        "hidden.0.layer.linear": [("features.2.neuron", gap)],
        "hidden.1.layer.linear": [("hidden.0.layer.neuron", straight)],
        "classifier": [("hidden.1.layer.neuron", straight)],
    },
    "resnet19": {
        "stages.0.0.first.conv": [("stem.neuron", straight)],
        "stages.0.0.conv": [("stages.0.0.first.neuron", straight)],
        "stages.1.0.first.conv": [("stages.0.0.neuron", straight)],
        "stages.1.0.conv": [("stages.1.0.first.neuron", straight)],
        "stages.1.0.shortcut.conv": [("stages.0.0.neuron", straight)],
        "stages.1.1.first.conv": [("stages.1.0.neuron", straight)],
        "stages.1.1.conv": [("stages.1.1.first.neuron", straight)],
        "hidden": [("stages.1.1.neuron", flat_pool)],
    },
    "sew": {
        "stages.0.0.first.conv": [("max", straight)],
        "stages.0.0.second.conv": [("stages.0.0.first.neuron", straight)],
        "stages.1.0.first.conv": [("max", straight), ("stages.0.0.second.neuron", straight)],
        "stages.1.0.second.conv": [("stages.1.0.first.neuron", straight)],
        "stages.1.0.shortcut.conv": [("max", straight), ("stages.0.0.second.neuron", straight)],
        "stages.1.1.first.conv": [
            ("stages.1.0.second.neuron", straight),
            ("stages.1.0.shortcut.neuron", straight),
        ],
        "stages.1.1.second.conv": [("stages.1.1.first.neuron", straight)],
        "classifier": [
            ("stages.1.0.second.neuron", gap),
            ("stages.1.0.shortcut.neuron", gap),
            ("stages.1.1.second.neuron", gap),
        ],
    },
    "nf": {
        f"stages.{block}.{half}.synapse.conv": [(f"stages.{block}.{half}.neuron", straight)]
        for block in ("0.0", "1.0", "1.1")
        for half in ("first", "second")
    },
}


@every
def test_networks_count_what_each_spike_changes(name: str) -> None:
    model = networks(stabilize_threshold=True)[name]
    modules = dict(model.named_modules())
    spikes: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for path, module in modules.items():
        if isinstance(module, LIF):
            module.register_forward_hook(
                lambda _module, _args, out, path=path: spikes.update({path: out})
            )
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda _module, args, _out, path=path: inputs.update({path: args[0]})
            )
    with torch.no_grad():
        model(clip())
    if name == "sew":
        spikes["max"] = per_step(nn.MaxPool2d(3, 2, 1), spikes["stem.neuron"])
    found = count(model, clip()).per_layer()
    wiring = WIRING[name]
    for layer, seen in inputs.items():
        ones = all_ones(modules[layer])
        shape = seen.shape[1:] if isinstance(modules[layer], nn.Conv2d) else seen.shape[-1:]
        dense = reached(ones, shape).sum().item()
        assert found[layer]["dense_multiply_accumulates"] == dense, layer
        if layer not in wiring:
            assert found[layer]["multiply_accumulates"] == 4 * dense, layer
            assert found[layer]["synaptic_operations"] == 0, layer
            continue
        want = 0.0
        for source, way in wiring[layer]:
            each = reached(lambda x, way=way, ones=ones: ones(way(x)), spikes[source].shape[2:])
            assert 0 < spikes[source].mean() < 1, source
            want += (spikes[source] * each).sum().item() / 4
        assert found[layer]["synaptic_operations"] == want, layer
        assert found[layer]["multiply_accumulates"] == 0, layer
    assert inputs.keys() == found.keys() > wiring.keys()


def test_real_valued_layers() -> None:
    real = {
        name: {
            layer
            for layer, found in count(model, clip()).per_layer().items()
            if found["multiply_accumulates"]
        }
        for name, model in networks().items()
    }
    assert real == {
        "vggsnn": {"features.0.conv"},
        "gesture": {"features.0.conv"},
        "resnet19": {"stem.conv", "classifier"},
        "sew": {"stem.conv"},
        "nf": {"stem.conv", "stages.1.0.shortcut.conv", "classifier"},
    }


# Properties


@every
def test_neither_chunks_nor_batches_change_the_count(name: str) -> None:
    model = networks(stabilize_threshold=False)[name]
    whole = count(model, clip()).per_layer()
    assert count(model, clip(), chunk=1).per_layer() == whole
    assert count(model, clip(), chunk=3, batch=3).per_layer() == whole
    assert count(model.float(), clip().float(), chunk=3).summary().keys() == {
        "synaptic_operations",
        "multiply_accumulates",
        "energy_nanojoule",
        "dense_multiply_accumulates",
    }


@every
def test_counting_changes_nothing(name: str) -> None:
    model = networks()[name]
    operations = Operations(model, 4)
    with torch.no_grad():
        want = model(clip())
        with operations.counted(4):
            assert torch.equal(model(clip()), want)
        first = operations.summary()
        model(clip())  # outside, not counted
        with operations.counted(4):
            model(clip())
    assert operations.summary() == first


def test_neurons_that_always_spike_use_every_connection() -> None:
    model = networks(v_threshold=-1e9, reset="zero", stabilize_threshold=False)["nf"]
    for layer in count(model, clip()).per_layer().values():
        assert layer["synaptic_operations"] in (0, 4 * layer["dense_multiply_accumulates"])
    silent = networks(v_threshold=1e9, stabilize_threshold=False)["resnet19"]
    assert count(silent, clip()).summary()["synaptic_operations"] == 0


def test_full_size() -> None:
    """VGGSNN for 32 by 32 images: connections counted by hand, borders taken off."""
    model = VGGSNN(3, 10)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    sides = [32, 32, 16, 16, 8, 8, 4, 4, 1]
    found = [
        int(fan_out(layer, side, side).sum())
        for layer, side in zip(layers.values(), sides, strict=True)
    ]
    # A row of n inputs has 3 n - 2 taps inside.
    assert found == [
        *(3 * 64 * 94**2, 64 * 128 * 94**2),
        *(128 * 256 * 46**2, 256 * 256 * 46**2),
        *(256 * 512 * 22**2, 512 * 512 * 22**2),
        *(512 * 512 * 10**2, 512 * 512 * 10**2),
        512 * 10,
    ]


# Refusals


def test_only_evaluation_mode_is_counted() -> None:
    model = networks()["vggsnn"]
    model.features[0].train()
    with pytest.raises(RuntimeError, match="evaluation mode"), Operations(model, 4).counted(4):
        pass


def test_other_steps_or_samples_than_announced_are_an_error() -> None:
    model = networks()["vggsnn"]
    for steps, samples in ((5, 4), (4, 3), (2, 4)):
        operations = Operations(model, steps)
        message = pytest.raises(RuntimeError, match=r"features\.0\.conv saw 16 inputs")
        with message, torch.no_grad(), operations.counted(samples):
            model(clip())
        assert operations.samples == 0


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_body_that_raises_counts_for_nothing() -> None:
    model = networks()["sew"]
    operations = Operations(model, 4)
    with torch.no_grad():
        with operations.counted(4):
            model(clip())
        want = operations.per_layer()
        interrupted = model.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt), operations.counted(4):
            model(clip())
        interrupted.remove()
    assert operations.per_layer() == want
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "padding", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}]
)
def test_other_paddings_are_refused(padding: dict[str, Any]) -> None:
    model = nn.Sequential(LIF(), nn.Conv2d(1, 1, 3, **padding))
    with pytest.raises(ValueError, match="1: only padding by a number of zeros"):
        Operations(model, 4)


@every
def test_only_the_first_batch_is_waited_for(name: str) -> None:
    model = networks()[name]
    operations = Operations(model, 4)
    with torch.no_grad():
        with operations.counted(4):
            model(clip())
        with NoReading(), operations.counted(4):
            model(clip())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every
def test_a_gpu_counts_alike_and_does_not_wait(name: str) -> None:
    model = networks(stabilize_threshold=False)[name]
    want = count(model, clip()).per_layer()
    model, frames = model.cuda(), clip().cuda()
    operations = Operations(model, 4)

    def batch() -> None:
        with torch.no_grad(), operations.counted(4), sequence(model, 4):
            model(frames)

    batch()  # fan-outs go to the device
    with no_waiting():
        batch()
    found = operations.per_layer()
    for layer, counts in want.items():  # a membrane at its threshold may fall on either side
        assert found[layer] == pytest.approx(counts, rel=1e-3), layer
