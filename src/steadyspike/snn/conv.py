"""Convolutions and poolings of spikes that store little for the backward pass.

Spikes are 0 or 1 and their means over 2 by 2 pixels are quarters: one byte holds them exactly,
where the framework would store four. (On a GPU in bfloat16 it stores two, as they are.) Where
spikes come with a trace, that is stored in their place: the gradient of the weights is its.
"""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.kernels.cpu import winograd
from steadyspike.snn.rule import Traced, on_traces
from steadyspike.snn.sequence import StepModule


class Convolution(nn.Conv2d):
    """A convolution whose bias may be left to the norm after it."""

    @property
    def kernel(self) -> Tensor:
        """The weights that inputs are multiplied by."""
        return self.weight

    def forward(self, x: Tensor, *, biased: bool = True) -> Tensor:
        bias = self.bias if biased else None
        y: Tensor = self._conv_forward(x, self.kernel, bias)
        return y


def convolve(
    conv: Convolution, x: Tensor | Traced, levels: int | None, *, biased: bool = True
) -> Tensor:
    """``conv`` applied to each step alike: (K, N, C, H, W) to (K, N, C', H', W').

    Args:
        conv: the convolution.
        x: its inputs; if they have a trace, the gradient of the weights is that of the trace.
        levels: if given, ``x`` holds multiples of 1/levels up to 255/levels, stored in bytes.
        biased: whether its bias is added.
    """
    spikes, trace = (x, None) if isinstance(x, Tensor) else (x.spikes, x.trace)
    flat = spikes.flatten(0, 1)  # (K, N, C, H, W) -> (K N, C, H, W)
    backend = kernels.backend(flat)
    learns = torch.is_grad_enabled() and conv.weight.requires_grad
    # On a GPU, packing and unpacking to save one of two bytes would take longer than it is worth.
    small = spikes.is_cuda and spikes.element_size() <= 2
    packs = not (backend is kernels.reference or levels is None or small)
    if not learns or (trace is None and not packs):
        y: Tensor = conv(flat, biased=biased)
    else:
        bias = conv.bias if biased else None
        y = _convolve(flat, trace, conv.kernel, bias, conv.stride, conv.padding, levels)
    steps: Tensor = y.unflatten(0, spikes.shape[:2])
    return steps


def linear(layer: nn.Linear, x: Tensor | Traced) -> Tensor:
    """``layer`` of (K, N, C); of spikes with a trace its weights' gradient is that of the trace."""
    if isinstance(x, Tensor):
        y: Tensor = layer(x)
        return y
    spikes, weight = x.spikes.flatten(0, 1), getattr(layer, "kernel", layer.weight)
    # A convolution of images of one pixel
    y = _convolve(spikes[..., None, None], x.trace, weight[..., None, None], layer.bias)
    return y.view(*x.spikes.shape[:2], -1)


def _convolve(
    flat: Tensor,
    trace: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...] = (1, 1),
    padding: Any = (0, 0),
    levels: int | None = None,
) -> Tensor:
    """`_Convolve` of ``flat`` (K N, C, H, W), with the trace that belongs to it, if any."""
    trace = None if trace is None else trace.reshape(flat.shape)
    device = flat.device.type
    if torch.is_autocast_enabled(device):  # autocast does not reach inside custom functions
        low = torch.get_autocast_dtype(device)
        flat, weight = flat.to(low), weight.to(low)
        bias = None if bias is None else bias.to(low)
    trace = None if trace is None else trace.to(flat.dtype)
    backend = kernels.backend(flat)
    return _Convolve.apply(flat, trace, weight, bias, stride, padding, levels, backend)  # type: ignore[no-any-return]


class _Convolve(torch.autograd.Function):
    """A convolution; the gradient of its weights is that of the ``trace`` where there is one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        trace: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        levels: int,
        backend: ModuleType,
    ) -> Tensor:
        ctx.traced = trace is not None
        ctx.save_for_backward(backend.pack(x, levels) if trace is None else trace, weight)
        ctx.stride, ctx.padding, ctx.levels, ctx.backend = stride, padding, levels, backend
        ctx.biases = None if bias is None else [len(bias)]
        ctx.fast = winograd.find(x, weight, stride, padding)
        if ctx.fast is not None:
            y: Tensor = ctx.fast.convolve(x, weight, bias)
            return y
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        of_x, _, of_weight, _ = ctx.needs_input_grad[:4]
        grad_x = grad_weight = grad_bias = None
        if ctx.fast is not None:
            grad_x = ctx.fast.grad_input(grads[0], weight) if of_x else None
            if not ctx.traced or ctx.fast.takes_values:
                levels = 1 if ctx.traced else ctx.levels
                grad_weight, grad_bias = ctx.fast.grad_weight(kept, grads[0], weight, levels)
                return grad_x, None, grad_weight, grad_bias if ctx.biases else None, *[None] * 4
            of_x = False
        x = kept if ctx.traced else ctx.backend.unpack(kept, ctx.levels, weight.dtype)
        shape = (ctx.biases, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1)
        found, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grads[0], x, weight, *shape, [of_x, of_weight, ctx.biases is not None]
        )
        return found if of_x else grad_x, None, grad_weight, grad_bias, *[None] * 4


class StillCurrent(StepModule):
    """The current of a layer that sees the same frame at every step.

    In a presentation of still frames (``sequence(..., still=True)``) it is computed at the first
    step, and its gradient, the sum over the steps, goes through the layer once, at the end.
    """

    _current: Tensor | None = None
    _graph: Tensor

    def forward(self, conv: Convolution, frames: Tensor, *, biased: bool = True) -> Tensor:
        """Frames (K, N, C, H, W) to their currents: (1, N, C', H', W') if still, else K of them."""
        if not self._still:
            return convolve(conv, frames, None, biased=biased)
        self._advance(len(frames))
        if self._current is None:
            # A later step may have a gradient although this one has none.
            with torch.set_grad_enabled(torch.is_grad_enabled() or self.training):
                self._graph = conv(frames[0], biased=biased).unsqueeze(0)
            self._current = self._graph.detach().requires_grad_(self._graph.requires_grad)
        return self._current

    def _begin(self) -> None:
        self._current = None

    def _fold(self) -> None:
        assert self._current is not None
        if self._current.grad is not None:
            self._graph.backward(self._current.grad)

    def _end(self) -> None:
        self._current = None
        self.__dict__.pop("_graph", None)


class AveragePool(nn.Module):
    """Means over 2 by 2 pixels of each step: (K, N, C, H, W) to (K, N, C, H // 2, W // 2).

    As `torch.nn.AvgPool2d`, which however stores its inputs although its gradient needs none.
    """

    def forward(self, x: Tensor | Traced) -> Tensor | Traced:
        return on_traces(_pool, x)


def _pool(x: Tensor) -> Tensor:
    y: Tensor = _AveragePool.apply(x.flatten(0, 1))
    steps: Tensor = y.unflatten(0, x.shape[:2])
    return steps


class _AveragePool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape, ctx.backend = x.shape, kernels.backend(x)
        y: Tensor = ctx.backend.pool(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x: Tensor = ctx.backend.unpool(grads[0], ctx.shape)
        return x
