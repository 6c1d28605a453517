"""Normalization over time: OSR (Eq. 8-15), per-step batch normalization, linear transform.

All map currents (K, N, C, ...) to (K, N, C, ...) and agree at inference:
``γ (I - μ̂) / √(σ̂² + ε) + β`` with the running mean μ̂ and variance σ̂² of each channel. They
differ in the statistics that the forward pass of training uses, in its gradient, and in what is
folded into the running statistics at the end of a presentation.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike.snn.sequence import Shared, StepModule
from steadyspike.snn.shard import Shard
from steadyspike.snn.stable_sqrt import stable_sqrt


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each step and channel: ``x`` (K, N, C, ...) to two (K, C)."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [dim for dim in range(x.dim()) if dim not in (0, 2)]
    mean = x.mean(over)
    # Two passes over the values: exact for any mean, and faster than torch.var_mean on a CPU.
    return mean, (x - _along(mean, x)).square_().mean(over)


def values_per_channel(x: Tensor, shard: Shard | None) -> int:
    """How many values of ``x`` (K, N, C, ...) a mean is of: N times the places, of all shares."""
    return (x.shape[1] if shard is None else shard.total) * math.prod(x.shape[3:])


def _along(per_channel: Tensor, x: Tensor) -> Tensor:
    """(K, C) or (C,) shaped to broadcast along ``x`` (K, N, C, ...)."""
    return per_channel.reshape(-1, 1, x.shape[2], *[1] * (x.dim() - 3))


class _Renormalize(torch.autograd.Function):
    """γ (I - m) / s + β with given statistics, and the gradient of a real normalization.

    Forward, with Î = (I - μ[t]) / √(σ²[t] + ε) by the step's own batch statistics, is
    γ (Î r + d) + β where r = √(σ²[t] + ε) / s and d = (μ[t] - m) / s carry no gradient
    (Eq. 8, 9). OSR takes m = μ̂ and s = √(σ̂² + ε); with m = μ[t] and s = √(σ²[t] + ε) it is
    ordinary batch normalization, r = 1 and d = 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        used_mean: Tensor,  # m: (K, C) or (C,)
        used_std: Tensor,  # s
        mean: Tensor,  # μ[t]: (K, C)
        std: Tensor,  # √(σ²[t] + ε)
        shard: Shard | None,  # of a batch on several processes, whose statistics these are
    ) -> Tensor:
        ctx.save_for_backward(x, weight, used_mean, used_std, mean, std)
        ctx.shard = shard
        return _affine(x, weight, bias, used_mean, used_std)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, used_mean, used_std, mean, std = ctx.saved_tensors
        (grad,) = grads
        over = [dim for dim in range(x.dim()) if dim not in (0, 2)]
        normalized = (x - _along(mean, x)).div_(_along(std, x))  # Î
        grad_sum = grad.sum(over)
        grad_dot = (grad * normalized).sum(over)
        r, d = std / used_std, (mean - used_mean) / used_std
        grad_weight = (grad_dot * r + grad_sum * d).sum(0)  # Eq. 11: Σ g (Î r + d)
        grad_bias = grad_sum.sum(0)  # Eq. 12
        # Eq. 10: γ/s (g - mean g - Î mean(g Î))
        count = values_per_channel(x, ctx.shard)
        if ctx.shard is not None:
            grad_sum, grad_dot = ctx.shard.sum(torch.stack([grad_sum, grad_dot]))
        scale = weight / used_std
        grad_x = torch.addcmul(
            _along(-scale * grad_sum / count, x), grad, _along(scale, x)
        ).addcmul_(normalized, _along(-scale * grad_dot / count, x))
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None, None, None


