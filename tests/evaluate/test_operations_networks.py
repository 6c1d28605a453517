"""Operations of whole networks: against brute force, unchanged by counting, at full size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluate.counts import Map, all_ones, clip, count, every, networks, reached, straight
from no_waiting import no_waiting
from steadyspike.evaluate.operations import OperationCounter, fan_out
from steadyspike.models import VGGSNN
from steadyspike.models.blocks import per_step
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence


def gap(x: Tensor) -> Tensor:
    return x.mean((-2, -1))


def flat_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2).flatten(1)


# For each layer of `networks` with spiking input: the neurons its spikes come from, and the map in
# between. A residual sum has several sources; "max" is the max-pooled stem.
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
def test_each_layer_of_a_network_against_brute_force(name: str) -> None:
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
        assert found[layer].dense_multiply_accumulates == dense, layer
        if layer not in wiring:
            assert found[layer].multiply_accumulates == 4 * dense, layer
            assert found[layer].synaptic_operations == 0, layer
            continue
        want = 0.0
        for source, way in wiring[layer]:
            each = reached(lambda x, way=way, ones=ones: ones(way(x)), spikes[source].shape[2:])
            assert 0 < spikes[source].mean() < 1, source
            want += (spikes[source] * each).sum().item() / 4
        assert found[layer].synaptic_operations == want, layer
        assert found[layer].multiply_accumulates == 0, layer
    assert inputs.keys() == found.keys() > wiring.keys()


def test_full_size() -> None:
    """VGGSNN for 32 by 32 images: connections counted by hand, without those to the padding."""
    model = VGGSNN(3, 10)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    sides = [32, 32, 16, 16, 8, 8, 4, 4]
    shapes = [(layer.in_channels, side, side) for layer, side in zip(layers, sides, strict=False)]
    found = [
        int(fan_out(layer, torch.Size(shape)).sum())
        for layer, shape in zip(layers, [*shapes, (512,)], strict=True)
    ]
    # Of the 3 n taps in a row of n inputs, 2 fall on the padding.
    assert found == [
        *(3 * 64 * 94**2, 64 * 128 * 94**2),
        *(128 * 256 * 46**2, 256 * 256 * 46**2),
        *(256 * 512 * 22**2, 512 * 512 * 22**2),
        *(512 * 512 * 10**2, 512 * 512 * 10**2),
        512 * 10,
    ]


@every
def test_counting_changes_nothing_and_neither_chunks_nor_batches_change_the_count(
    name: str,
) -> None:
    model = networks(stabilize_threshold=False)[name]
    whole = count(model, clip())
    assert count(model, clip(), chunk=1).per_layer() == whole.per_layer()
    assert count(model, clip(), chunk=3, batch=3).per_layer() == whole.per_layer()
    with torch.no_grad():
        want = model(clip())  # outside, not counted
        with whole.counting():
            assert torch.equal(model(clip()), want)
    assert whole.per_layer() == count(model, clip()).per_layer()  # per image
    with pytest.raises(KeyError), whole.counting():
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.gpu
@every
def test_a_gpu_counts_alike_and_does_not_wait(name: str) -> None:
    model = networks(stabilize_threshold=False)[name]
    want = count(model, clip()).per_layer()
    model, frames = model.cuda(), clip().cuda()
    counter = OperationCounter(model, 4)

    def batch() -> None:
        with torch.no_grad(), counter.counting(), sequence(model, 4):
            model(frames)

    batch()  # the first batch copies fan-outs to the device
    with no_waiting():
        batch()
    found = counter.per_layer()
    for layer, counts in want.items():  # a membrane at its threshold may fall on either side
        assert found[layer].model_dump() == pytest.approx(counts.model_dump(), rel=1e-3), layer
