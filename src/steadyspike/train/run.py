"""A run folder: what training leaves in ``runs/<experiment>/``."""

import json
import platform
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from steadyspike import __version__
from steadyspike.data import Dataset
from steadyspike.data.collate import check
from steadyspike.files import write_atomically
from steadyspike.train.checkpoint import both
from steadyspike.train.config import Experiment
from steadyspike.train.digest import weights_sha256
from steadyspike.train.distributed import ALONE, Ranks
from steadyspike.train.history import history_csv
from steadyspike.train.loop import CHECKPOINT_SECONDS, train
from steadyspike.train.network import check_device
from steadyspike.train.trainer import Trainer

CHECKPOINT = "checkpoint.pt"


def run_folders(experiment: Experiment, folder: Path) -> list[tuple[Experiment, Path]]:
    """Each seed's run and where its outputs lie: the first in ``folder``, others in ``seeds``."""
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
    """Train ``experiment`` with each of its seeds; finishes what an interrupted run left.

    Of several processes the first alone writes. At the ``deadline`` it ends as on SIGTERM.
    ``checkpoint_every`` is in seconds; `train` takes both.

    ``model.safetensors``, ``best.safetensors``, ``history.csv`` and ``digests.json`` are the same
    bytes in every run. ``environment.json`` and ``timing.json`` are not, and lie beside them.
    """
    check(
        dataset,
        experiment.dataset.augmentation,
        experiment.training.steps,
        experiment.evaluation.steps,
    )
    check_device(experiment)
    runs = run_folders(experiment, folder)
    checkpoints = [
        folder / (CHECKPOINT if place == 0 else f"seed-{run.seed}-{CHECKPOINT}")
        for place, (run, _) in enumerate(runs)
    ]
    if ranks.writes:
        write_atomically(folder / "environment.json", _json(environment(experiment, ranks)))
    trained = [
        train(run, dataset, checkpoint, ranks, deadline, checkpoint_every)
        for (run, _), checkpoint in zip(runs, checkpoints, strict=True)
    ]
    if not ranks.writes:
        return
    timing, data = {}, dataset.sha256()
    for (run, run_folder), (trainer, seconds) in zip(runs, trained, strict=True):
        for name, content in outputs(run, trainer, data).items():
            write_atomically(run_folder / name, content)
        images = len(dataset.train) * run.training.epochs
        timing[str(run.seed)] = {
            "seconds": round(seconds, 3),
            "images_per_second": round(images / max(seconds, 1e-9), 1),
        }
    write_atomically(folder / "seeds" / "seeds.json", _json(experiment.seeds))
    write_atomically(folder / "timing.json", _json(timing))
    # Only now is the run finished: until here a resume would have found everything it needs.
    for checkpoint in checkpoints:
        for place in reversed(both(checkpoint)):  # the newest last
            place.unlink(missing_ok=True)


def outputs(run: Experiment, trainer: Trainer, data: str) -> dict[str, bytes | str]:
    """The files of a finished run, the same bytes every time; ``data`` is the data set's hash."""
    provenance = {"code": trainer.code, "data": data, "environment": trainer.environment}
    last = {name: tensor.detach().cpu() for name, tensor in trainer.model.state_dict().items()}
    return {
        "model.safetensors": weights_file(last),
        "best.safetensors": weights_file(trainer.best),
        "history.csv": history_csv(trainer.rows),
        "digests.json": _json(
            {
                "fingerprint": run.fingerprint(),
                "provenance": provenance,
                "weights_sha256": weights_sha256(last),
                "batches": trainer.digests,
            }
        ),
    }


def weights_file(state: dict[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file."""
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in state.items()})


def environment(experiment: Experiment, ranks: Ranks = ALONE) -> dict[str, Any]:
    """What ran: versions, device, threads. Differs from machine to machine."""
    cuda = experiment.device == "cuda"
    return {
        "steadyspike": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "processes": ranks.world,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
