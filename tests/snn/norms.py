"""The three norms by name, away from their beginning, over a presentation, and as equations."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.snn.norm import OSR, LinearNorm, PerStepBatchNorm

NORMS = {"osr": OSR, "per_step": PerStepBatchNorm, "linear": LinearNorm}
every_norm = pytest.mark.parametrize("kind", NORMS)


def present(norm: nn.Module, x: Tensor, chunks: Sequence[int] | None = None) -> Tensor:
    """A whole presentation of ``x`` (T, N, C, ...), split into ``chunks``."""
    with sequence(norm, steps=len(x)):
        return torch.cat([norm(chunk) for chunk in x.split(chunks or len(x))])


def warm(norm: Any, seed: int = 1) -> Any:
    """``norm`` in float64 with parameters and running statistics unlike its first ones."""
    generator = torch.Generator().manual_seed(seed)
    norm = norm.double()
    with torch.no_grad():
        for tensor, low in (
            (norm.weight, -0.5),  # γ of either sign
            (norm.bias, -1.0),
            (norm.running_mean, -1.0),
            (norm.running_var, 0.3),
        ):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 2 + low)
    return norm.train()


def assert_alike(ours: Tensor, theirs: Tensor, leaves: Sequence[Tensor]) -> None:
    """Equal values, and equal gradients of a weighted sum of them by all ``leaves``."""
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((theirs * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def by_equations(kind: str, norm: Any, x: Tensor) -> Tensor:
    """Eq. 8-9 for each step of ``x``, to be differentiated by autograd."""
    out = []
    along = [1, -1] + [1] * (x.dim() - 3)
    weight, bias, mean, var = (
        tensor.reshape(along)
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    running_std = (var + norm.eps).sqrt()
    for step in x:
        over = [dim for dim in range(step.dim()) if dim != 1]
        step_mean = step.mean(over, keepdim=True)
        step_std = (step.var(over, correction=0, keepdim=True) + norm.eps).sqrt()
        normalized = (step - step_mean) / step_std
        if kind == "osr":
            r = (step_std / running_std).detach()
            d = ((step_mean - mean) / running_std).detach()
            out.append(weight * (normalized * r + d) + bias)
        elif kind == "per_step":
            out.append(weight * normalized + bias)
        else:
            out.append(weight * (step - mean) / running_std + bias)
    return torch.stack(out)
