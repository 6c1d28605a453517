"""A tiny VGGSNN's widths and batch, each training method's options, and one training batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.train import tet_loss

TINY = (4, "P", 6)
METHODS: dict[str, dict[str, Any]] = {
    "per_step": {"norm": "per_step", "stabilize_threshold": False},
    "ots": {"norm": "per_step", "stabilize_threshold": True},
    "osr": {"norm": "osr", "stabilize_threshold": False},
    "osr_ots": {"norm": "osr", "stabilize_threshold": True},
    "linear": {"norm": "linear", "stabilize_threshold": False},
    "bptt": {"norm": "batch", "stabilize_threshold": False, "online": False},
}


def small_batch(dtype: torch.dtype = torch.float64, t: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    clip = 2 * torch.randn(t, 4, 2, 6, 6, generator=generator, dtype=torch.float64)
    return clip.to(dtype), torch.arange(4) % 3


def train_batch(
    model: nn.Module, clip: Tensor, labels: Tensor, chunks: Sequence[int], mse_weight: float = 0.05
) -> float:
    """One presentation with a backward pass a chunk; the batch's loss."""
    total = 0.0
    with sequence(model, steps=len(clip)):
        for frames in clip.split(chunks):
            loss = tet_loss(model(frames), labels, steps=len(clip), mse_weight=mse_weight)
            loss.backward()
            total += loss.item()
    return total
