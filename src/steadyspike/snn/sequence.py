"""Begins and ends one presentation of T time steps.

What a layer carries from step to step (membranes, thresholds, sums for the running statistics)
starts anew when `sequence` is entered; running statistics are updated when it is left.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from steadyspike.snn.shard import Shard


class Sharded:
    """A module that uses statistics of the whole batch, which several processes may share."""

    _shard: Shard | None = None  # of the open presentation; None in a single process


class StepModule(Sharded, nn.Module):
    """A module with state that lasts for one presentation.

    A subclass calls :meth:`_advance` once in each forward pass, resets its state in :meth:`_begin`
    and adds a finished training presentation to its buffers in :meth:`_fold`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._announced: int | None = None  # T of the open presentation
        self._still = False  # whether it shows the same frame at every step
        self._seen = 0  # its steps so far

    def _begin(self) -> None:
        """Reset the state."""

    def _fold(self) -> None:
        """Add the finished training presentation to the running statistics."""

    def _end(self) -> None:
        """Release what only the presentation needed, also after a body that raised."""

    def _advance(self, steps: int) -> int:
        """Count the next ``steps`` as presented; returns how many came before them."""
        if self._announced is None:
            if self.training:
                raise RuntimeError(
                    f"{type(self).__name__} is in training mode and was called outside a "
                    "presentation: wrap the steps in `with sequence(model, steps=T):`"
                )
            # In evaluation mode a lone call is a whole presentation.
            self._begin()
            return 0
        first, self._seen = self._seen, self._seen + steps
        if self._seen > self._announced:
            raise RuntimeError(
                f"{type(self).__name__} got step {self._seen} of a presentation announced with "
                f"steps={self._announced}"
            )
        return first


@contextmanager
def sequence(
    model: nn.Module, steps: int, shard: Shard | None = None, *, still: bool = False
) -> Iterator[None]:
    """One presentation of ``steps`` time steps to ``model``, in one call or in several chunks.

    On entry membranes start from zero. On leaving, in training mode, the statistics of the batch
    are folded into the running ones, once (Alg. 2, at t = T). If the body raises, nothing is
    folded in. In evaluation mode a body may end early (anytime inference).

    Args:
        model: any module that holds norms or neurons of this package, or is one.
        steps: T, the number of steps the body will present, at least 1.
        shard: for training on several processes: which rows of the batch this one presents.
            Statistics and the gradients through them are then the whole batch's; gradients of
            parameters are this process's part, to be added up by the caller.
        still: the frames of all steps are the same: the first layer then computes its current
            once, and has its gradient when the presentation is left, not before.

    Raises:
        ValueError: ``steps`` is no positive integer, or ``model`` holds nothing to begin.
        RuntimeError: the model is already in a presentation; more steps came than announced; or,
            in training mode, the body ended before all of them.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive integer, not {steps!r}")
    members = [module for module in model.modules() if isinstance(module, StepModule)]
    if not members:
        raise ValueError(f"{type(model).__name__} holds no norm or neuron of steadyspike")
    if any(module._announced is not None for module in members):
        raise RuntimeError("the model is already in a presentation: sequences do not nest")
    looking = [module for module in model.modules() if isinstance(module, Sharded)]
    for member in looking:
        member._shard = shard
    for module in members:
        module._announced, module._seen, module._still = steps, 0, still
        module._begin()
    try:
        yield
        training = [module for module in members if module.training]
        # A branch that never ran has nothing to fold in; one that ran too few steps is a mistake.
        ran = [module for module in training if module._seen > 0]
        short = min((module._seen for module in ran), default=0)
        if training and short < steps:
            raise RuntimeError(f"the presentation ended after {short} of its {steps} steps")
        for module in ran:
            module._fold()
    finally:
        for member in looking:
            member._shard = None
        for module in members:
            module._announced, module._still = None, False
            module._end()
