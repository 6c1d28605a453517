"""VGGSNN out of another library's layers, with our first weights."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from steadyspike.bench.setting import Setting
from steadyspike.models.vggsnn import VGGSNN, WIDTHS

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def stack(
    setting: Setting,
    *,
    conv: Callable[[int, int], nn.Module],
    norm: Callable[[int], nn.Module],
    neuron: Callable[[], nn.Module],
    pool: Callable[[], nn.Module],
    head: Callable[[int, int], Sequence[nn.Module]],
) -> list[nn.Module]:
    """The layers in their order; ``head`` makes the last ones of channels and classes."""
    layers: list[nn.Module] = []
    channels = setting.image[0]
    for width in setting.widths or WIDTHS:
        if width == "P":
            layers.append(pool())
            continue
        assert isinstance(width, int)
        layers += [conv(channels, width), norm(width), neuron()]
        channels = width
    return [*layers, *head(channels, setting.classes)]


def prepared(setting: Setting, network: nn.Module, layout: str) -> nn.Module:
    """The network in training mode on the device, with the weights that ours begins with."""
    torch.manual_seed(0)
    own = VGGSNN(setting.image[0], setting.classes, widths=setting.widths or WIDTHS)
    kinds = (nn.Conv2d, nn.Linear)
    ours = [module for module in own.modules() if isinstance(module, kinds)]
    theirs = [module for module in network.modules() if isinstance(module, kinds)]
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    return network.train().to(memory_format=LAYOUTS[layout]).to(setting.device)
