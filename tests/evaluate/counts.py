"""Operations counted by brute force, and a small network of each architecture.

Brute force: with all weights one, a spike alone at an input changes as many outputs as it causes
operations.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadyspike.evaluate.operations import OperationCounter
from steadyspike.models import VGGSNN, NFResNet34, ResNet19, SEWResNet34
from steadyspike.snn.sequence import sequence

Map = Callable[[Tensor], Tensor]


def straight(spikes: Tensor) -> Tensor:
    return spikes


def count(model: nn.Module, frames: Tensor, chunk: int | None = None, batch: int = 100) -> Any:
    """An OperationCounter that has seen frames (T, N, ...), in batches and chunks of steps."""
    counter = OperationCounter(model.eval(), len(frames))
    with counter.counting(), torch.no_grad():
        for part in frames.split(batch, dim=1):
            with sequence(model, len(frames)):
                for steps in part.split(chunk or len(frames)):
                    model(steps)
    return counter


def reached(way: Map, shape: torch.Size) -> Tensor:
    """The number of outputs that each input, alone, changes on a linear ``way`` from (N, ...)."""
    ones = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return way(ones).flatten(1).count_nonzero(1).reshape(shape)


def all_ones(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer).double()
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def spiking(model: nn.Module) -> nn.Module:
    """In double precision, with running variances under which the untrained network spikes."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=3)
            elif hasattr(module, "running_var"):
                module.running_var.fill_(0.2)
    return model.double().eval()


def networks(**options: Any) -> dict[str, nn.Module]:
    torch.manual_seed(1)
    small = dict(widths=(3, 4), blocks=(1, 2), **options)
    return {
        name: spiking(model)
        for name, model in {
            "vggsnn": VGGSNN(2, 3, widths=(3, "P", 4, 5), **options),
            "gesture": VGGSNN(
                2, 3, widths=(3, "P", 4), head="gesture", head_widths=(8, 7), **options
            ),
            "resnet19": ResNet19(2, 3, hidden_width=6, image_size=10, **small),
            "sew": SEWResNet34(2, 3, **small),
            "nf": NFResNet34(2, 3, **small),
        }.items()
    }


every = pytest.mark.parametrize("name", ["vggsnn", "gesture", "resnet19", "sew", "nf"])


def clip(steps: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, 4, 2, 10, 10, generator=generator, dtype=torch.float64)
