"""The other libraries' networks are our network, as far as the notes say."""

import pytest
import torch
from torch import Tensor, nn

from steadyspike.bench import peers, training_step
from steadyspike.bench.frameworks import PEERS
from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import Variants, online
from steadyspike.models import build
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import PerStepBatchNorm
from steadyspike.snn.sequence import sequence

SETTING = Setting(image=(3, 8, 8), widths=(4, "P", 6), steps=3, chunk=3, batch=5)
LAYERS = (nn.Conv2d, nn.Linear)
NAMES = [peer.factory.partition(":")[2] for peer in PEERS if not peer.cuda_only]


def variants(name: str, setting: Setting = SETTING) -> Variants:
    pytest.importorskip(name.partition("_")[0])
    found: Variants = getattr(peers, name)(setting)
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_trains_our_layers_from_our_weights(name: str, precision: str) -> None:
    found = variants(name, SETTING.but(precision=precision))
    assert set(found) == {"channels last", "contiguous"}
    (make_ours,) = online(SETTING).values()
    ours = [module for module in make_ours().model.modules() if isinstance(module, LAYERS)]
    for make in found.values():
        step = make()
        theirs = [module for module in step.model.modules() if isinstance(module, LAYERS)]
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine.weight, other.weight)
        step.run()
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.isfinite(other.weight).all()
            assert not torch.equal(mine.weight, other.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_begins_with_membranes_at_rest(name: str) -> None:
    step = next(iter(variants(name).values()))()
    step.model.eval()  # so that running statistics stay
    first, second = ([loss.item() for loss in step.losses()] for _ in range(2))
    assert first == second


def test_both_memory_layouts_train_alike() -> None:
    weights = []
    for make in variants("spikingjelly_bptt").values():
        step = make()
        step.run()
        weights.append(list(step.model.parameters()))
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("node", ["LIFNode", "SLTTLIFNode"])
def test_spikingjellys_neuron_is_ours_and_so_is_its_gradient(node: str) -> None:
    pytest.importorskip("spikingjelly")
    theirs = peers.spikingjelly_neuron(node)
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rule", "node", "norm"),
    [
        ("ottt", "OTTTLIFNode", "per_step"),
        ("ottt", "OTTTLIFNode", "ws"),
        ("sltt", "SLTTLIFNode", "per_step"),
    ],
)
def test_spikingjellys_rules_have_our_gradients(rule: str, node: str, norm: str, seed: int) -> None:
    """Of random networks with poolings, in float64, with their batch norm or standardization."""
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    torch.manual_seed(seed)
    widths: tuple[int | str, ...] = (int(torch.randint(3, 9, ())), "P", 7, int(seed) + 4)
    setting = SETTING.but(image=(2, 8, 8), widths=widths)
    parts = peers.spikingjelly_layers(setting, node)
    if norm == "ws":
        parts = standardized(parts, node)
    theirs = (layer.OTTTSequential if rule == "ottt" else nn.Sequential)(*parts).double()
    ours = build(
        "vggsnn", in_channels=2, num_classes=10, widths=widths, norm=norm,
        stabilize_threshold=False, rule=rule,
    ).double()  # fmt: skip
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-4
        if isinstance(module, nn.BatchNorm2d | layer.WSConv2d):
            nn.init.normal_(module.bias, 0.5, 0.3)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.shape == other.shape
        mine.data.copy_(other.data)
    clip = 2 * torch.randn(5, 4, 2, 8, 8, dtype=torch.float64)
    labels = torch.arange(4)
    functional.reset_net(theirs)
    for frames in clip:
        logits = theirs(frames)[None]
        tet_loss(logits, labels, steps=5, mse_weight=0.05).backward()
    with sequence(ours, steps=5):
        tet_loss(ours(clip), labels, steps=5, mse_weight=0.05).backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-9)
    assert ours.classifier.weight.grad.abs().max() > 1e-3


def standardized(parts: list[nn.Module], node: str) -> list[nn.Module]:
    """Without norms: weights are standardized and spikes scaled, as in their OTTT network."""
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    found: list[nn.Module] = []
    for part in parts:
        if isinstance(part, nn.Conv2d):
            found.append(layer.WSConv2d(part.in_channels, part.out_channels, 3, padding=1))
        elif not isinstance(part, nn.BatchNorm2d):
            found.append(part)
        if type(part).__name__ == node:
            found.append(Scaled())
    return found


class Scaled(nn.Module):
    def forward(self, spikes: Tensor) -> Tensor:
        return 2.74 * spikes


@pytest.mark.parametrize("rule", ["ottt", "sltt"])
def test_our_row_does_what_spikingjellys_does(rule: str) -> None:
    """From the same weights both find the same losses, with per-step batch normalization."""
    (make,) = getattr(training_step, rule)(SETTING.but(chunk=1)).values()
    ours, theirs = make(), next(iter(variants(f"spikingjelly_{rule}").values()))()
    assert type(ours.model.features[0].norm) is PerStepBatchNorm
    found = []
    for step in (ours, theirs):
        with torch.no_grad():
            found.append([loss.item() for loss in step.losses()])
    assert len(found[0]) == SETTING.steps
    assert found[0] == pytest.approx(found[1], rel=1e-3)  # ε is 1e-4 in ours, 1e-5 in theirs
