"""SpikingJelly 2.0: BPTT in multi-step mode, and its OTTT and SLTT nodes step by step.

Its layers, its batch normalization, its wrappers; our first weights, our loss, our optimizer.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

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

NEURON = {"tau": 2.0, "decay_input": False, "v_threshold": 1.0, "v_reset": None}


def bptt(setting: Setting) -> Variants:
    """All T steps in one call. Which kernels run is the library's own choice by device.

    On a GPU in bfloat16 its fused kernels want its own precision interface (`PrecisionConfig`);
    plain autocast falls back to torch. All are tried.
    """
    states: tuple[str | None, ...] = (None,)
    if setting.device == "cuda" and setting.precision == "bfloat16":
        states = (None, "fp32", "bf16")
    return {
        layout + (f", neurons in {state}" if state else ""): partial(_bptt, setting, layout, state)
        for layout in LAYOUTS
        for state in states
    }


def bptt_compiled(setting: Setting) -> Variants:
    """The same through torch.compile, as the library's own trainer can do."""
    layout = "channels last"  # compiling takes a minute: there is no trying both
    return {f"compiled, {layout}": partial(_bptt, setting, layout, None, compiled=True)}


def ottt(setting: Setting) -> Variants:
    """OTTTLIFNode in OTTTSequential: a call a step, weight gradients from spike traces."""
    return {layout: partial(_online, setting, layout, "OTTTLIFNode") for layout in LAYOUTS}


def sltt(setting: Setting) -> Variants:
    """SLTTLIFNode: a call a step, no gradient across steps."""
    return {layout: partial(_online, setting, layout, "SLTTLIFNode") for layout in LAYOUTS}


def _bptt(setting: Setting, layout: str, state: str | None, *, compiled: bool = False) -> Work:
    library = _Library()
    network = prepared(setting, nn.Sequential(*library.layers(setting, "LIFNode")), layout)
    library.functional.set_step_mode(network, "m")
    if state is not None:
        precision = importlib.import_module("spikingjelly.activation_based.precision")
        config = precision.PrecisionConfig(mode="bf16", neuron_storage=state)
        network = precision.prepare_model_for_precision(network, setting.device, config).model
    run = torch.compile(network) if compiled else network
    frames, labels = batch_in_memory(setting)
    frames = frames.contiguous(memory_format=LAYOUTS[layout])
    clip = frames.expand(setting.steps, *frames.shape)  # (T, N, C, H, W)

    def losses() -> Iterator[Tensor]:
        library.functional.reset_net(network)
        with autocast(setting):
            loss = loss_of(setting, run(clip), labels)
        yield loss

    return Work(network, optimizer_for(network), losses)


def _online(setting: Setting, layout: str, node: str) -> Work:
    library = _Library()
    container = library.layer.OTTTSequential if node == "OTTTLIFNode" else nn.Sequential
    network = prepared(setting, container(*library.layers(setting, node)), layout)
    frames, labels = batch_in_memory(setting)
    frames = frames.contiguous(memory_format=LAYOUTS[layout])

    def losses() -> Iterator[Tensor]:
        library.functional.reset_net(network)
        for _ in range(setting.steps):
            with autocast(setting):
                loss = loss_of(setting, network(frames)[None], labels)
            yield loss

    return Work(network, optimizer_for(network), losses)


class _Library:
    """The library's modules, loaded when a measurement begins."""

    def __init__(self) -> None:
        self.neuron, self.layer, self.functional, self.surrogate = (
            importlib.import_module(f"spikingjelly.activation_based.{name}")
            for name in ("neuron", "layer", "functional", "surrogate")
        )

    def layers(self, setting: Setting, node: str) -> list[nn.Module]:
        """VGGSNN in single-step mode; reset by subtraction, no gradient through it."""
        layer: Any = self.layer

        def neuron() -> nn.Module:
            made: nn.Module = getattr(self.neuron, node)(
                **NEURON, surrogate_function=self.surrogate.Sigmoid(4.0), detach_reset=True
            )
            return made

        return stack(
            setting,
            conv=lambda inputs, outputs: layer.Conv2d(inputs, outputs, 3, padding=1),
            norm=layer.BatchNorm2d,
            neuron=neuron,
            pool=lambda: layer.AvgPool2d(2),
            head=lambda channels, classes: [
                layer.AdaptiveAvgPool2d(1),
                layer.Flatten(1),
                layer.Linear(channels, classes),
            ],
        )
