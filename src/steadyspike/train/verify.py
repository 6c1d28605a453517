"""`steadyspike verify`: trains the first batches again and compares every bit of the weights."""

import json
from dataclasses import dataclass
from pathlib import Path

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.train.config import Experiment
from steadyspike.train.trainer import Trainer


@dataclass(frozen=True)
class Verdict:
    """The batches after which tensors were compared, how many, and the first difference."""

    batches: tuple[int, ...]
    tensors: int
    difference: str | None


def verify(
    experiment: Experiment, dataset: Dataset, recorded: Path, batches: int | None = None
) -> Verdict:
    """Train the first batches of ``experiment`` and compare every tensor with the recorded run.

    Args:
        experiment: what to train; with several seeds, the first.
        dataset: what to train on.
        recorded: the report's digests.json: for each experiment its fingerprint and the SHA-256
            of every tensor after certain batches.
        batches: compare within the first ``batches`` only, for slow processors.

    Raises:
        UserError: nothing was recorded for this experiment, or with other parameters.
    """
    experiment = experiment.runs[0]
    digests = _read_digests(recorded, experiment)
    if batches is not None:
        digests = {batch: tensors for batch, tensors in digests.items() if batch <= batches}
    if not digests:
        raise UserError(f"{recorded}: {experiment.name}: batches: expected at least one")
    trainer = Trainer(experiment, dataset)
    _train_batches(trainer, max(digests))
    for batch, expected in sorted(digests.items()):
        found = trainer.digests.get(str(batch), {})
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                return Verdict(tuple(digests), 0, f"{name} differs after batch {batch}")
    return Verdict(tuple(sorted(digests)), sum(map(len, digests.values())), None)


def _read_digests(path: Path, experiment: Experiment) -> dict[int, dict[str, str]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))[experiment.name]
        fingerprint = record["fingerprint"]
        digests = {int(batch): dict(tensors) for batch, tensors in record["batches"].items()}
    except FileNotFoundError:
        raise UserError(f"{path}: not found: `make train` writes it") from None
    except KeyError as error:
        raise UserError(f"{path}: {experiment.name}: no entry {error}") from None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if fingerprint != experiment.fingerprint():
        raise UserError(
            f"{path}: {experiment.name}: recorded with other parameters than params.yaml has; "
            f"`dvc repro train@{experiment.name} report` records anew"
        )
    return digests


def _train_batches(trainer: Trainer, last: int) -> None:
    while not trainer.finished:
        for _ in trainer.run_epoch():
            if trainer.batches_done == last:
                return
        trainer.finish_epoch()
