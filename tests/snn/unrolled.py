"""VGGSNN's training step written out in plain torch, with what autograd alone makes of it.

Nothing of the package computes here; the weights are taken from one of its networks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: From a layer's number, t (from 0), and potentials after the reset of all steps so far: μ[t].
Decay = Callable[[list[Tensor]], Tensor | float]
#: From the parameters of a norm and the currents of all steps so far to those of the last step.
Norm = Callable[[nn.Module, list[Tensor]], Tensor]

LEAK, SLOPE = 0.5, 4.0


def ottt(potentials: list[Tensor]) -> float:
    return LEAK


def ndot(potentials: list[Tensor]) -> Tensor:
    """Of step t, with the potentials of steps 1 to t - 1 given."""
    last = potentials[-1]
    before = potentials[-2] if len(potentials) > 1 else torch.zeros_like(last)
    ratio = torch.empty_like(last)
    for place in range(last.numel()):  # as the formula reads, number by number
        v, w = float(last.detach().view(-1)[place]), float(before.detach().view(-1)[place])
        value = v / w if w != 0 else float((v > 0) - (v < 0))
        ratio.view(-1)[place] = max(-LEAK, min(LEAK, value))
    return ratio


DECAYS: dict[str, Decay | None] = {"sltt": None, "ottt": ottt, "ndot": ndot}


@dataclass
class Layer:
    """The state of a layer."""

    currents: list[Tensor] = field(default_factory=list)
    potentials: list[Tensor] = field(default_factory=list)  # after the reset
    trace: Tensor | None = None


def per_step_norm(norm: nn.Module, currents: list[Tensor]) -> Tensor:
    return F.batch_norm(
        currents[-1], None, None, norm.weight, norm.bias, training=True, eps=norm.eps
    )


def spike(u: Tensor) -> Tensor:
    smooth = torch.sigmoid(SLOPE * (u - 1))
    return (u >= 1).to(u) + smooth - smooth.detach()


def with_trace(
    function: Callable[[Tensor, Tensor], Tensor], w: Tensor, s: Tensor, a: Tensor | None
) -> Tensor:
    """A product of weights and spikes whose value is of the spikes, gradient of w of the trace."""
    if a is None:
        return function(s, w)
    of_trace = function(a.detach(), w)
    return function(s, w.detach()) + of_trace - of_trace.detach()


def logits(
    model: nn.Module,
    frames: Tensor,
    layers: list[Layer],
    decay: Decay | None,
    *,
    norm: Norm = per_step_norm,
    reset: str = "subtract",
    online: bool = True,
) -> Tensor:
    """One more step of VGGSNN ``model`` (linear head): frames (N, C, H, W) to logits."""
    x, trace = frames, None
    parts = iter(layers)
    for module in model.features:
        if not hasattr(module, "conv"):
            x = F.avg_pool2d(x, 2)
            trace = None if trace is None else F.avg_pool2d(trace, 2)
            continue
        layer = next(parts)
        weight, bias = module.conv.weight, module.conv.bias.view(-1, 1, 1)
        current = with_trace(lambda s, w: F.conv2d(s, w, padding=1), weight, x, trace) + bias
        layer.currents.append(current)
        u = norm(module.norm, layer.currents)
        if layer.potentials:
            before = layer.potentials[-1]
            u = u + LEAK * (before.detach() if online else before)
        x = spike(u)
        fired = (u >= 1).detach()
        if decay is not None and layer.potentials:
            assert layer.trace is not None
            layer.trace = decay(layer.potentials) * layer.trace + x.detach()
        else:
            layer.trace = x.detach()
        trace = layer.trace if decay is not None else None
        after = torch.zeros_like(u) if reset == "zero" else u - 1
        layer.potentials.append(torch.where(fired, after, u))
    x = x.mean((-2, -1))
    trace = None if trace is None else trace.mean((-2, -1))
    return with_trace(F.linear, model.classifier.weight, x, trace) + model.classifier.bias


def gradients(
    model: nn.Module, clip: Tensor, labels: Tensor, decay: Decay | None, **how: object
) -> dict[str, Tensor]:
    """Of a training batch, by the parameters' names: clip (T, N, C, H, W), labels (N,)."""
    layers = [Layer() for module in model.features if hasattr(module, "conv")]
    loss = torch.zeros(())
    for frames in clip:
        out = logits(model, frames, layers, decay, **how)  # type: ignore[arg-type]
        target = F.one_hot(labels, out.shape[1]).to(out)
        loss = loss + 0.95 * F.cross_entropy(out, labels) + 0.05 * F.mse_loss(out, target)
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss / len(clip), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(named[name]) if grad is None else grad
        for name, grad in zip(named, found, strict=True)
    }
