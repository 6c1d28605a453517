"""Operations an image: accumulates driven by spikes, multiply-accumulates, and their energy.

A synapse layer (Conv2d, Linear) that is fed spikes adds, for each of them, one weight to every
output the spike reaches: its fan-out, fewer at the borders of a convolution than in the middle.
Their sum over the T steps is the layer's synaptic operations (SOP). A layer that is fed real
numbers multiplies and adds instead, once a connection and step. Neurons, norms (folded into the
weights at inference), biases and pooling are not counted, as is usual.

Spikes are not always 0 and 1 when they arrive. Average pooling makes 1/4 of a spike, global
pooling 1 / (H W), a residual sum 0, 1 or 2, the gesture head 2.74; yet every such map is linear
with one factor for all its spikes, so what arrives is a whole number of spikes times what one is
worth. While counting, that worth is carried along with each tensor from the neurons on, and
dividing by it gives the spikes that arrive, exactly: two of one pooling window count twice, those
a pooling leaves out do not count. Max pooling lets one spike of a window through. A tensor without
a worth (frames, normalized currents, a sum of spikes and currents) is real-valued.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from steadyspike.snn.neuron import LIF

# 45 nm, 0.9 V, 32-bit floating point: an addition 0.9 pJ, a multiplication 3.7 pJ.
# M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
ACCUMULATE_PICOJOULE = 0.9
MULTIPLY_ACCUMULATE_PICOJOULE = 4.6

Synapses = nn.Conv2d | nn.Linear


def energy_nanojoule(synaptic_operations: float, multiply_accumulates: float) -> float:
    """The energy of that many operations, in nJ; arithmetic alone, no memory access."""
    picojoule = (
        synaptic_operations * ACCUMULATE_PICOJOULE
        + multiply_accumulates * MULTIPLY_ACCUMULATE_PICOJOULE
    )
    return picojoule / 1000


class Operations:
    """Operations of every synapse layer, counted in evaluation mode while `counted` is on.

    Counts are whole numbers kept on the device, the same for every K and order of the batches.
    Multiplications by a convolution's zero padding count nowhere, so that a layer whose inputs
    spike at every step has as many synaptic operations as multiply-accumulates.

    Args:
        model: any module with LIF neurons and Conv2d or Linear synapses.
        steps: T of the presentations to come.

    Raises:
        ValueError: a convolution is not padded by a number of zeros.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model = model
        self.steps = steps
        self.layers = {
            name: module for name, module in model.named_modules() if isinstance(module, Synapses)
        }
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Conv2d) and (
                layer.padding_mode != "zeros" or isinstance(layer.padding, str)
            ):
                raise ValueError(f"{name}: only padding by a number of zeros can be counted")
        self.samples = 0
        device = next(model.parameters()).device
        self._zero = torch.zeros((), dtype=torch.int64, device=device)
        self._spiking = dict.fromkeys(self.layers, self._zero)  # SOP, on the device
        self._real = dict.fromkeys(self.layers, 0)  # MACs of real-valued inputs
        self._dense = dict.fromkeys(self.layers, 0)  # MACs of all inputs
        self._fan_outs: dict[tuple[str, int, int], tuple[Tensor, int]] = {}

    @contextmanager
    def counted(self, samples: int) -> Iterator[None]:
        """Count the operations of one presentation of T steps to ``samples`` samples.

        A body that raises counts for nothing.

        Raises:
            RuntimeError: the model is in training mode, where dropout and statistics of the batch
                change what is computed; or a layer that ran did not see every sample once a step.
        """
        if any(module.training for module in self.model.modules()):
            raise RuntimeError("operations are counted in evaluation mode: call model.eval() first")
        before = self._spiking.copy(), self._real.copy(), self._dense.copy()
        self._seen = dict.fromkeys(self.layers, 0)
        worth = _SpikeWorth()
        handles = [
            module.register_forward_hook(lambda _module, _args, spikes: worth.mark(spikes, 1.0))
            for module in self.model.modules()
            if isinstance(module, LIF)
        ] + [
            layer.register_forward_hook(self._counter(name, layer, worth))
            for name, layer in self.layers.items()
        ]
        try:
            with worth:
                yield
            for name, seen in self._seen.items():
                if seen not in (0, samples * self.steps):  # 0: a branch left out
                    raise RuntimeError(
                        f"{name} saw {seen} inputs, not one for each of {samples} samples "
                        f"at each of {self.steps} steps"
                    )
        except BaseException:
            self._spiking, self._real, self._dense = before
            raise
        finally:
            for handle in handles:
                handle.remove()
        self.samples += samples

    def _counter(
        self, name: str, layer: Synapses, worth: "_SpikeWorth"
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def count(_module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
            (x,) = args
            reached, connections = self._fan_out(name, layer, x)
            inputs = x.numel() // reached.numel()  # K N
            self._seen[name] += inputs
            self._dense[name] += inputs * connections
            spike = worth.of(x)
            if spike is None:
                self._real[name] += inputs * connections
                return
            # x / spike is whole but for the rounding of x.
            spikes = x.div(spike).round_().reshape(-1, *reached.shape).sum(0, dtype=torch.int64)
            self._spiking[name] = self._spiking[name] + (spikes * reached).sum()

        return count

    def _fan_out(self, name: str, layer: Synapses, x: Tensor) -> tuple[Tensor, int]:
        """`fan_out` for inputs like ``x``, on the device, and its sum."""
        size = x.shape[-2:] if isinstance(layer, nn.Conv2d) else (1, 1)
        key = (name, *size)
        if key not in self._fan_outs:
            reached = fan_out(layer, *size)
            self._fan_outs[key] = reached.to(self._zero.device), int(reached.sum())
        return self._fan_outs[key]

    def per_layer(self) -> dict[str, dict[str, float]]:
        """Of each synapse layer, per image, what `summary` gives of all but the energy."""
        spiking = torch.stack(list(self._spiking.values())).tolist()  # the one wait
        return {
            name: {
                "synaptic_operations": operations / self.samples,
                "multiply_accumulates": self._real[name] / self.samples,
                "dense_multiply_accumulates": self._dense[name] / (self.samples * self.steps),
            }
            for name, operations in zip(self.layers, spiking, strict=True)
        }

    def summary(self) -> dict[str, float]:
        """Of the whole network, per image.

        ``synaptic_operations`` and ``multiply_accumulates`` of all T steps, also where the same
        frame is shown T times; ``energy_nanojoule``, their energy; and
        ``dense_multiply_accumulates``, those of one pass of the same network without spikes.
        """
        layers = self.per_layer().values()
        operations = sum(layer["synaptic_operations"] for layer in layers)
        multiplications = sum(layer["multiply_accumulates"] for layer in layers)
        return {
            "synaptic_operations": operations,
            "multiply_accumulates": multiplications,
            "energy_nanojoule": energy_nanojoule(operations, multiplications),
            "dense_multiply_accumulates": sum(
                layer["dense_multiply_accumulates"] for layer in layers
            ),
        }


def fan_out(layer: Synapses, height: int = 1, width: int = 1) -> Tensor:
    """How many outputs of ``layer`` each input of one sample reaches, borders and strides included.

    (C, H, W) for a convolution of inputs of that height and width, (C,) for a Linear.
    """
    if isinstance(layer, nn.Linear):
        return torch.full((layer.in_features,), layer.out_features)
    down, across = (
        _reach(
            size,
            layer.kernel_size[axis],
            layer.stride[axis],
            int(layer.padding[axis]),
            layer.dilation[axis],
        )
        for axis, size in enumerate((height, width))
    )
    positions = torch.outer(down, across)  # (H, W)
    return (layer.out_channels // layer.groups * positions).expand(layer.in_channels, -1, -1)


def _reach(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """How many output positions each of ``size`` input positions reaches, along one axis."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    # The input position under each tap of the kernel at each output
    under = torch.arange(outputs)[:, None] * stride - padding + torch.arange(kernel) * dilation
    return torch.bincount(under[(under >= 0) & (under < size)], minlength=size)


class _SpikeWorth(TorchFunctionMode):
    """While on, knows of each tensor that holds whole numbers of spikes what one spike is worth.

    It follows what the networks do to spikes on their way; whatever else is done to a tensor, its
    result is real-valued.
    """

    def __init__(self) -> None:
        super().__init__()
        self._worth = WeakTensorKeyDictionary()

    def mark(self, x: Tensor, worth: float) -> None:
        self._worth[x] = worth

    def of(self, x: Any) -> float | None:
        worth: float | None = self._worth.get(x) if isinstance(x, Tensor) else None
        return worth

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            spike = self.of(args[0]) if args else None
            if spike is not None:
                spike = self._after(func.__name__, spike, result, args, kwargs)
            if spike is not None:
                self.mark(result, spike)
            else:
                self._worth.pop(result, None)  # if it was changed in place
        return result

    def _after(
        self, name: str, spike: float, result: Tensor, args: Any, kwargs: dict[str, Any]
    ) -> float | None:
        """What a spike worth ``spike`` in ``args[0]`` is worth in ``result``; None if it varies."""
        others = args[1:]
        match name:
            case "flatten" | "unflatten" | "reshape" | "contiguous" | "max_pool2d":
                return spike
            case "mean":
                return spike * result.numel() / int(args[0].numel())
            case "avg_pool2d":
                return _average_pooled(spike, *others, **kwargs)
            case "mul" if others and isinstance(others[0], int | float) and others[0] != 0:
                return spike * others[0]
            case "add" if others and not kwargs and self.of(others[0]) == spike:
                return spike
        return None


def _average_pooled(
    spike: float,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> float | None:
    # Windows that reach over the border may divide by fewer: a spike's worth would vary.
    if padding not in (0, (0, 0)) or ceil_mode:
        return None
    window = kernel * kernel if isinstance(kernel, int) else prod(kernel)
    return spike / (divisor_override or window)
