"""VGGSNN in SpikingJelly 2 and snnTorch: their layers, our first weights, loss and optimizer."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import (
    CLASSES,
    TrainingStep,
    Variants,
    as_graph,
    autocast,
    batch_in_memory,
    loss_of,
    optimizer_for,
)
from steadyspike.data.counter_rng import derive_seed
from steadyspike.models.vggsnn import VGGSNN, WIDTHS

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def spikingjelly_bptt(setting: Setting) -> Variants:
    """All T steps in one call."""
    return {
        layout + (f", neurons in {state}" if state else ""): partial(
            _spikingjelly_bptt, setting, layout, state
        )
        for layout in LAYOUTS
        for state in _neuron_types(setting)
    }


def spikingjelly_graph(setting: Setting) -> Variants:
    """BPTT replayed as a CUDA graph, as the library's own trainer can do it."""
    layout = "channels last"
    return {
        f"CUDA graph, {layout}" + (f", neurons in {state}" if state else ""): partial(
            _spikingjelly_graph, setting, layout, state
        )
        for state in _neuron_types(setting)
    }


def _neuron_types(setting: Setting) -> tuple[str | None, ...]:
    """The types of membranes to try.

    On a GPU in bfloat16 the library's fused kernels need its own precision interface
    (`PrecisionConfig`), since plain autocast falls back to torch; both are tried.
    """
    if setting.device == "cuda" and setting.precision == "bfloat16":
        return (None, "fp32", "bf16")
    return (None,)


def spikingjelly_compiled(setting: Setting) -> Variants:
    """BPTT through torch.compile, as the library's own trainer can do it."""
    layout = "channels last"  # compiling takes a minute, so the other layout is not tried
    make = partial(_spikingjelly_bptt, setting, layout, None, compiled=True)
    return {f"compiled, {layout}": make}


def spikingjelly_ottt(setting: Setting) -> Variants:
    """One step per call, weight gradients from traces of the spikes."""
    return {key: partial(_spikingjelly_online, setting, key, "OTTTLIFNode") for key in LAYOUTS}


def spikingjelly_sltt(setting: Setting) -> Variants:
    """One step per call, no gradient across steps."""
    return {key: partial(_spikingjelly_online, setting, key, "SLTTLIFNode") for key in LAYOUTS}


def snntorch_bptt(setting: Setting) -> Variants:
    """T calls of one step, one backward pass through all of them, as in the library's tutorials."""
    return {layout: partial(_snntorch_bptt, setting, layout) for layout in LAYOUTS}


def _spikingjelly_bptt(
    setting: Setting, layout: str, state: str | None, *, compiled: bool = False
) -> TrainingStep:
    functional = _spikingjelly("functional")
    layers = spikingjelly_layers(setting, "LIFNode")
    network = _with_our_weights(setting, nn.Sequential(*layers), layout)
    functional.set_step_mode(network, "m")
    if state is not None:
        precision = _spikingjelly("precision")
        config = precision.PrecisionConfig(mode="bf16", neuron_storage=state)
        network = precision.prepare_model_for_precision(network, setting.device, config).model
    run = torch.compile(network) if compiled else network
    frames, labels = _batch(setting, layout)
    clip = frames.expand(setting.steps, *frames.shape)  # (T, N, C, H, W)

    def losses() -> Iterator[Tensor]:
        functional.reset_net(network)
        with autocast(setting):
            loss = loss_of(setting, run(clip), labels)
        yield loss

    return TrainingStep(network, optimizer_for(network), losses, LAYOUTS[layout])


def _spikingjelly_graph(setting: Setting, layout: str, state: str | None) -> TrainingStep:
    return as_graph(_spikingjelly_bptt(setting, layout, state))


