"""A layer's operations on its currents, fused: each input is read once, each output written once.

One step of a layer is: moments of the currents; charge, u = scale x + shift + leak reset(u of the
last step); fire, where u reaches the threshold. Its gradient is two passes, `grad_sums` and
`grad_input`. The passes are separate where the next one needs a statistic of the whole layer, which
several processes may have to combine.

Three backends hold the same functions: `reference` in plain torch, `cpu` in C, `cuda` in Triton.
Tensors of K steps are (K, N, C, ...), of one step (N, C, ...); channels last in memory is fastest.
Currents x, gradients and spikes are float32 or bfloat16, u is of its `membrane_type`, all else is
float32; the reference takes any floating type. What is stored of a step is u before the reset; the
next charge does the reset.

``moments(x)``
    Mean and biased variance of each step and channel, two (K, C).
``charge(x, scale, shift, before, threshold, leak, zero_reset, out, ...)``
    One step: ``out`` = scale x + shift + leak r. scale and shift are (C,), or None for x as it is.
    r is ``before`` (u of the last step) where it is below ``threshold`` (a scalar), else 0 or
    before - threshold; ``before`` is None at the first step. And if asked for: ``statistics``
    returns (2,), the mean of out and the sum of squared deviations from it; a
    :class:`~steadyspike.kernels.stabilizer.Stabilizer` writes θ of the step, by those; ``spikes``
    has out >= ``fire_at`` written to it, ``last_spikes`` has before >= ``threshold``.
``membrane_type(currents)``
    The type of u for currents of a type: float32, and in `cuda` float16 for bfloat16.
``fire(u, threshold, out)``
    One step: ``out`` = 1 where u >= threshold (a scalar), else 0.
``grad_sums(grad, u, thresholds, slope, x, mean, std)``
    Σ g and Σ g Î of each step and channel, two (K, C), with Î = (x - mean) / std and
    g = grad k σ(k (u - θ)) (1 - σ(k (u - θ))); without u, g = grad. ``x`` may be one
    step, which all K have in common.
``grad_input(grad, u, thresholds, slope, x, mean, std, a, b, c)``
    a g + b + c Î in x's type, with a, b, c (K, C); without x, g. The sum over the steps if ``x`` is
    one step.
``norm_forward(mean, var, running, affine, offset, eps, limit, moments)``
    `Scales` of K steps by their moments. These are of currents without their ``offset`` (C,), a
    convolution's bias.
``norm_inference(running, affine, offset, eps, steps)``
    `Scales` of K steps by the running statistics alone.
``norm_backward(grad_sum, grad_dot, whole, scales, count)``
    a, b, c of `grad_input`, and the gradients of γ, β and the offset.
``norm_fold(moments, running, weight, between, unbias, fallbacks)``
    The running statistics at the end of a presentation.
``pool(x)``, ``unpool(grad, shape)``
    Means over 2 by 2 pixels of (N, C, H, W), and their gradient of that shape.
``pack(x, levels)``, ``unpack(packed, levels, dtype)``
    Multiples of 1/levels, up to 255/levels, as bytes and back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from steadyspike.console import notify
from steadyspike.kernels import reference
from steadyspike.variables import kernels_enabled

_disabled = False


def backend(x: Tensor) -> ModuleType:
    """The kernels for a tensor's type and device: fused ones, or the `reference`."""
    if _disabled or x.dtype not in (torch.float32, torch.bfloat16):
        return reference
    return _of_device(x.device.type)


@contextmanager
def disabled() -> Iterator[None]:
    """Within the body the `reference` does everything, to compare with."""
    global _disabled
    before, _disabled = _disabled, True
    try:
        yield
    finally:
        _disabled = before


@cache
def _of_device(device: str) -> ModuleType:
    if not kernels_enabled():
        return reference
    if device == "cpu":
        from steadyspike.kernels import cpu
        from steadyspike.kernels.cpu import build

        try:
            for bfloat16 in (False, True):
                build.library(bfloat16)
        except build.NoCompiler as error:
            notify(
                f"steadyspike: note: no fused kernels: {error}; training is slower and rounds "
                f"differently: {error.remedy}"
            )
            return reference
        return cpu
    if device == "cuda":
        try:
            from steadyspike.kernels import cuda
        except ImportError:  # no Triton
            return reference
        return cuda
    return reference
