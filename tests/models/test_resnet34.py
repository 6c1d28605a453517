"""SEW- and NF-ResNet-34: what a block adds. Their numbers: deploy/test_released.py."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.models import NFResNet34, SEWResNet34
from steadyspike.snn.neuron import LIF
from steadyspike.train import tet_loss

both = pytest.mark.parametrize("kind", [SEWResNet34, NFResNet34])


def narrow(kind: type[nn.Module], **options: Any) -> Any:
    torch.manual_seed(1)
    return kind(2, 3, widths=(4, 4, 6, 8), blocks=(2, 1, 1, 1), **options).double()


def clip(steps: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, 3, 2, 32, 32, generator=generator, dtype=torch.float64)


def trained(model: nn.Module, frames: Tensor, k: int) -> dict[str, Tensor]:
    labels = torch.arange(frames.shape[1])
    with sequence(model, steps=len(frames)):
        for chunk in frames.split(k):
            tet_loss(model(chunk), labels, steps=len(frames), mse_weight=0.05).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}


@both
@pytest.mark.parametrize("norm", ["osr", "per_step", "linear", "batch"])
def test_chunks_change_nothing(kind: type[nn.Module], norm: str) -> None:
    found = [trained(narrow(kind, norm=norm), clip(), k) for k in (1, 3, 4)]
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-11, msg=name)


@both
def test_a_gradient_crosses_steps_in_bptt_alone(kind: type[nn.Module]) -> None:
    for online in (True, False):
        model = narrow(kind, norm="batch", online=online, stabilize_threshold=False)
        frames = clip().requires_grad_()
        with sequence(model, steps=4):
            model(frames)[-1].square().sum().backward()
        assert frames.grad is not None
        assert bool(frames.grad[0].any()) is not online
        assert frames.grad[-1].any()


def lif(currents: Tensor) -> Tensor:
    """Eq. 2-4 step by step, reset by subtraction, θ = 1, τ = 2."""
    u, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        u = u / 2 + current
        spikes.append((u >= 1).double())
        u = u - spikes[-1]
    return torch.stack(spikes)


def synapse(x: Tensor, conv: nn.Conv2d, norm: Any) -> Tensor:
    """Convolution and inference norm, step by step, by the framework's functions."""
    return torch.stack(
        [
            F.batch_norm(
                F.conv2d(step, conv.weight, conv.bias, conv.stride, conv.padding),
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                eps=1e-4,
            )
            for step in x
        ]
    )


def shuffled(model: Any) -> Any:
    """The model with norms unlike their first ones."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.dim() == 1 and len(tensor):
                noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(noise + (0.5 if name.endswith(("weight", "var")) else -0.3))
    return model.eval()


def test_sew_adds_the_shortcuts_spikes() -> None:
    model = shuffled(narrow(SEWResNet34, stabilize_threshold=False))
    frames = clip()
    x = lif(synapse(frames, model.stem.conv, model.stem.norm))
    assert x.shape[-1] == 16
    x = torch.stack([F.max_pool2d(step, 3, 2, 1) for step in x])
    most = []
    for stage in model.stages:
        for block in stage:
            out = x
            for layer in (block.first, block.second):
                out = lif(synapse(out, layer.conv, layer.norm))
            if not isinstance(block.shortcut, nn.Identity):
                x = lif(synapse(x, block.shortcut.conv, block.shortcut.norm))
            x = out + x
            most.append(int(x.max()))
    assert max(most) >= 2  # sums of spikes
    want = F.linear(x.mean((3, 4)), model.classifier.weight, model.classifier.bias)
    torch.testing.assert_close(model(frames), want, rtol=1e-9, atol=1e-11)


def test_nf_adds_the_current_that_entered() -> None:
    model = shuffled(narrow(NFResNet34, stabilize_threshold=False))
    frames = clip()
    x = synapse(frames, model.stem.conv, model.stem.norm)
    x = torch.stack([F.max_pool2d(step, 3, 2, 1) for step in x])
    for stage in model.stages:
        for block in stage:
            out = x
            for layer in (block.first.synapse, block.second.synapse):
                out = synapse(lif(out), layer.conv, layer.norm)
            if not isinstance(block.shortcut, nn.Identity):
                x = synapse(x, block.shortcut.conv, block.shortcut.norm)
            x = out + x
    want = F.linear(x.mean((3, 4)), model.classifier.weight, model.classifier.bias)
    torch.testing.assert_close(model(frames), want, rtol=1e-9, atol=1e-11)


@both
def test_counts_neurons_and_parameters(kind: type[nn.Module]) -> None:
    with torch.device("meta"):
        model = kind(3, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_806_184
    neurons = sum(isinstance(module, LIF) for module in model.modules())
    # 16 blocks of two; SEW has a stem and three shortcuts that spike
    assert neurons == (36 if kind is SEWResNet34 else 32)


@both
def test_impossible_options_are_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="widths and blocks"):
        kind(3, 10, widths=(4, 8))
    with pytest.raises(TypeError, match="colour"):
        kind(3, 10, colour="red")
