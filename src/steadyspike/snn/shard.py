"""The rows of a batch that one of several training processes holds.

Statistics of a batch (means, variances, sums for the gradient) are combined from all processes, so
that each normalizes and fires as if it held the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Which rows of a batch this process holds, and how many the others hold.

    All sums are added in the order of the ranks, so that every process gets the same bits.

    Args:
        rank: which of the processes this is.
        rows: how many rows each process holds, in the order of the ranks: rank 0 holds the first
            rows of the batch, rank 1 the next. Some may be 0, not all.
        gather: one exchange: from this process's tensor, the tensors of all processes, which have
            its shape, stacked in the order of the ranks (ranks, ...).
    """

    rank: int
    rows: tuple[int, ...]
    gather: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, total: int, rank: int, world: int, gather: Callable[[Tensor], Tensor]) -> "Shard":
        """Split ``total`` rows over ``world`` processes evenly; the first ranks get one more."""
        each, more = divmod(total, world)
        return cls(rank, tuple(each + (r < more) for r in range(world)), gather)

    @property
    def first(self) -> int:
        """Index of this process's first row in the batch."""
        return sum(self.rows[: self.rank])

    @property
    def here(self) -> int:
        """How many rows this process holds."""
        return self.rows[self.rank]

    @property
    def total(self) -> int:
        """How many rows the batch has."""
        return sum(self.rows)

    def sum(self, mine: Tensor) -> Tensor:
        """The sum over the processes, the same shape."""
        return self.gather(mine).sum(0)

    def combine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Means and biased variances of this process's rows to those of the whole batch.

        Every row has the same number of values. A process without rows has no weight.
        """
        mine = torch.stack([mean, var])
        means, variances = self.gather(mine if self.here else torch.zeros_like(mine)).unbind(1)
        weights = [rows / self.total for rows in self.rows]
        whole = torch.zeros_like(mean)
        for weight, theirs in zip(weights, means, strict=True):
            whole = whole.add(theirs, alpha=weight)
        spread = torch.zeros_like(var)
        for weight, theirs, variance in zip(weights, means, variances, strict=True):
            # Around the batch's mean, not (σ² + μ²) - μ², which loses σ² where μ is large.
            spread = spread.add(variance + (theirs - whole).square(), alpha=weight)
        return whole, spread

    def of_whole(self, drawn: Tensor) -> Tensor:
        """This process's rows of a tensor (total, ...) of the whole batch."""
        return drawn.narrow(0, self.first, self.here)
