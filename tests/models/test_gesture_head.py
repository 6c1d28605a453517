"""VGGSNN's head for DVS-Gesture: two hidden spiking layers with a scale and dropout."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.models import VGGSNN
from steadyspike.models.blocks import StepDropout
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR


def tiny(**options: Any) -> VGGSNN:
    torch.manual_seed(1)
    model = VGGSNN(2, 3, widths=(4, "P", 5), head="gesture", head_widths=(40, 30), **options)
    with torch.no_grad():  # as new, the tiny network would be silent
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(100)
            elif hasattr(module, "running_var"):
                module.running_var.fill_(0.05)
    return model.double()


def clip(steps: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, 6, 2, 8, 8, generator=generator, dtype=torch.float64) * 2


def test_has_two_hidden_layers_of_1024() -> None:
    with torch.device("meta"):
        plain, gesture = VGGSNN(2, 11), VGGSNN(2, 11, head="gesture")
    parameters = {model: sum(p.numel() for p in model.parameters()) for model in (plain, gesture)}
    assert parameters[plain] == 9_231_051
    # weight and bias of each linear layer, γ and β of each hidden one
    more = (512 + 1 + 2) * 1024 + (1024 + 1 + 2) * 1024 + (1024 + 1) * 11 - (512 + 1) * 11
    assert parameters[gesture] == parameters[plain] + more
    assert gesture.classifier.in_features == 1024
    assert sum(isinstance(module, LIF) for module in gesture.modules()) == 10
    assert sum(isinstance(module, OSR) for module in gesture.modules()) == 10


def test_infers_as_computed_step_by_step() -> None:
    model = tiny(stabilize_threshold=False).eval()
    frames = clip()
    with torch.no_grad():
        x = model.features(frames).mean((3, 4))
        for layer in (hidden.layer for hidden in model.hidden):
            u, steps = torch.zeros(1, dtype=torch.float64), []
            for step in F.linear(x, layer.linear.weight, layer.linear.bias):
                u = u / 2 + step / math.sqrt(0.05 + 1e-4)  # γ 1, β 0, μ̂ 0
                spikes = (u >= 1).double()
                u = u - spikes
                steps.append(2.74 * spikes)
            x = torch.stack(steps)
            assert 0.05 < (x > 0).double().mean() < 0.95
        want = F.linear(x, model.classifier.weight, model.classifier.bias)
        torch.testing.assert_close(model(frames), want, rtol=1e-9, atol=1e-11)


def test_starts_as_released() -> None:
    model = VGGSNN(2, 11, widths=(8,), head="gesture")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.15)
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert module.bias is not None
            assert not module.bias.any()


@pytest.mark.parametrize("norm", ["osr", "per_step", "linear", "batch"])
def test_chunks_change_nothing(norm: str) -> None:
    def trained(k: int) -> dict[str, Tensor]:
        model = tiny(norm=norm, dropout=0.1)
        torch.manual_seed(3)
        with sequence(model, steps=4):
            for chunk in clip().split(k):
                model(chunk).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        return {**gradients, **dict(model.named_buffers())}

    one = trained(1)
    assert one["hidden.0.layer.linear.weight"].any()
    for k in (3, 4):
        for name, value in trained(k).items():
            torch.testing.assert_close(value, one[name], rtol=1e-9, atol=1e-11, msg=name)


def test_spikes_leave_a_hidden_layer_scaled_and_half_of_them_dropped() -> None:
    model = tiny()
    seen: list[Tensor] = []
    model.hidden[0].register_forward_hook(lambda _, args, out: seen.append(out.detach()))
    with sequence(model, steps=4):
        model(clip())
    assert seen[0].unique().tolist() == pytest.approx([0, 2.74 / 0.5])
    model.eval()(clip())
    assert seen[1].unique().tolist() == pytest.approx([0, 2.74])


def test_dropout_differs_between_steps_and_presentations_and_repeats_with_the_seed() -> None:
    drop = StepDropout(0.5)
    ones = torch.ones(3, 2000, dtype=torch.float64)

    def presented() -> Tensor:
        with sequence(drop, steps=3):
            return torch.cat([drop(ones[:1]), drop(ones[1:])])

    torch.manual_seed(7)
    first, second = presented(), presented()
    assert set(first.unique().tolist()) == {0.0, 2.0}
    masks = [*first, *second]
    for i, mask in enumerate(masks):
        assert mask.mean().item() == pytest.approx(1, abs=0.15)
        for other in masks[:i]:  # independent: they agree in half of the places
            assert (mask == other).double().mean().item() == pytest.approx(0.5, abs=0.08)
    torch.manual_seed(7)
    assert torch.equal(presented(), first)
    with pytest.raises(ValueError, match="below 1"):
        StepDropout(1.0)


def test_impossible_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="'linear' or 'gesture', not 'spiking'"):
        VGGSNN(2, 3, head="spiking")  # type: ignore[arg-type]