def _spikingjelly_online(setting: Setting, layout: str, node: str) -> TrainingStep:
    functional = _spikingjelly("functional")
    container = nn.Sequential
    if node == "OTTTLIFNode":
        container = _spikingjelly("layer").OTTTSequential
    layers = spikingjelly_layers(setting, node)
    network = _with_our_weights(setting, container(*layers), layout)
    frames, labels = _batch(setting, layout)

    def losses() -> Iterator[Tensor]:
        functional.reset_net(network)
        for _ in range(setting.steps):
            with autocast(setting):
                loss = loss_of(setting, network(frames)[None], labels)
            yield loss

    return TrainingStep(network, optimizer_for(network), losses, LAYOUTS[layout])


def _snntorch_bptt(setting: Setting, layout: str) -> TrainingStep:
    snntorch = importlib.import_module("snntorch")
    surrogate = importlib.import_module("snntorch.surrogate")
    utils = importlib.import_module("snntorch.utils")
    layers = _vggsnn(
        setting,
        layer=nn,
        norm=nn.BatchNorm2d,
        neuron=lambda: snntorch.Leaky(
            beta=0.5,
            threshold=1.0,
            spike_grad=surrogate.sigmoid(slope=4),
            init_hidden=True,
            reset_mechanism="subtract",
        ),
    )
    network = _with_our_weights(setting, nn.Sequential(*layers), layout)
    frames, labels = _batch(setting, layout)

    def losses() -> Iterator[Tensor]:
        utils.reset(network)
        with autocast(setting):
            logits = torch.stack([network(frames) for _ in range(setting.steps)])
            loss = loss_of(setting, logits, labels)
        yield loss

    return TrainingStep(network, optimizer_for(network), losses, LAYOUTS[layout])


def spikingjelly_layers(setting: Setting, node: str) -> list[nn.Module]:
    """VGGSNN in single-step mode, with neurons of the class ``node``."""
    layer = _spikingjelly("layer")
    return _vggsnn(
        setting, layer=layer, norm=layer.BatchNorm2d, neuron=lambda: spikingjelly_neuron(node)
    )


def spikingjelly_neuron(node: str) -> nn.Module:
    """LIF with tau 2, threshold 1, and a reset by subtraction that carries no gradient."""
    neuron: nn.Module = getattr(_spikingjelly("neuron"), node)(
        tau=2.0,
        decay_input=False,
        v_threshold=1.0,
        v_reset=None,
        surrogate_function=_spikingjelly("surrogate").Sigmoid(4.0),
        detach_reset=True,
    )
    return neuron


def _spikingjelly(module: str) -> Any:
    return importlib.import_module(f"spikingjelly.activation_based.{module}")


def _vggsnn(
    setting: Setting, *, layer: Any, norm: Callable[[int], nn.Module], neuron: Callable[[], Any]
) -> list[nn.Module]:
    """The layers in order; ``layer`` is the module with the library's Conv2d, Linear and so on."""
    layers: list[nn.Module] = []
    channels = setting.image[0]
    for width in setting.widths or WIDTHS:
        if width == "P":
            layers.append(layer.AvgPool2d(2))
            continue
        assert isinstance(width, int)
        layers += [layer.Conv2d(channels, width, 3, padding=1), norm(width), neuron()]
        channels = width
    head = [layer.AdaptiveAvgPool2d(1), layer.Flatten(1), layer.Linear(channels, CLASSES)]
    return [*layers, *head]


def _with_our_weights(setting: Setting, network: nn.Module, layout: str) -> nn.Module:
    """The network in training mode on the device, with our initial weights."""
    torch.manual_seed(derive_seed(0, "init"))  # as in train/network.py
    own = VGGSNN(setting.image[0], CLASSES, widths=setting.widths or WIDTHS)
    kinds = (nn.Conv2d, nn.Linear)
    ours = [module for module in own.modules() if isinstance(module, kinds)]
    theirs = [module for module in network.modules() if isinstance(module, kinds)]
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    return network.train().to(memory_format=LAYOUTS[layout]).to(setting.device)


def _batch(setting: Setting, layout: str) -> tuple[Tensor, Tensor]:
    frames, labels = batch_in_memory(setting)
    return frames.contiguous(memory_format=LAYOUTS[layout]), labels