def _affine(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    scale = weight / std  # at least float32, as the statistics are
    y = torch.addcmul(_along(bias - mean * scale, x), x, _along(scale, x))
    return y.to(torch.promote_types(x.dtype, weight.dtype))


def _all_time(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over all steps from those of each step, (T, C) to (C,) (Eq. 13-15)."""
    mean = means.mean(0)
    # (σ² + μ²) - μ² loses σ² to rounding where μ is large; the same sum about μ does not.
    return mean, (variances + (means - mean).square()).mean(0)


class _Norm(StepModule):
    """What the three have in common: parameters, running statistics, sums over the steps."""

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor
    #: Whether the gradient is that of a normalization, or of an affine map.
    renormalizes = True

    def __init__(self, num_features: int, eps: float = 1e-4, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))  # γ
        self.bias = nn.Parameter(torch.zeros(num_features))  # β
        self.register_buffer("running_mean", torch.zeros(num_features))  # μ̂
        self.register_buffer("running_var", torch.ones(num_features))  # σ̂²
        self._begin()

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, x: Tensor) -> Tensor:
        """Currents (K, N, C, ...) of the next K steps, normalized, the same shape."""
        used = self.statistics(x)
        if not self.training:
            return _affine(x, self.weight, self.bias, *used)
        if not self.renormalizes:
            return _affine(x, self.weight, self.bias, *used[:2])
        return _renormalize(x, self.weight, self.bias, *used, self._shard)

    @torch.no_grad()
    def statistics(
        self, x: Tensor, moments: Callable[[Tensor], tuple[Tensor, ...]] = _moments
    ) -> tuple[Tensor, ...]:
        """What normalizes currents (K, N, C, ...): m and s, and in training μ[t] and √(σ²[t] + ε).

        In training the K steps count as presented, and their moments are noted for the running
        statistics. Each is (K, C), or (C,) where all steps have the same.
        """
        if x.dim() < 3 or x.shape[2] != self.num_features:
            raise ValueError(
                f"expected currents (K, N, {self.num_features}, ...), got {tuple(x.shape)}"
            )
        if not self.training:  # the running statistics serve any step, announced or not
            return self.running_mean, self._running_std()
        self._advance(x)
        mean, var = moments(x.detach())
        if self._shard is not None:
            mean, var = self._shard.combine(mean, var)
        self._note(mean, var, values_per_channel(x, self._shard))
        std = stable_sqrt(var + self.eps)
        return *self._used(mean, std), mean, std

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """m and s, by which the K steps of moments (K, C) are to be normalized: (K, C) or (C,)."""
        raise NotImplementedError

    def _running_std(self) -> Tensor:
        statistics = torch.promote_types(self.running_var.dtype, torch.float32)
        return stable_sqrt(self.running_var.to(statistics) + self.eps)

    def _begin(self) -> None:
        self._means: list[Tensor] = []  # μ[t], (K, C) a call
        self._vars: list[Tensor] = []  # σ²[t], (K, C) a call

    def _note(self, mean: Tensor, var: Tensor, count: int) -> None:
        self._means.append(mean)
        self._vars.append(var)

    def _fold(self) -> None:
        with torch.no_grad():
            mean, var = self._over_time(torch.cat(self._means), torch.cat(self._vars))
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(var.to(self.running_var), self.momentum)

    def _over_time(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        """What a batch adds to the running statistics, from its (T, C) means and variances."""
        return means.mean(0), variances.mean(0)


class OSR(_Norm):
    """Online spiking renormalization (Eq. 8-15, Alg. 1-2).

    Training and inference normalize every step with the same running statistics; in training the
    gradient is that of a normalization by the step's own. After a presentation the all-time
    statistics ``μ = 1/T Σ μ[t]``, ``σ² = 1/T Σ (σ²[t] + μ[t]²) - μ²`` are folded in.

    Where √(σ²[t] + ε) is over ``fallback_ratio`` times √(σ̂² + ε) in any channel (a running
    variance that has not caught up), the step is normalized by its own statistics, gradient and
    all, as in the released code; ``fallbacks`` counts these steps over the module's life.

    Args:
        num_features: C.
        eps: ε, added to variances.
        momentum: weight of the new value in the running statistics.
        fallback_ratio: the limit; ``math.inf`` never falls back, as in the paper.
    """

    fallbacks: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-4,
        momentum: float = 0.1,
        fallback_ratio: float = 20.0,
    ) -> None:
        super().__init__(num_features, eps, momentum)
        self.fallback_ratio = fallback_ratio
        self.register_buffer("fallbacks", torch.zeros((), dtype=torch.int64))

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        running_std = self._running_std()
        # Decided on the device, step by step: (K, 1)
        own = (std > self.fallback_ratio * running_std).any(1, keepdim=True)
        self._fell_back.append(own.sum())
        return torch.where(own, mean, self.running_mean), torch.where(own, std, running_std)

    def _begin(self) -> None:
        super()._begin()
        self._fell_back: list[Tensor] = []  # how many of the steps of each call

    def _fold(self) -> None:
        super()._fold()
        self.fallbacks += torch.stack(self._fell_back).sum()

    def _over_time(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        return _all_time(means, variances)


class PerStepBatchNorm(_Norm):
    """ "Vanilla BN": each step normalized by its own batch statistics in training.

    The running statistics are updated once per presentation from ``1/T Σ μ[t]``, ``1/T Σ σ²[t]``.
    """

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        return mean, std


class LinearNorm(_Norm):
    """The linear transform of Appendix E: running statistics, and no normalization gradient.

    The running statistics move with weight 0.01; the variance is fed with unbiased step variances.
    """

    renormalizes = False

    def __init__(self, num_features: int, eps: float = 1e-4, momentum: float = 0.01) -> None:
        super().__init__(num_features, eps, momentum)

    def _note(self, mean: Tensor, var: Tensor, count: int) -> None:
        super()._note(mean, var * (count / max(count - 1, 1)), count)

    def _over_time(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        return _all_time(means, variances)

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        # A copy: the fold changes the running mean in place, maybe before the backward pass.
        return self.running_mean.clone(), self._running_std()


class BatchNorm(Shared, nn.BatchNorm2d):
    """The framework's batch normalization applied to each step, for BPTT: (K, N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self._shard is not None:
            return self._forward_shared(x, self._shard)
        return torch.stack([super(BatchNorm, self).forward(step) for step in x.unbind()])

    def _forward_shared(self, x: Tensor, shard: Shard) -> Tensor:
        """The same with the statistics of all processes, running ones moved at every step."""
        count = values_per_channel(x, shard)
        with torch.no_grad():
            mean, var = shard.combine(*_moments(x.detach()))
            std = stable_sqrt(var + self.eps)
            # These have no type: the framework's norm may be told to do without them.
            old_mean: Any = self.running_mean
            old_var: Any = self.running_var
            steps: Any = self.num_batches_tracked
            for step_mean, step_var in zip(mean, var * (count / max(count - 1, 1)), strict=True):
                old_mean.lerp_(step_mean.to(old_mean), self.momentum)
                old_var.lerp_(step_var.to(old_var), self.momentum)
            steps += len(mean)
        return _renormalize(x, self.weight, self.bias, mean, std, mean, std, shard)


def _renormalize(*arguments: Any) -> Tensor:
    return _Renormalize.apply(*arguments)  # type: ignore[no-any-return]
