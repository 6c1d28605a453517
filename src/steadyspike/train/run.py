"""Trains an experiment with each of its seeds, and writes ``runs/<experiment>/``."""

import json
import platform
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from steadyspike import __version__
from steadyspike.console import notify
from steadyspike.data import Dataset
from steadyspike.data.collate import check
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.pins import cpu_name
from steadyspike.train.checkpoint import (
    REMEDY,
    StaleCheckpoint,
    newest_checkpoint,
    parse_checkpoint,
    previous,
    save_checkpoint,
    set_aside,
)
from steadyspike.train.config import Experiment
from steadyspike.train.digest import weights_sha256
from steadyspike.train.distributed import ALONE, Ranks
from steadyspike.train.history import history_csv
from steadyspike.train.live_log import live_log
from steadyspike.train.network import check_device, slow_precision
from steadyspike.train.progress import TrainingDisplay
from steadyspike.train.signals import Overdue, Stopped, stop_request
from steadyspike.train.trainer import Diverged, Trainer

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 300.0  # between checkpoints within an epoch


def run_folders(experiment: Experiment, folder: Path) -> list[tuple[Experiment, Path]]:
    """Each seed's run and its folder: the first in ``folder``, others in ``seeds`` below it."""
    first, *others = experiment.runs
    return [(first, folder), *((run, folder / "seeds" / str(run.seed)) for run in others)]


def train_run(
    experiment: Experiment,
    dataset: Dataset,
    folder: Path,
    ranks: Ranks = ALONE,
    deadline: float | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
) -> None:
    """Train ``experiment`` with each of its seeds, or finish what an interrupted run left.

    ``model.safetensors``, ``best.safetensors``, ``history.csv`` and ``digests.json`` are the same
    bytes in every run; ``environment.json`` and ``timing.json`` are not, and no DVC output. Only
    the first of several processes writes. Arguments and errors are those of `train`.
    """
    check(
        dataset,
        experiment.dataset.augmentation,
        experiment.training.steps,
        experiment.evaluation.steps,
    )
    check_device(experiment)
    if ranks.writes and (note := slow_precision(experiment)):
        notify(f"steadyspike: note: {note}")
    runs = run_folders(experiment, folder)
    checkpoints = [
        folder / (CHECKPOINT if place == 0 else f"seed-{run.seed}-{CHECKPOINT}")
        for place, (run, _) in enumerate(runs)
    ]
    trained = [
        train(run, dataset, checkpoint, ranks, deadline, checkpoint_every)
        for (run, _), checkpoint in zip(runs, checkpoints, strict=True)
    ]
    if not ranks.writes:
        return
    timing = {}
    for (run, run_folder), (trainer, (images, seconds)) in zip(runs, trained, strict=True):
        for name, content in outputs(run, trainer).items():
            write_atomically(run_folder / name, content)
        timing[str(run.seed)] = {
            "seconds": round(seconds, 3),  # after the last resume, as are the images
            "images": images,
            "images_per_second": round(images / max(seconds, 1e-9), 1),
        }
    write_atomically(folder / "seeds" / "seeds.json", _json(experiment.seeds))
    write_atomically(folder / "timing.json", _json(timing))
    # A process killed before this point can still resume.
    for checkpoint in checkpoints:
        previous(checkpoint).unlink(missing_ok=True)
        checkpoint.unlink(missing_ok=True)


