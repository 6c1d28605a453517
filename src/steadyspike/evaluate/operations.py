"""Operations per image: synaptic operations, multiply-accumulates and their energy.

A synapse layer (Conv2d, Linear) with spiking input adds, for each spike, one weight to every
output that the spike reaches. That number is the input's fan-out, lower at the borders of a
convolution than in its middle; its sum over spikes and the T steps is the layer's synaptic
operations (SOP). A layer with real-valued input does one multiply-accumulate (MAC) per connection
and step. Multiplications by zero padding, neurons, norms (folded into the weights at inference),
biases and pooling are not counted, as is usual.

Spikes do not always arrive as 0 and 1: average pooling makes them 1/4, global pooling 1 / (H W),
the gesture head 2.74, and a residual sum adds several. All of these are linear with one factor for
the whole tensor, so what arrives is an integer number of spikes times the value of one.
`_SpikeValues` carries that value with each tensor from the neurons on, and division by it gives
the number of spikes exactly. Max pooling passes one spike of each window on. A tensor without a
value (frames, normalized currents, a sum of spikes and currents) is real-valued.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steadyspike.evaluate.metrics import Operations
from steadyspike.snn.conv import AveragePool
from steadyspike.snn.neuron import LIF

# 45 nm, 0.9 V, 32-bit floating point: an addition 0.9 pJ, a multiplication 3.7 pJ.
# M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
ACCUMULATE_PICOJOULE = 0.9
MULTIPLY_ACCUMULATE_PICOJOULE = 4.6

Synapse = nn.Conv2d | nn.Linear


def energy_nanojoule(synaptic_operations: float, multiply_accumulates: float) -> float:
    """Energy of these operations in nJ: arithmetic only, no memory access."""
    picojoule = (
        synaptic_operations * ACCUMULATE_PICOJOULE
        + multiply_accumulates * MULTIPLY_ACCUMULATE_PICOJOULE
    )
    return picojoule / 1000


@dataclass
class _Counts:
    """Totals of one layer."""

    spiking: Tensor  # synaptic operations, an integer on the device
    inputs: int = 0  # samples times steps
    real: int = 0  # MACs of real-valued inputs
    dense: int = 0  # MACs if every input were real-valued


class OperationCounter:
    """Counts the operations of every synapse layer while `counting`.

    Counts are integers, so they do not depend on K or on the order of batches. Every layer must
    run at every step: still images must not be announced as such to `sequence`.

    Args:
        model: a network in evaluation mode, whose convolutions are padded with zeros.
        steps: T of each clip.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.steps = steps
        device = next(model.parameters()).device
        zero = torch.zeros((), dtype=torch.int64, device=device)
        self._neurons = [module for module in model.modules() if isinstance(module, LIF)]
        self._pools = [module for module in model.modules() if isinstance(module, AveragePool)]
        self._synapses = {
            name: module for name, module in model.named_modules() if isinstance(module, Synapse)
        }
        self._counts = {name: _Counts(zero) for name in self._synapses}
        self._fan_outs: dict[tuple[str, torch.Size], tuple[Tensor, int]] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the operations of the body's forward passes."""

        def spikes_of(neuron: LIF, args: Any, spikes: Tensor) -> None:
            _set_spike_value(spikes, neuron.spike_scale)

        def pooled(pool: nn.Module, args: Any, means: Tensor) -> None:
            value = _spike_value(args[0])
            _set_spike_value(means, None if value is None else value / 4)

        def count(name: str, synapse: Synapse) -> Any:
            return lambda _module, args, _output: self._count(name, synapse, args[0])

        hooks = [neuron.register_forward_hook(spikes_of) for neuron in self._neurons]
        hooks += [pool.register_forward_hook(pooled) for pool in self._pools]
        hooks += [
            synapse.register_forward_hook(count(name, synapse))
            for name, synapse in self._synapses.items()
        ]
        try:
            with _SpikeValues():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _count(self, name: str, synapse: Synapse, x: Tensor) -> None:
        outputs, connections = self._fan_out(name, synapse, x)
        counts = self._counts[name]
        inputs = x.numel() // outputs.numel()  # K N
        counts.inputs += inputs
        counts.dense += inputs * connections
        value = _spike_value(x)
        if value is None:
            counts.real += inputs * connections
            return
        # x / value is an integer up to rounding
        spikes = x.div(value).round_().reshape(-1, *outputs.shape).sum(0, dtype=torch.int64)
        counts.spiking = counts.spiking + (spikes * outputs).sum()

    def _fan_out(self, name: str, synapse: Synapse, x: Tensor) -> tuple[Tensor, int]:
        """`fan_out` of inputs shaped like ``x``, on their device, and its sum."""
        shape = x.shape[-3:] if isinstance(synapse, nn.Conv2d) else x.shape[-1:]
        if (name, shape) not in self._fan_outs:
            outputs = fan_out(synapse, shape)
            self._fan_outs[name, shape] = outputs.to(x.device), int(outputs.sum())
        return self._fan_outs[name, shape]

    def per_layer(self) -> dict[str, Operations]:
        """Operations of each synapse layer, per image."""
        spiking = torch.stack([counts.spiking for counts in self._counts.values()]).tolist()
        return {
            name: _operations(
                total / max(counts.inputs // self.steps, 1),
                counts.real / max(counts.inputs // self.steps, 1),
                counts.dense / max(counts.inputs, 1),
            )
            for (name, counts), total in zip(self._counts.items(), spiking, strict=True)
        }

    def total(self) -> Operations:
        """Operations of the whole network, per image."""
        layers = self.per_layer().values()
        return _operations(
            sum(layer.synaptic_operations for layer in layers),
            sum(layer.multiply_accumulates for layer in layers),
            sum(layer.dense_multiply_accumulates for layer in layers),
        )


def _operations(synaptic: float, real: float, dense: float) -> Operations:
    return Operations(
        synaptic_operations=synaptic,
        multiply_accumulates=real,
        energy_nanojoule=energy_nanojoule(synaptic, real),
        dense_multiply_accumulates=dense,
    )


def fan_out(synapse: Synapse, shape: torch.Size) -> Tensor:
    """The number of outputs that each input of one sample reaches.

    With all weights one it is the gradient of the sum of all outputs.

    Args:
        synapse: the layer.
        shape: (C, H, W) of a convolution's input, (C,) of a Linear's.
    """
    weight = torch.ones(synapse.weight.shape, dtype=torch.float64)
    with torch.enable_grad():
        x = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
        if isinstance(synapse, nn.Linear):
            outputs = F.linear(x, weight)
        else:
            outputs = F.conv2d(
                x, weight, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups
            )
        (gradient,) = torch.autograd.grad(outputs.sum(), x)
    return gradient[0].long()


def _spike_value(x: Any) -> float | None:
    """The value of one spike in ``x``; None if ``x`` is real-valued."""
    return getattr(x, "_spike_value", None)


def _set_spike_value(x: Tensor, value: float | None) -> None:
    x._spike_value = value  # type: ignore[attr-defined]


class _SpikeValues(TorchFunctionMode):
    """While active, the result of each torch function gets the value that a spike has in it.

    Knows the functions that the networks apply to spikes. The result of any other is real-valued.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and args:
            value = _spike_value(args[0])
            if value is not None:
                _set_spike_value(result, _value_after(func.__name__, value, result, args, kwargs))
        return result


def _value_after(
    name: str, value: float, result: Tensor, args: Any, kwargs: dict[str, Any]
) -> float | None:
    """The value in ``result`` of a spike that has ``value`` in ``args[0]``; None if it varies."""
    x, *others = args
    match name:
        case "flatten" | "unflatten" | "reshape" | "contiguous" | "max_pool2d":
            return value
        case "mean":
            return value * result.numel() / int(x.numel())
        case "avg_pool2d":
            return _average_pooled(value, *others, **kwargs)
        case "mul" if others and isinstance(others[0], int | float) and others[0] != 0:
            return value * others[0]
        case "add" if others and not kwargs and _spike_value(others[0]) == value:
            return value
    return None


def _average_pooled(
    value: float,
    kernel: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    *_: Any,
) -> float | None:
    # Windows across the border may divide by fewer: a spike's value would vary.
    return None if padding or ceil_mode else value / kernel**2
