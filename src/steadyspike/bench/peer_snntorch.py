"""snnTorch: Leaky neurons in a loop over the steps, one backward pass through all of them.

Its neurons and torch's layers, as its tutorials do; our first weights, our loss, our optimizer.
"""

import importlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from steadyspike.bench.peer_networks import LAYOUTS, prepared, stack
from steadyspike.bench.setting import Setting
from steadyspike.bench.work import (
    Variants,
    Work,
    autocast,
    batch_in_memory,
    loss_of,
    optimizer_for,
)


def leaky(setting: Setting) -> Variants:
    """BPTT, T calls of one step."""
    return {layout: partial(_leaky, setting, layout) for layout in LAYOUTS}


def _leaky(setting: Setting, layout: str) -> Work:
    library = importlib.import_module("snntorch")
    surrogate = importlib.import_module("snntorch.surrogate")
    utils = importlib.import_module("snntorch.utils")

    def neuron() -> nn.Module:
        made: nn.Module = library.Leaky(
            beta=0.5,
            threshold=1.0,
            spike_grad=surrogate.sigmoid(slope=4),
            init_hidden=True,
            reset_mechanism="subtract",
        )
        return made

    layers = stack(
        setting,
        conv=lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1),
        norm=nn.BatchNorm2d,
        neuron=neuron,
        pool=lambda: nn.AvgPool2d(2),
        head=lambda channels, classes: [
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, classes),
        ],
    )
    network = prepared(setting, nn.Sequential(*layers), layout)
    frames, labels = batch_in_memory(setting)
    frames = frames.contiguous(memory_format=LAYOUTS[layout])

    def losses() -> Iterator[Tensor]:
        utils.reset(network)
        with autocast(setting):
            logits = torch.stack([network(frames) for _ in range(setting.steps)])
            loss = loss_of(setting, logits, labels)
        yield loss

    return Work(network, optimizer_for(network), losses)
