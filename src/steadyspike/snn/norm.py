"""Normalization over time: OSR (Eq. 8-15), per-step batch normalization, linear transform.

All map currents (K, N, C, ...) to (K, N, C, ...) and agree at inference:
``γ (I - μ̂) / √(σ̂² + ε) + β`` with the running mean μ̂ and variance σ̂² of each channel. They
differ in the statistics that the forward pass of training uses, in its gradient, and in what is
folded into the running statistics at the end of a presentation.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.kernels import reference
from steadyspike.kernels.norm import StepMoments
from steadyspike.snn.gradient import (
    Normalization,
    values_per_channel,
    with_gradient,
)
from steadyspike.snn.sequence import Sharded, StepModule
from steadyspike.snn.shard import Shard

#: Batches after which 1/n is below any momentum in use.
WARM = 1_000_000


class StepNorm(StepModule):
    """Base of the norms for online training: parameters, running statistics, their updates.

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
    #: A step is normalized by the running statistics, but by its own if some channel's standard
    #: deviation is over this many times the running one. None: always by its own.
    fallback_ratio: float | None = None
    _moments: StepMoments | None
    #: Whether the gradient is that of a normalization, or of an affine map.
    renormalizes = True
    #: Whether the variance between the steps' means is part of the running variance.
    all_time = True
    #: Whether the steps' variances in it are unbiased ones.
    unbiased = False
    #: Whether it adds the convolution's bias, as the ``offset`` of `forward`.
    takes_offset = True

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

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """Currents (K, N, C, ...) of the next K steps, normalized, the same shape.

        `LIF` does this and its own part in one operation: ``neuron(currents, norm)``.

        Args:
            x: the currents, to which ``offset`` is still to be added.
            offset: (C,) such as a convolution's bias. It costs no pass over ``x``; its gradient
                through a normalization is 0.
        """
        return normalized(x, self.normalization(x, len(x), offset))

    @torch.no_grad()
    def normalization(self, x: Tensor, steps: int, offset: Tensor | None = None) -> Normalization:
        """What normalizes currents ``x`` (K, N, C, ...), or (1, N, C, ...) of all ``steps``.

        In training the steps count as presented, and their moments are kept for the running
        statistics. ``offset`` is that of `forward`.

        Raises:
            ValueError: ``x`` has not C channels.
        """
        self._check(x)
        backend, count = kernels.backend(x), values_per_channel(x, self._shard)
        running, affine = (self.running_mean, self.running_var), (self.weight, self.bias)
        if not self.training:  # the running statistics serve any step, announced or not
            scales = backend.norm_inference(running, affine, offset, eps=self.eps, steps=steps)
            return Normalization(scales, affine, offset, count, renormalizes=False)
        first = self._advance(steps)
        mean, var = backend.moments(x.detach())
        if self._shard is not None:
            mean, var = self._shard.combine(mean, var)
        if self._moments is None:
            self._moments, self._count = StepMoments.empty(mean, self._announced or steps), count
        scales = backend.norm_forward(
            mean.expand(steps, -1),
            var.expand(steps, -1),
            running,
            affine,
            offset,
            eps=self.eps,
            limit=self.fallback_ratio,
            moments=self._moments.part(first, steps),
        )
        return Normalization(scales, affine, offset, count, self.renormalizes, self._shard)

    def _check(self, x: Tensor) -> None:
        if x.dim() < 3 or x.shape[2] != self.num_features:
            raise ValueError(
                f"expected currents (K, N, {self.num_features}, ...), got {tuple(x.shape)}"
            )

    def _begin(self) -> None:
        self._moments = None
        self._count = 0  # the values behind each mean

    @torch.no_grad()
    def _fold(self) -> None:
        assert self._moments is not None
        kernels.backend(self._moments.means).norm_fold(
            self._moments,
            (self.running_mean, self.running_var),
            weight=self._weight_of_newest(),
            between=self.all_time,
            unbias=self._count / max(self._count - 1, 1) if self.unbiased else 1.0,
            fallbacks=getattr(self, "fallbacks", None),
        )

    def _weight_of_newest(self) -> Any:
        """Of the batch that is about to be folded in: a float, or a scalar of the statistics."""
        if not (self.warm_up_statistics and self.momentum):
            return self.momentum
        self.num_batches_tracked += 1
        return (1 / self.num_batches_tracked.to(self.running_mean)).clamp(min=self.momentum)

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


class PerStepBatchNorm(StepNorm):
    """ "Vanilla BN": each step normalized by its own batch statistics in training.

    The running statistics are updated once per presentation from ``1/T Σ μ[t]``, ``1/T Σ σ²[t]``.
    """

    all_time = False


class LinearNorm(StepNorm):
    """The linear transform of Appendix E: running statistics, and no normalization gradient.

    The running statistics move with weight 0.01; the variance is fed with unbiased step variances.
    """

    fallback_ratio = math.inf
    renormalizes = False
    unbiased = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-4,
        momentum: float = 0.01,
        *,
        warm_up_statistics: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, warm_up_statistics=warm_up_statistics)


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
            # Typed Any: torch allows None here (track_running_stats=False), which is not used.
            old_mean: Any = self.running_mean
            old_var: Any = self.running_var
            steps: Any = self.num_batches_tracked
            for step_mean, step_var in zip(mean, var * (count / max(count - 1, 1)), strict=True):
                old_mean.lerp_(step_mean.to(old_mean), self.momentum)
                old_var.lerp_(step_var.to(old_var), self.momentum)
            steps += len(mean)
            affine = self.weight, self.bias
            scales = kernels.backend(x).norm_forward(
                mean, var, (old_mean, old_var), affine, None, eps=self.eps, limit=None, moments=None
            )
        return normalized(x, Normalization(scales, affine, None, count, True, shard))


def normalized(x: Tensor, by: Normalization) -> Tensor:
    """γ (I - m) / s + β of currents (K, N, C, ...), at least in float32, without neurons."""
    with torch.no_grad():
        y = reference.affine(x, by.scales.scale, by.scales.shift)
        y = y.to(torch.promote_types(x.dtype, by.affine[0].dtype))
    return with_gradient(y, x, kernels.backend(x), normalization=by)