def train(
    experiment: Experiment,
    dataset: Dataset,
    checkpoint: Path,
    ranks: Ranks = ALONE,
    deadline: float | None = None,
    checkpoint_every: float = CHECKPOINT_SECONDS,
) -> tuple[Trainer, tuple[int, float]]:
    """Train one seed to the end, from the checkpoint if there is one.

    Also gives how many images this call has trained, and in how many seconds.

    A checkpoint is written after every epoch, within an epoch every ``checkpoint_every`` seconds,
    and on Ctrl-C, SIGTERM, SIGHUP or at the ``deadline`` (on the clock of `time.monotonic`). One of
    other parameters or images is moved aside.

    Raises:
        Stopped: a signal or the deadline ended the run; its checkpoint is written.
        Diverged: a loss was not finite; the last good checkpoint is kept.
        UserError: the checkpoint is damaged; or a sample cannot be read: then a checkpoint is
            written.
    """
    trainer = Trainer(experiment, dataset, ranks)
    _resume(trainer, checkpoint)
    if ranks.writes:  # now, so that a folder that cannot be written is known before training
        write_atomically(
            checkpoint.with_name("environment.json"), _json(environment(experiment, ranks))
        )

    def save() -> None:
        if ranks.writes:
            with request.saving():
                save_checkpoint(checkpoint, experiment, trainer.state())

    def save_between_batches() -> None:
        """For several processes, which cannot agree on a batch here, the last one is kept."""
        if ranks.alone and trainer.between_batches:
            if trainer.batch:
                trainer.running_metrics()  # raises before a diverged state is saved
            save()

    began = last_saved = time.monotonic()
    display = TrainingDisplay(
        experiment.name,
        experiment.training.epochs,
        trainer.batches,
        trainer.batches_done,
        quiet=not ranks.writes,
    )
    logged = live_log(experiment, checkpoint.parent, trainer.epoch, writes=ranks.writes)
    with display, logged as log, stop_request(deadline) as request:

        def stop_during_evaluation() -> None:
            # The state is the same in all processes now, so each may stop by itself.
            if request.exit_status is not None:
                save()
                raise Stopped(request.exit_status)

        try:
            while not trainer.finished:
                for images in trainer.run_epoch():
                    if display.advance(images):
                        display.show(trainer.epoch + 1, *trainer.running_metrics())
                    overdue = time.monotonic() - last_saved > checkpoint_every
                    # 0: continue; 1: save; more: save and exit with this status. The maximum makes
                    # all processes do the same after the same batch.
                    action = ranks.max(request.exit_status or int(overdue))
                    if action:
                        trainer.synchronize()
                        trainer.running_metrics()  # raises before a diverged state is saved
                        save()
                        last_saved = time.monotonic()
                    if action > 1:
                        raise Stopped(action)
                row = trainer.finish_epoch(stop_during_evaluation)
                display.finish_epoch(row)
                log(row)
                save()
                last_saved = time.monotonic()
        except Diverged:
            raise
        except UserError:  # for example an image that cannot be decoded
            save_between_batches()
            raise
        except Overdue:
            save_between_batches()
            raise Stopped(request.exit_status or 1) from None
        # A signal after the last batch: stop before the next seed's run, which would not see it.
        status = ranks.max(0 if request.signal is None else 128 + request.signal)
        if status:
            raise Stopped(status)
    return trainer, (display.images, time.monotonic() - began)


def _resume(trainer: Trainer, checkpoint: Path) -> None:
    """Load the checkpoint that is furthest ahead among those the processes find, if any."""
    experiment, ranks = trainer.experiment, trainer.ranks
    try:
        raw, state = newest_checkpoint(checkpoint, experiment) or (b"", None)
    except StaleCheckpoint as stale:
        raw, state = b"", None
        if ranks.writes:
            set_aside(checkpoint, stale)
    done = -1 if state is None else state["epoch"] * trainer.batches + state["batch"]
    # Any process may have it: torchrun numbers the machines anew when it restarts them.
    all_done = ranks.gather(done)
    if max(all_done) < 0:
        return
    if not ranks.alone:
        raw = ranks.broadcast_bytes(raw, all_done.index(max(all_done)))
        state = parse_checkpoint(raw, checkpoint, experiment)
    assert state is not None
    try:
        trainer.load_state(state)
    except StaleCheckpoint as stale:  # the images have changed
        if ranks.writes:
            set_aside(checkpoint, StaleCheckpoint(f"{checkpoint}: {stale}"))
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, ValueError) else "no reason known"
        raise UserError(
            f"{checkpoint}: damaged, or written by another version of steadyspike ({reason});"
            f" {REMEDY}"
        ) from error


def outputs(run: Experiment, trainer: Trainer) -> dict[str, bytes | str]:
    """The files of a finished run that are the same bytes every time."""
    last = {name: tensor.detach().cpu() for name, tensor in trainer.model.state_dict().items()}
    digests = {
        "fingerprint": run.fingerprint(),
        "weights_sha256": weights_sha256(last),
        "batches": trainer.digests,
        "dataset": described(trainer.dataset, trainer.content_sha256),
    }
    return {
        "model.safetensors": weights_file(last),
        "best.safetensors": weights_file(trainer.best),
        "history.csv": history_csv(trainer.rows),
        "digests.json": _json(digests),
    }


def described(dataset: Dataset, content_sha256: str | None) -> dict[str, Any]:
    """What the weights were trained on, and all that is needed to show them another image."""
    return {
        "name": dataset.name,
        "classes": dataset.classes,
        "mean": dataset.mean,
        "std": dataset.std,
        "shape": dataset.train.shape,
        "content_sha256": content_sha256,
    }


def weights_file(state: dict[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file."""
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})


def environment(experiment: Experiment, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Versions, device and threads of this machine."""
    cuda = experiment.device == "cuda"
    return {
        "steadyspike": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else cpu_name(),
        "processes": ranks.world,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
