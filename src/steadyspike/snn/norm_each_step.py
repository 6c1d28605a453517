"""Norms with parameters and running statistics of their own for each time step: BNTT and TAB."""

from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.kernels.norm import Scales, StepMoments
from steadyspike.snn.gradient import Normalization, values_per_channel
from steadyspike.snn.norm import StepNorm


class EachStepNorm(StepNorm):
    """Base of both: γ, β, μ̂ and σ̂² are (T, C), a row for each time step.

    Training normalizes by the batch's statistics, inference by the running ones of the same step;
    steps beyond T have the last row.

    Args:
        num_features: C.
        steps: T.
        eps, momentum, warm_up_statistics: as :class:`~steadyspike.snn.norm.StepNorm`'s.
    """

    def __init__(
        self,
        num_features: int,
        steps: int,
        eps: float = 1e-4,
        momentum: float = 0.1,
        *,
        warm_up_statistics: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, warm_up_statistics=warm_up_statistics)
        self.steps = steps
        self.weight = nn.Parameter(torch.ones(steps, num_features))
        self.bias = nn.Parameter(torch.zeros(steps, num_features))
        self.running_mean = torch.zeros(steps, num_features)
        self.running_var = torch.ones(steps, num_features)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, steps={self.steps}"

    def affine(self, first: int, steps: int) -> tuple[Tensor, Tensor]:
        """What the normalized currents of these steps are multiplied by, and what is added.

        Both (K, C), as autograd sees them.
        """
        return of_steps(self.weight, first, steps), of_steps(self.bias, first, steps)

    def normalization(self, x: Tensor, steps: int, offset: Tensor | None = None) -> Normalization:
        self._check(x)
        first = self._advance(steps)
        affine = self.affine(first, steps)
        count = values_per_channel(x, self._shard)
        with torch.no_grad():
            if not self.training:
                scales = self._at_inference(x, affine, first, offset)
                return Normalization(scales, affine, offset, count, renormalizes=False)
            scales, share = self._in_training(x, affine, first, offset)
        return Normalization(scales, affine, offset, count, True, self._shard, share)

    def _at_inference(
        self, x: Tensor, affine: tuple[Tensor, Tensor], first: int, offset: Tensor | None
    ) -> Scales:
        backend, steps = kernels.backend(x), len(affine[0])
        means = of_steps(self.running_mean, first, steps)
        variances = of_steps(self.running_var, first, steps)
        return _joined(
            [
                backend.norm_inference(
                    (means[k], variances[k]),
                    (affine[0][k], affine[1][k]),
                    offset,
                    eps=self.eps,
                    steps=1,
                )
                for k in range(steps)
            ]
        )

    def _in_training(
        self, x: Tensor, affine: tuple[Tensor, Tensor], first: int, offset: Tensor | None
    ) -> tuple[Scales, Tensor | None]:
        """The scales, and the ``share`` of `Normalization`."""
        backend, steps = kernels.backend(x), len(affine[0])
        mean, var = backend.moments(x.detach())
        if self._shard is not None:
            mean, var = self._shard.combine(mean, var)
        if self._moments is None:
            self._moments = StepMoments.empty(mean, self._announced or steps)
        mean, var, share = self._statistics(mean.expand(steps, -1), var.expand(steps, -1), first)
        every = [
            backend.norm_forward(
                mean[k : k + 1],
                var[k : k + 1],
                (mean[k], var[k]),  # in place of running ones, which are not used without a limit
                (affine[0][k], affine[1][k]),
                offset,
                eps=self.eps,
                limit=None,
                moments=self._moments.part(first + k, 1),
            )
            for k in range(steps)
        ]
        return _joined(every), share

    def _statistics(
        self, mean: Tensor, var: Tensor, first: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """From the steps' own moments (K, C) those that normalize them, and the ``share``."""
        raise NotImplementedError

    @torch.no_grad()
    def _fold(self) -> None:
        assert self._moments is not None
        weight: Any = self._weight_of_newest()
        rows = min(self.steps, len(self._moments.means))
        for running, new in (
            (self.running_mean, self._moments.means),
            (self.running_var, self._moments.variances),
        ):
            running[:rows].lerp_(new[:rows].to(running), weight)


class BNTT(EachStepNorm):
    """Batch normalization through time: each step by its own statistics (Kim and Panda, 2021).

    β is learned too, as in the libraries; the paper's formula has γ alone.
    """

    def _statistics(self, mean: Tensor, var: Tensor, first: int) -> tuple[Tensor, Tensor, None]:
        return mean, var, None


class TAB(EachStepNorm):
    """Temporal accumulated batch normalization: step t by the statistics of steps 1 to t.

    ``p[t]² (γ[t] (I[t] - m[t]) / √(s²[t] + ε) + β[t])`` with mean m[t] and variance s²[t] of the
    currents of steps 1 to t, batch and space together (Jiang et al., ICLR 2024; p as in its code).
    In online training the currents of earlier steps are constants: of m[t] and s²[t], the part
    that step t itself has carries gradient.
    """

    takes_offset = False

    def __init__(self, num_features: int, steps: int, *args: Any, **options: Any) -> None:
        super().__init__(num_features, steps, *args, **options)
        self.step_weight = nn.Parameter(torch.ones(steps))  # p

    def affine(self, first: int, steps: int) -> tuple[Tensor, Tensor]:
        squares = of_steps(self.step_weight, first, steps).square().unsqueeze(1)  # (K, 1)
        weight, bias = super().affine(first, steps)
        return squares * weight, squares * bias

    def _begin(self) -> None:
        super()._begin()
        self._means: list[Tensor] = []  # of the steps so far, each (C,)
        self._variances: list[Tensor] = []

    def _statistics(self, mean: Tensor, var: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        means, variances = [], []
        for k in range(len(mean)):
            self._means.append(mean[k])
            self._variances.append(var[k])
            each = torch.stack(self._means)
            so_far = each.mean(0)
            means.append(so_far)
            # Around the common mean: Σ I² - m² would lose s² where m is large.
            between = (each - so_far).square()
            variances.append((torch.stack(self._variances) + between).mean(0))
        steps = torch.arange(first + 1, first + len(mean) + 1, dtype=mean.dtype, device=mean.device)
        return torch.stack(means), torch.stack(variances), (1 / steps).unsqueeze(1)


def of_steps(rows: Tensor, first: int, steps: int) -> Tensor:
    """Rows ``first`` to ``first + steps`` of (T, ...); the last one stands for those beyond T."""
    # Not by a list as an index, which would be copied to a GPU and waited for.
    last = len(rows) - 1
    return torch.stack([rows[min(t, last)] for t in range(first, first + steps)])


def _joined(each: list[Scales]) -> Scales:
    return Scales(*(torch.cat(vectors) for vectors in zip(*each, strict=True)))
