"""Training to the end, with a checkpoint wherever it may be ended before."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.train.checkpoint import newest_checkpoint, parse_checkpoint, save_checkpoint
from steadyspike.train.config import Experiment
from steadyspike.train.distributed import ALONE, Ranks
from steadyspike.train.progress import TrainingDisplay
from steadyspike.train.signals import Stopped, stop_request
from steadyspike.train.trainer import Trainer

CHECKPOINT_SECONDS = 300.0  # between those within an epoch, if nobody says otherwise


def train(
    experiment: Experiment,
    dataset: Dataset,
    checkpoint: Path,
    ranks: Ranks = ALONE,
    deadline: float | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
) -> tuple[Trainer, float]:
    """Train to the end, from the checkpoint if there is one; the trainer and the seconds it took.

    A checkpoint is written after every epoch, within one every ``checkpoint_every`` seconds, and on
    Ctrl-C, SIGTERM, SIGHUP or the ``deadline`` on `time.monotonic`'s clock.

    Raises:
        Stopped: a signal or the deadline ended the run; its checkpoint is written.
        Diverged: a loss was not finite; the last good checkpoint is left.
        UserError: the checkpoint is damaged or of another experiment.
    """
    trainer = Trainer(experiment, dataset, ranks)
    _resume(trainer, checkpoint)

    def save() -> None:
        if ranks.writes:
            save_checkpoint(checkpoint, experiment, trainer.state())

    began = last_saved = time.monotonic()
    done = trainer.epoch * trainer.batches + trainer.batch
    display = TrainingDisplay(
        experiment.name, experiment.training.epochs, trainer.batches, done, quiet=not ranks.writes
    )
    with display, stop_request(deadline) as request:

        def stop_in_evaluation() -> None:
            # Processes score different batches: only one alone may leave when it likes.
            if ranks.alone and request.exit_status is not None:
                save()
                raise Stopped(request.exit_status)

        while not trainer.finished:
            for images in trainer.run_epoch():
                if display.advance(images):
                    display.show(trainer.epoch + 1, *trainer.numbers())
                late = time.monotonic() - last_saved > checkpoint_every
                # All stop after the same batch, whichever was told to and whenever.
                wish = ranks.most(request.exit_status or int(late))
                if wish:
                    trainer.agree()
                    trainer.numbers()  # never over a good checkpoint with a bad loss
                    save()
                    last_saved = time.monotonic()
                if wish > 1:
                    raise Stopped(wish)
            display.finish_epoch(trainer.finish_epoch(stop_in_evaluation))
            save()
            last_saved = time.monotonic()
        # Told after the last batch and evaluation: the next seed's run would know nothing of it.
        wish = ranks.most(0 if request.signal is None else 128 + request.signal)
        if wish:
            raise Stopped(wish)
    return trainer, time.monotonic() - began


def _resume(trainer: Trainer, checkpoint: Path) -> None:
    """Go on from the checkpoint that has come furthest of those that the processes find, if any."""
    experiment, ranks = trainer.experiment, trainer.ranks
    raw, saved = newest_checkpoint(checkpoint, experiment) or (b"", None)
    with _of_this_version(checkpoint):
        progress = -1 if saved is None else trainer.progress(saved)
    # torchrun may number the machines anew when it starts them again.
    furthest = ranks.everybodys(progress)
    if max(furthest) < 0:
        return
    if not ranks.alone:
        raw = ranks.broadcast_bytes(raw, furthest.index(max(furthest)))
        saved = parse_checkpoint(raw, checkpoint, experiment)
    assert saved is not None
    with _of_this_version(checkpoint):
        trainer.load_state(saved)


@contextmanager
def _of_this_version(checkpoint: Path) -> Iterator[None]:
    """Tells whatever a state leads to that is none of this trainer's."""
    try:
        yield
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise UserError(
            f"{checkpoint}: made by another version of steadyspike; remove the file to begin anew"
        ) from error
