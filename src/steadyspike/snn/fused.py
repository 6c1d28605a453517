"""Norm and neurons of one layer in one operation, forward and backward (Eq. 2-3, 8-16).

The plain path, `norm.py` and then `neuron.py`, reads and writes a layer's currents a dozen times a
step. Here a step is three passes (moments; charge; fire) and its gradient two, by the kernels of
the device, and the backward pass keeps the currents and the membranes alone: normalized currents
and the distance to the threshold are computed again.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR, LinearNorm, PerStepBatchNorm, values_per_channel
from steadyspike.snn.shard import Shard


def spiking(norm: nn.Module, neuron: LIF, currents: Tensor, steps: int) -> Tensor:
    """``neuron(norm(currents))``: currents (K, N, C, ...) to spikes (K, N, C, ...), 0 or 1.

    In one operation where the device has kernels for it, and then spikes have the currents' type;
    else by the two modules in turn. Both give the same to rounding.

    Args:
        norm, neuron: the layer's.
        currents: of each step, or (1, N, C, ...) if those of all steps are the same.
        steps: K.
    """
    backend = _backend(norm, neuron, currents)
    every = currents.expand(steps, *currents.shape[1:])
    if backend is None:
        spikes: Tensor = neuron(norm(every))
        return spikes
    assert isinstance(norm, OSR | PerStepBatchNorm | LinearNorm)

    def moments(_: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.expand(steps, -1) for each in backend.moments(currents.detach()))

    used = norm.statistics(every, moments)
    layer = _Options(backend, neuron, norm.renormalizes, norm._shard, steps)
    if norm.training:
        fired: Tensor = _Layer.apply(currents, norm.weight, norm.bias, *used, layer)
    else:
        fired, _, _ = _forward(currents, *_affine(norm.weight, norm.bias, *used[:2]), layer)
    return neuron.dropped(fired)


def _backend(norm: nn.Module, neuron: LIF, currents: Tensor) -> ModuleType | None:
    """The kernels for this layer, or None where the modules have to do it in turn."""
    if not isinstance(norm, OSR | PerStepBatchNorm | LinearNorm) or not neuron.online:
        return None
    wide = torch.promote_types(currents.dtype, torch.float32)
    if norm.weight.dtype != wide or norm.training != neuron.training:
        return None
    if _hooked(norm) or _hooked(neuron):
        return None  # somebody wants to see the modules at work
    if not norm.training and torch.is_grad_enabled():
        return None  # the modules' gradient at inference is another
    return kernels.backend(currents)


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


_ALL = slice(None)


@dataclass(frozen=True)
class _Options:
    """What `_Layer` needs besides tensors."""

    backend: ModuleType
    neuron: LIF
    renormalizes: bool
    shard: Shard | None
    steps: int  # K


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (K, N, C, ...), or (1, N, C, ...) of all steps
        weight: Tensor,
        bias: Tensor,
        used_mean: Tensor,  # m: (K, C) or (C,)
        used_std: Tensor,  # s
        mean: Tensor,  # μ[t]: (K, C)
        std: Tensor,  # √(σ²[t] + ε)
        layer: _Options,
    ) -> Tensor:
        scale, shift = _affine(weight, bias, used_mean, used_std)
        spikes, u, thresholds = _forward(x, scale, shift, layer)
        ctx.save_for_backward(x, u, thresholds, scale, used_mean, used_std, mean, std)
        ctx.layer = layer
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, u, thresholds, scale, used_mean, used_std, mean, std = ctx.saved_tensors
        layer: _Options = ctx.layer
        slope = layer.neuron.surrogate_slope
        # All steps at once, or where they share their currents one by one.
        parts = [slice(k, k + 1) for k in range(layer.steps)] if len(x) < layer.steps else [_ALL]
        given = [
            (grads[0][part], u[part], thresholds[part], slope, x, mean[part], std[part])
            for part in parts
        ]
        sums = [layer.backend.grad_sums(*part) for part in given]  # Σ g, Σ g Î
        grad_sum, grad_dot = (torch.cat(each) for each in zip(*sums, strict=True))  # (K, C)
        r, d = std / used_std, (mean - used_mean) / used_std
        grad_weight = (grad_dot * r + grad_sum * d).sum(0)  # Eq. 11
        grad_bias = grad_sum.sum(0)  # Eq. 12
        a = scale.expand(layer.steps, -1).contiguous()
        if layer.renormalizes:  # Eq. 10: γ/s (g - mean g - Î mean(g Î))
            if layer.shard is not None:
                grad_sum, grad_dot = layer.shard.sum(torch.stack([grad_sum, grad_dot]))
            count = values_per_channel(x, layer.shard)
            b, c = a * grad_sum / -count, a * grad_dot / -count
        else:
            b = c = torch.zeros_like(grad_sum)
        grad_x, *more = [
            layer.backend.grad_input(*each, a[part], b[part], c[part])
            for part, each in zip(parts, given, strict=True)
        ]
        for another in more:
            grad_x += another
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


def _affine(
    weight: Tensor, bias: Tensor, used_mean: Tensor, used_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and shift of the normalization, each (K, C) or (C,)."""
    scale = weight / used_std
    return scale, bias - used_mean * scale


def _forward(
    x: Tensor, scale: Tensor, shift: Tensor, layer: _Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, membranes before the reset, both (K, N, C, ...), and thresholds (K,)."""
    neuron, steps = layer.neuron, layer.steps
    scale, shift = (each.expand(steps, -1).contiguous() for each in (scale, shift))
    wide = torch.promote_types(x.dtype, torch.float32)
    spikes, u = (_each_step_like(x, steps, dtype) for dtype in (x.dtype, wide))
    first = neuron.advance(spikes)
    fire_at = None if neuron.stabilize_threshold else neuron.v_threshold
    each = [scale.unbind(), shift.unbind(), u.unbind(), spikes.unbind()]
    currents = x.unbind() if len(x) == steps else [x[0]] * steps
    thresholds = []
    for k, (current, scale_k, shift_k, u_k, spikes_k) in enumerate(
        zip(currents, *each, strict=True)
    ):
        before, threshold = neuron.charged
        moments = layer.backend.charge(
            current,
            scale_k,
            shift_k,
            before,
            threshold,
            leak=neuron.leak,
            zero_reset=neuron.reset == "zero",
            out=u_k,
            statistics=neuron.live_threshold,
            spikes=None if fire_at is None else spikes_k,
            fire_at=fire_at,
        )
        threshold = neuron.threshold_of(u_k, first + k, moments)
        if fire_at is None:  # it hangs on the whole layer
            layer.backend.fire(u_k, threshold, spikes_k)
        neuron.charged = u_k, threshold
        thresholds.append(threshold)
    return spikes, u, torch.stack(thresholds)


def _each_step_like(x: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Uninitialized (K, N, C, ...), each step laid out in memory as those of ``x``."""
    if len(x) == steps:
        return torch.empty_like(x, dtype=dtype)
    flat = torch.empty((steps * x.shape[1], *x.shape[2:]), dtype=dtype, device=x.device)
    if x.dim() == 5 and x[0].is_contiguous(memory_format=torch.channels_last):
        flat = flat.contiguous(memory_format=torch.channels_last)
    every: Tensor = flat.unflatten(0, (steps, x.shape[1]))
    return every
