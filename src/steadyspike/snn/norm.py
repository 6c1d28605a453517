"""Normalization over time: OSR (Eq. 8-15), per-step batch normalization, linear transform.

All map currents (K, N, C, ...) to (K, N, C, ...) and agree at inference:
``γ (I - μ̂) / √(σ̂² + ε) + β`` with the running mean μ̂ and variance σ̂² of each channel. They
differ in the statistics that the forward pass of training uses, in its gradient, and in what is
folded into the running statistics at the end of a presentation.
"""

from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.kernels import reference
from steadyspike.kernels.stable_sqrt import stable_sqrt
from steadyspike.snn.gradient import (
    Normalization,
    scale_and_shift,
    values_per_channel,
    with_gradient,
)
from steadyspike.snn.sequence import Sharded, StepModule
from steadyspike.snn.shard import Shard

#: Batches after which 1/n is below any momentum in use.
WARM = 1_000_000


def _all_time(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over all steps from those of each step, (T, C) to (C,) (Eq. 13-15)."""
    mean = means.mean(0)
    # (σ² + μ²) - μ² loses σ² to rounding where μ is large; the same sum about μ does not.
    return mean, (variances + (means - mean).square()).mean(0)


class StepNorm(StepModule):
    """What the three have in common: parameters, running statistics, sums over the steps.

    Args:
        num_features: C.
        eps: ε, added to variances.
        momentum: weight of the new value in the running statistics; 0 leaves them as they are.
        warm_up_statistics: batch n of the first 1 / momentum has weight 1/n instead, so that the
            running statistics are the plain mean over the batches so far. Not in the paper.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor  # with warm_up_statistics only
    #: Whether the gradient is that of a normalization, or of an affine map.
    renormalizes = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-4,
        momentum: float = 0.1,
        *,
        warm_up_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.warm_up_statistics = warm_up_statistics
        self.weight = nn.Parameter(torch.ones(num_features))  # γ
        self.bias = nn.Parameter(torch.zeros(num_features))  # β
        self.register_buffer("running_mean", torch.zeros(num_features))  # μ̂
        self.register_buffer("running_var", torch.ones(num_features))  # σ̂²
        if warm_up_statistics:
            # A tensor: a number would wait for the device, or be frozen in a recorded graph.
            self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))
        self._begin()

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, x: Tensor) -> Tensor:
        """Currents (K, N, C, ...) of the next K steps, normalized, the same shape.

        `LIF` does this and its own part in one operation: ``neuron(currents, norm)``.
        """
        by = self.normalization(x, len(x))
        return normalized(x, self.weight, self.bias, by)

    @torch.no_grad()
    def normalization(self, x: Tensor, steps: int) -> Normalization:
        """What normalizes currents ``x`` (K, N, C, ...), or (1, N, C, ...) of all ``steps``.

        In training the steps count as presented, and their moments are noted for the running
        statistics.

        Raises:
            ValueError: ``x`` has not C channels.
        """
        if x.dim() < 3 or x.shape[2] != self.num_features:
            raise ValueError(
                f"expected currents (K, N, {self.num_features}, ...), got {tuple(x.shape)}"
            )
        count = values_per_channel(x, self._shard)
        if not self.training:  # the running statistics serve any step, announced or not
            mean, std = self.running_mean, self._running_std()
            every = (mean.expand(steps, -1), std.expand(steps, -1))
            return Normalization(mean, std, *every, count, renormalizes=False)
        self._advance(steps)
        mean, var = (each.expand(steps, -1) for each in kernels.backend(x).moments(x.detach()))
        if self._shard is not None:
            mean, var = self._shard.combine(mean, var)
        self._note(mean, var, count)
        std = stable_sqrt(var + self.eps)
        used = self._used(mean, std)
        return Normalization(*used, mean, std, count, self.renormalizes, self._shard)

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """m and s of K steps, given μ[t] and √(σ²[t] + ε) (K, C); each is (K, C) or (C,)."""
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
            weight = self._weight_of_newest()
            self.running_mean.lerp_(mean.to(self.running_mean), weight)
            self.running_var.lerp_(var.to(self.running_var), weight)

    def _weight_of_newest(self) -> Any:
        """Of the batch that is about to be folded in: a float, or a scalar of the statistics."""
        if not (self.warm_up_statistics and self.momentum):
            return self.momentum
        self.num_batches_tracked += 1
        return (1 / self.num_batches_tracked.to(self.running_mean)).clamp(min=self.momentum)

    def _over_time(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        """What a batch adds to the running statistics, from its (T, C) means and variances."""
        return means.mean(0), variances.mean(0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.warm_up_statistics and prefix + "running_mean" in state_dict:
            # Statistics of a norm that did not count its batches are taken as warm.
            warm = torch.full_like(self.num_batches_tracked, WARM)
            state_dict.setdefault(prefix + "num_batches_tracked", warm)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class OSR(StepNorm):
    """Online spiking renormalization (Eq. 8-15, Alg. 1-2).

    Training and inference normalize every step with the same running statistics; in training the
    gradient is that of a normalization by the step's own. After a presentation the all-time
    statistics ``μ = 1/T Σ μ[t]``, ``σ² = 1/T Σ (σ²[t] + μ[t]²) - μ²`` are folded in.

    Where √(σ²[t] + ε) is over ``fallback_ratio`` times √(σ̂² + ε) in any channel (a running
    variance that has not caught up), the step is normalized by its own statistics, gradient and
    all, as in the released code; ``fallbacks`` counts these steps over the module's life.

    Args:
        num_features: C.
        eps, momentum, warm_up_statistics: as :class:`StepNorm`'s.
        fallback_ratio: the limit; ``math.inf`` never falls back, as in the paper.

    Raises:
        ValueError: ``fallback_ratio`` is not positive.
    """

    fallbacks: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-4,
        momentum: float = 0.1,
        fallback_ratio: float = 20.0,
        *,
        warm_up_statistics: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, warm_up_statistics=warm_up_statistics)
        if not fallback_ratio > 0:
            raise ValueError(f"fallback_ratio must be positive, not {fallback_ratio}")
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


class PerStepBatchNorm(StepNorm):
    """ "Vanilla BN": each step normalized by its own batch statistics in training.

    The running statistics are updated once per presentation from ``1/T Σ μ[t]``, ``1/T Σ σ²[t]``.
    """

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        return mean, std


class LinearNorm(StepNorm):
    """The linear transform of Appendix E: running statistics, and no normalization gradient.

    The running statistics move with weight 0.01; the variance is fed with unbiased step variances.
    """

    renormalizes = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-4,
        momentum: float = 0.01,
        *,
        warm_up_statistics: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, warm_up_statistics=warm_up_statistics)

    def _note(self, mean: Tensor, var: Tensor, count: int) -> None:
        super()._note(mean, var * (count / max(count - 1, 1)), count)

    def _over_time(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        return _all_time(means, variances)

    def _used(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        # A copy: folding in changes the running mean in place, possibly before the backward pass.
        return self.running_mean.clone(), self._running_std()


class BatchNorm(Sharded, nn.BatchNorm2d):
    """The framework's batch normalization applied to each step, for BPTT: (K, N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self._shard is not None:
            return self._forward_sharded(x, self._shard)
        return torch.stack([super(BatchNorm, self).forward(step) for step in x.unbind()])

    def _forward_sharded(self, x: Tensor, shard: Shard) -> Tensor:
        """The same with the statistics of all processes, running ones moved at every step."""
        count = values_per_channel(x, shard)
        with torch.no_grad():
            mean, var = shard.combine(*kernels.backend(x).moments(x.detach()))
            std = stable_sqrt(var + self.eps)
            # Typed Any: torch allows None here (track_running_stats=False), which is not used.
            old_mean: Any = self.running_mean
            old_var: Any = self.running_var
            steps: Any = self.num_batches_tracked
            for step_mean, step_var in zip(mean, var * (count / max(count - 1, 1)), strict=True):
                old_mean.lerp_(step_mean.to(old_mean), self.momentum)
                old_var.lerp_(step_var.to(old_var), self.momentum)
            steps += len(mean)
        by = Normalization(mean, std, mean, std, count, renormalizes=True, shard=shard)
        return normalized(x, self.weight, self.bias, by)


def normalized(x: Tensor, weight: Tensor, bias: Tensor, by: Normalization) -> Tensor:
    """γ (I - m) / s + β of currents (K, N, C, ...), at least in float32, without neurons."""
    with torch.no_grad():
        scale, shift = scale_and_shift(weight, bias, by)
        y = reference.affine(x, scale, shift).to(torch.promote_types(x.dtype, weight.dtype))
    affine = (weight, bias, scale)
    return with_gradient(y, x, kernels.backend(x), affine=affine, normalization=by)
