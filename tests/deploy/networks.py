"""Small networks with learned statistics and thresholds, and their spikes."""

from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.models import build
from steadyspike.snn.neuron import LIF

STEPS = 4
SHAPE = (2, 8, 8)  # of a frame
SMALL: dict[str, dict[str, Any]] = {
    "vggsnn": {"widths": (6, 8, "P", 8)},
    "gesture": {"widths": (6, "P", 8), "head": "gesture", "head_widths": (12, 10)},
    "resnet19": {"widths": (4, 6, 8), "blocks": (2, 1, 1), "hidden_width": 10, "image_size": 8},
    "sew_resnet34": {"widths": (4, 6), "blocks": (2, 2)},
    "nf_resnet34": {"widths": (4, 6), "blocks": (2, 2)},
}


def clip(batch: int, seed: int = 1) -> Tensor:
    """Frames (T, N, C, H, W) in float64, others at each step."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, batch, *SHAPE, generator=generator, dtype=torch.float64)


def learned(name: str, **options: Any) -> nn.Module:
    """A network in evaluation mode, in float64, after a few batches of training."""
    torch.manual_seed(3)
    options = {**SMALL[name], "inference_threshold": "layer", **options}
    model = build("vggsnn" if name == "gesture" else name, in_channels=2, num_classes=5, **options)
    model.double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # No bias, γ or β that a mistake could miss; β is large enough for spikes.
            parameter.add_(0.1 * torch.randn_like(parameter) + 0.5 * key.endswith("norm.bias"))
        for seed in range(20):
            with sequence(model, steps=STEPS):
                model(clip(8, seed))
    return model.eval()


def spikes_and_logits(model: nn.Module, frames: Tensor) -> tuple[list[Tensor], Tensor]:
    """The spikes (T, N, ...) of every layer of neurons, and the logits (T, N, classes)."""
    layers = [module for module in model.modules() if isinstance(module, LIF)]
    spikes: list[list[Tensor]] = [[] for _ in layers]
    for seen, layer in zip(spikes, layers, strict=True):
        layer.observer = lambda u, step, threshold, seen=seen: seen.append((u - threshold >= 0) * 1)
    with torch.no_grad(), sequence(model, steps=len(frames)):
        logits = model(frames)
    for layer in layers:
        layer.observer = None
    return [torch.stack(seen) for seen in spikes], logits
