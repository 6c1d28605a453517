"""The convolutions of a training step alone, forward and backward: the step's lower bound.

What a framework adds around them (norms, neurons, copies, loss, optimizer) is the rest of its step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import CLASSES, autocast
from steadyspike.models.blocks import SpikingConv
from steadyspike.models.vggsnn import VGGSNN, WIDTHS
from steadyspike.snn.conv import Convolution, convolve


def convolutions_alone(
    setting: Setting, layout: torch.memory_format, *, ours: bool
) -> Callable[[], None]:
    """A function that runs every convolution of VGGSNN as often as one training step does.

    Each call of K steps is followed by the gradients of weight, bias if it has one, and, but for
    the first layer, input. In a worker with fused kernels these are our convolutions, else torch's.
    Inputs are random spikes, a fifth of them 1, in the type that the network's spikes have.

    Args:
        setting: of the step.
        layout: memory format of weights and inputs.
        ours: whether as in our step: the first layer runs once per batch, not once per step, since
            all T frames are the same, and there is no bias, which the norms take in.
    """
    torch.manual_seed(0)
    model = VGGSNN(setting.image[0], CLASSES, widths=setting.widths or WIDTHS)
    model.to(memory_format=layout).to(setting.device)
    low = torch.bfloat16 if setting.precision == "bfloat16" else torch.float32
    height, width = setting.image[1:]
    calls: list[tuple[Convolution, int | None, Tensor, Tensor]] = []
    for layer in model.features:
        if not isinstance(layer, SpikingConv):
            height, width = height // 2, width // 2
            continue
        is_first = layer.still_current is not None
        once = is_first and ours
        chunks = [1] if once else [len(k) for k in torch.arange(setting.steps).split(setting.chunk)]
        shape = (setting.batch, layer.conv.in_channels, height, width)
        dtype = torch.float32 if is_first else low
        for k in chunks:
            x = _spikes(k, shape, dtype, layout, setting.device).requires_grad_(not is_first)
            with torch.no_grad(), autocast(setting):
                y = convolve(layer.conv, x, layer.levels, biased=not ours)
            calls.append((layer.conv, layer.levels, x, torch.randn_like(y)))

    def run() -> None:
        for conv, levels, x, grad in calls:
            with autocast(setting):
                y = convolve(conv, x, levels, biased=not ours)
            inputs = (conv.weight, x) if ours else (*conv.parameters(), x)
            torch.autograd.grad(y, [each for each in inputs if each.requires_grad], grad)

    return run


def _spikes(
    k: int, shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str
) -> Tensor:
    """(K, N, C, H, W) with ``shape`` (N, C, H, W), in the memory layout."""
    spikes = (torch.rand(k * shape[0], *shape[1:], device=device) < 0.2).to(dtype)
    steps: Tensor = spikes.contiguous(memory_format=layout).unflatten(0, (k, shape[0]))
    return steps
