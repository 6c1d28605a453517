"""One process's rows of a batch that several processes train on together.

What a layer learns of a batch (means, variances, sums for its gradient) is then put together from
every process, so that each normalizes and fires as if it held the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The rows of a batch that this process holds, and those of its fellows.

    Every value that comes back is added in the order of the ranks, so all get the same bits.

    Args:
        rank: which of the processes this is.
        rows: how many of the batch's rows each process holds, in the order of the ranks; they are
            its first, its next and so on. Some may be 0, not all.
        gather: one exchange: from this process's tensor, the tensors of all processes, which have
            its shape, stacked in the order of the ranks (ranks, ...).
    """

    rank: int
    rows: tuple[int, ...]
    gather: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, total: int, rank: int, world: int, gather: Callable[[Tensor], Tensor]) -> "Shard":
        """Of ``total`` rows over ``world`` processes as evenly as can be, the first get more."""
        each, more = divmod(total, world)
        return cls(rank, tuple(each + (r < more) for r in range(world)), gather)

    @property
    def first(self) -> int:
        """The place of this process's first row in the batch."""
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
        """Means and biased variances of each process's rows to those of the whole batch.

        Each process has as many values a row. Of a process without rows the values are ignored.
        """
        mine = torch.stack([mean, var])
        means, variances = self.gather(mine if self.here else torch.zeros_like(mine)).unbind(1)
        weights = [rows / self.total for rows in self.rows]
        whole = torch.zeros_like(mean)
        for weight, theirs in zip(weights, means, strict=True):
            whole = whole.add(theirs, alpha=weight)
        spread = torch.zeros_like(var)
        for weight, theirs, variance in zip(weights, means, variances, strict=True):
            # About the whole's mean, not (σ² + μ²) - μ², which loses σ² where μ is large.
            spread = spread.add(variance + (theirs - whole).square(), alpha=weight)
        return whole, spread

    def of_whole(self, drawn: Tensor) -> Tensor:
        """This process's rows of a tensor (total, ...) that was made for the whole batch."""
        return drawn.narrow(0, self.first, self.here)
