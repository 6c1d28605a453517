"""Norm and neurons in one operation do what the two modules do one after the other."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadyspike import kernels, sequence
from steadyspike.models import build
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR, LinearNorm, PerStepBatchNorm
from steadyspike.snn.norm_each_step import BNTT, TAB
from steadyspike.train import tet_loss

STEPS = 4
NORMS = {
    "osr": OSR,
    "osr_that_falls_back": lambda channels: OSR(channels, fallback_ratio=0.9),
    "per_step": PerStepBatchNorm,
    "linear": LinearNorm,
    "bntt": lambda channels: BNTT(channels, STEPS),
    "tab": lambda channels: TAB(channels, STEPS),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "vggsnn": {"widths": (8, "P", 8, 8)},
    "resnet19": {"widths": (8, 16), "blocks": (1, 1), "image_size": 16, "hidden_width": 8},
    "sew_resnet34": {"widths": (8, 16), "blocks": (1, 1)},
    "nf_resnet34": {"widths": (8, 16), "blocks": (1, 1)},
}


def presented(norm: nn.Module, neuron: LIF, currents: Tensor, chunk: int, fused: bool) -> Any:
    """Spikes, gradients of all that has one, and the states and statistics left behind."""
    model = nn.ModuleList([norm, neuron])
    leaf = currents.clone().requires_grad_()
    spikes = []
    with sequence(model, steps=STEPS):
        for part in leaf.split(chunk):
            out = neuron(part, norm) if fused else neuron(norm(part))
            weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
            (out * weights).sum().backward()
            spikes.append(out.detach())
    grads = [leaf.grad, norm.weight.grad, norm.bias.grad]
    return [torch.cat(spikes), *grads, neuron.membrane, neuron.threshold, *model.buffers()]


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("shape", [(5, 3, 7, 5), (1, 4, 1, 1), (6, 9)])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("stabilize", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_the_modules_in_turn(
    name: str, stabilize: bool, reset: Any, shape: Any, chunk: int
) -> None:
    def layer() -> tuple[nn.Module, LIF]:
        torch.manual_seed(1)
        norm = NORMS[name](shape[1])
        nn.init.normal_(norm.weight, 1, 0.5)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        return norm.double(), LIF(reset=reset, stabilize_threshold=stabilize).double()

    currents = torch.randn(STEPS, *shape, dtype=torch.float64) * 2 + 0.5
    fused = presented(*layer(), currents, chunk, True)
    plain = presented(*layer(), currents, chunk, False)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    if shape[0] > 1:
        assert 0 < plain[0].mean() < 1  # some fired, some did not


def trained(name: str, still: bool, dtype: torch.dtype, chunk: int, **options: Any) -> list[Tensor]:
    """Gradients of two batches, buffers, and logits at inference."""
    torch.manual_seed(0)
    model = build(name, in_channels=3, num_classes=5, **NETWORKS[name], **options)
    model.to(memory_format=torch.channels_last).to(dtype)
    frames = torch.randn(6, 3, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(5, (6,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen = []
    for batch in range(2):
        torch.manual_seed(batch)  # dropout
        optimizer.zero_grad()
        with sequence(model, steps=STEPS, still=still):
            for part in frames.expand(STEPS, *frames.shape).split(chunk):
                tet_loss(model(part), labels, steps=STEPS, mse_weight=0.05).backward()
        seen += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    model.eval()
    with torch.no_grad(), sequence(model, steps=STEPS, still=still):
        seen.append(model(frames.expand(STEPS, *frames.shape)))
    return seen + [buffer.double() for buffer in model.buffers()]


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "per_step", "reset": "zero"},
        {"norm": "linear", "stabilize_threshold": False},
        {"dropout": 0.2, "stabilize_threshold": False},
        {"norm": "bntt", "steps": STEPS},
        {"norm": "tab", "steps": STEPS, "rule": "ottt"},
        {"norm": "ws", "rule": "ndot"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks(name: str, options: dict[str, Any], chunk: int) -> None:
    """With still frames computed once, against the plain path that computes them every step."""
    ours = trained(name, True, torch.float64, chunk, **options)
    theirs = trained(name, False, torch.float64, chunk, **options)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"norm": "tab", "steps": STEPS}, {"norm": "ws", "rule": "ottt"}], ids=str
)
def test_single_precision_with_this_machines_kernels(options: dict[str, Any]) -> None:
    """As near to the exact numbers as the plain path in single precision is."""
    if kernels.backend(torch.empty(0)) is kernels.reference:
        pytest.skip("no C compiler here")
    exact = trained("vggsnn", True, torch.float64, 4, **options)
    ours = trained("vggsnn", True, torch.float32, 4, **options)
    with kernels.disabled():
        plain = trained("vggsnn", True, torch.float32, 4, **options)
    for a, b, c in zip(ours, plain, exact, strict=True):
        off, plain_off = (float((each - c).abs().max()) for each in (a, b))
        assert off <= 4 * plain_off + 1e-6 * float(c.abs().max()) + 1e-7


def test_an_observer_sees_the_membranes_before_the_reset() -> None:
    observed: dict[bool, list[Tensor]] = {}
    currents = torch.randn(3, 4, 5, 2, 2, dtype=torch.float64) * 3
    for fused in (False, True):
        norm, neuron = OSR(5).double(), LIF(stabilize_threshold=True).double()
        seen = observed[fused] = []
        neuron.observer = lambda u, step, theta, seen=seen: seen.extend(
            [u.clone(), torch.tensor(step), theta.clone()]
        )
        with sequence(nn.ModuleList([norm, neuron]), steps=3):
            if fused:
                neuron(currents, norm)
            else:
                neuron(norm(currents))
    for a, b in zip(observed[False], observed[True], strict=True):
        torch.testing.assert_close(a, b)
