"""The other libraries' networks are the same network, as far as we say."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from steadyspike.bench import ours, work
from steadyspike.bench.setting import Setting
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence

SETTING = Setting(image=(3, 8, 8), widths=(4, "P", 6), steps=3, chunk=3, batch=5)


def peers() -> dict[str, Callable[[Setting], work.Variants]]:
    from steadyspike.bench import peer_snntorch, peer_spikingjelly

    return {
        "bptt": peer_spikingjelly.bptt,
        "ottt": peer_spikingjelly.ottt,
        "sltt": peer_spikingjelly.sltt,
        "leaky": peer_snntorch.leaky,
    }


def offered(name: str) -> work.Variants:
    pytest.importorskip("snntorch" if name == "leaky" else "spikingjelly")
    return peers()[name](SETTING)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["bptt", "ottt", "sltt", "leaky"])
def test_a_peers_step_trains_our_layers_from_our_weights(name: str, precision: str) -> None:
    for make in offered(name).values():
        theirs = make()
        (make_ours,) = ours.online(SETTING).values()
        kinds = (nn.Conv2d, nn.Linear)
        layers = [m for m in theirs.model.modules() if isinstance(m, kinds)]
        own = [m for m in make_ours().model.modules() if isinstance(m, kinds)]
        assert [m.weight.shape for m in layers] == [m.weight.shape for m in own]
        before = [layer.weight.detach().clone() for layer in layers]
        work.train_step(theirs)
        for layer, weight in zip(layers, before, strict=True):
            assert torch.isfinite(layer.weight).all()
            assert not torch.equal(layer.weight, weight)
    assert set(offered(name)) == {"channels last", "contiguous"}


@pytest.mark.parametrize("name", ["bptt", "ottt", "sltt", "leaky"])
def test_a_step_begins_from_resting_membranes(name: str) -> None:
    """Twice the same batch gives twice the same loss: nothing is left of the first time."""
    theirs = next(iter(offered(name).values()))()
    theirs.model.eval()  # so that running statistics stay; OTTT then shows no trace
    losses = [[loss.item() for loss in theirs.losses()] for _ in range(2)]
    assert losses[0] == losses[1]


def test_the_layouts_train_alike() -> None:
    weights = []
    for make in offered("bptt").values():
        theirs = make()
        work.train_step(theirs)
        weights.append([parameter.detach().clone() for parameter in theirs.model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("node", ["LIFNode", "SLTTLIFNode"])
def test_spikingjellys_neuron_is_ours_and_so_is_its_gradient(node: str) -> None:
    pytest.importorskip("spikingjelly")
    from steadyspike.bench.peer_spikingjelly import NEURON, _Library

    library = _Library()
    theirs = getattr(library.neuron, node)(
        **NEURON, surrogate_function=library.surrogate.Sigmoid(4.0), detach_reset=True
    )
    currents = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    spikes = torch.stack([theirs(current) for current in currents])
    weights = torch.randn_like(spikes)
    (grad,) = torch.autograd.grad((spikes * weights).sum(), currents)
    lif = LIF(online=node == "SLTTLIFNode")
    with sequence(lif, steps=4):
        own = lif(currents)
    (own_grad,) = torch.autograd.grad((own * weights).sum(), currents)
    assert torch.equal(own, spikes)
    torch.testing.assert_close(own_grad, grad)
