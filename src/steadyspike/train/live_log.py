"""Scalars of each epoch for TensorBoard while a run trains; no part of its result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steadyspike.console import notify
from steadyspike.train.config import Experiment
from steadyspike.train.history import EpochRow


@contextmanager
def live_log(
    experiment: Experiment, folder: Path, epochs: int, *, writes: bool = True
) -> Iterator[Callable[[EpochRow], None]]:
    """Gives a function that logs an epoch; it does nothing unless ``training.log`` is set.

    Args:
        experiment: one of a single seed.
        folder: the run's; each seed logs to a folder of its own in ``tensorboard`` below it.
        epochs: finished epochs; what an interrupted run logged after them is replaced.
        writes: whether this process logs; of several processes one does.

    Raises:
        UserError: the package is not installed.
    """
    if experiment.training.log is None:
        yield lambda row: None
        return
    from steadyspike.extra import import_extra

    tensorboard = import_extra("torch.utils.tensorboard")
    if not writes:
        yield lambda row: None
        return
    place = folder / "tensorboard" / f"seed-{experiment.seed}"
    writer = tensorboard.SummaryWriter(place, purge_step=epochs + 1)

    def log(row: EpochRow) -> None:
        nonlocal writer
        if writer is None:
            return
        try:
            for key, value in row.model_dump(exclude={"epoch"}).items():
                number = len(value) if isinstance(value, tuple) else value  # names of layers
                writer.add_scalar(key, number, row.epoch)
            writer.flush()
        except OSError as error:
            notify(f"steadyspike: note: {place}: the log ends, training goes on: {error}")
            writer = None

    try:
        yield log
    finally:
        if writer is not None:
            writer.close()
