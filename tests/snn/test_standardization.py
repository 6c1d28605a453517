"""Scaled weight standardization against its formula, number by number."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn import unrolled
from steadyspike import sequence
from steadyspike.models import build
from steadyspike.snn.neuron import LIF
from steadyspike.snn.standardization import (
    SPIKE_SCALE,
    StandardizedConvolution,
    StandardizedLinear,
    standardized,
)
from steadyspike.train import tet_loss


def by_hand(weight: Tensor, gain: list[float]) -> Tensor:
    out = torch.empty_like(weight)
    for row, values in enumerate(weight.flatten(1).tolist()):
        n = len(values)
        mean = sum(values) / n
        var = sum((value - mean) ** 2 for value in values) / (n - 1)
        scale = gain[row] / math.sqrt(var * n + 1e-4)
        out[row] = torch.tensor([(v - mean) * scale for v in values]).view(weight[row].shape)
    return out


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7)])
def test_the_formula(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, dtype=torch.float64) * 0.1 + 0.5
    gain = torch.rand(shape[0], dtype=torch.float64)
    ours = standardized(weight, gain.view(-1, *[1] * (len(shape) - 1)))
    torch.testing.assert_close(ours, by_hand(weight, gain.tolist()))


def test_layers_use_it() -> None:
    conv, linear = StandardizedConvolution(3, 4, 3, 1, 1), StandardizedLinear(6, 2)
    for layer in (conv, linear):
        nn.init.uniform_(layer.gain)
    x, flat = torch.randn(2, 3, 5, 5), torch.randn(2, 6)
    kernel, weight = (by_hand(each.weight, each.gain.flatten().tolist()) for each in (conv, linear))
    torch.testing.assert_close(conv(x), F.conv2d(x, kernel, conv.bias, padding=1))
    torch.testing.assert_close(linear(flat), F.linear(flat, weight, linear.bias))


@pytest.mark.parametrize("rule", ["sltt", "ottt", "ndot"])
def test_a_networks_gradients(rule: str) -> None:
    """Spikes times 2.74, weights standardized, no norm: written out in plain torch."""
    torch.manual_seed(2)
    model = build(
        "vggsnn", in_channels=2, num_classes=3, widths=(8, "P", 8), norm="ws",
        stabilize_threshold=False, rule=rule,
    ).double()  # fmt: skip
    clip = 3 * torch.randn(4, 4, 2, 8, 8, dtype=torch.float64)
    labels = torch.arange(4) % 3
    with sequence(model, steps=4):
        tet_loss(model(clip), labels, steps=4, mse_weight=0.05).backward()
    # The same function with the factor in the weights behind spikes, as another network's.
    leaves = dict(model.named_parameters())
    plain: Any = build(
        "vggsnn", in_channels=2, num_classes=3, widths=(8, "P", 8), norm="per_step",
        stabilize_threshold=False,
    ).double()  # fmt: skip
    for index, factor in ((0, 1.0), (2, SPIKE_SCALE)):
        ours, theirs = model.features[index].conv, plain.features[index].conv
        weight, gain = ours.weight, ours.gain
        mean = weight.mean((1, 2, 3), keepdim=True)
        var = weight.var((1, 2, 3), keepdim=True)
        kernel = factor * gain * (weight - mean) / (var * weight[0].numel() + 1e-4).sqrt()
        del theirs.weight, theirs.bias
        theirs.weight, theirs.bias = kernel, ours.bias
    last = plain.classifier
    del last.weight, last.bias
    last.weight, last.bias = SPIKE_SCALE * model.classifier.weight, model.classifier.bias
    layers = [unrolled.Layer(), unrolled.Layer()]
    loss = torch.zeros(()).double()
    for frames in clip:
        out = unrolled.logits(
            plain, frames, layers, unrolled.DECAYS[rule], norm=lambda _, currents: currents[-1]
        )
        loss = loss + tet_loss(out[None], labels, steps=4, mse_weight=0.05)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    for (name, parameter), theirs in zip(leaves.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, theirs, msg=lambda m, n=name: f"{n}: {m}")
    assert leaves["features.2.conv.weight"].grad.abs().max() > 1e-5


def test_spikes_are_scaled_once() -> None:
    """Also in the gesture head, which scales the spikes of other networks."""
    for norm, scale in (("ws", SPIKE_SCALE), ("osr", 1.0)):
        model = build(
            "vggsnn", in_channels=1, num_classes=2, widths=(4,), norm=norm, head="gesture",
            head_widths=(5,),
        ).eval()  # fmt: skip
        neurons = [module for module in model.modules() if isinstance(module, LIF)]
        assert {neuron.spike_scale for neuron in neurons} == {scale}
        seen: list[Tensor] = []
        model.classifier.register_forward_hook(lambda _m, args, _o, s=seen: s.append(args[0]))
        nn.init.constant_(model.hidden[0].layer.linear.bias, 9)
        with torch.no_grad():
            model(torch.ones(1, 1, 1, 4, 4))
        assert torch.equal(seen[0], torch.full((1, 1, 5), SPIKE_SCALE))
