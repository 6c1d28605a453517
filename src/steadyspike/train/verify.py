"""`steadyspike verify`: the first batches again, compared weight by weight."""

import json
from dataclasses import dataclass
from pathlib import Path

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.train.config import Experiment
from steadyspike.train.trainer import DIGEST_BATCHES, Trainer


@dataclass(frozen=True)
class Verdict:
    """How many tensors were compared after which batches, and the first that differed."""

    batches: tuple[int, ...]
    tensors: int
    difference: str | None


def verify(
    experiment: Experiment, dataset: Dataset, recorded: Path, batches: int | None = None
) -> Verdict:
    """Train the first batches of ``experiment`` and compare every weight with the recorded run.

    Args:
        experiment: what to train; nothing is written.
        dataset: what to train on.
        recorded: digests.json of the report: for each experiment its fingerprint and the SHA-256
            of every tensor after certain batches.
        batches: at most so many of the first batches, where an emulated processor takes long.

    Raises:
        UserError: nothing was recorded for this experiment, or with other parameters.
    """
    experiment = experiment.runs[0]  # whose digests the report joins
    try:
        record = json.loads(recorded.read_text(encoding="utf-8"))[experiment.name]
        fingerprint = record["fingerprint"]
        digests = {int(batch): dict(tensors) for batch, tensors in record["batches"].items()}
        if batches is not None:
            digests = {batch: digests[batch] for batch in digests if batch <= batches}
        last = max(digests)
    except FileNotFoundError:
        raise UserError(f"{recorded}: not found: `make train` writes it") from None
    except KeyError as error:
        raise UserError(f"{recorded}: {experiment.name}: no entry {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise UserError(f"{recorded}: cannot be read: {error}") from None
    if fingerprint != experiment.fingerprint():
        raise UserError(
            f"{recorded}: {experiment.name}: recorded with other parameters than params.yaml has; "
            f"`dvc repro train@{experiment.name} report` records anew"
        )
    trainer = Trainer(experiment, dataset)
    # Each batch of an epoch yields once; an epoch's end leaves the weights as they are.
    while trainer.epoch * trainer.batches + trainer.batch < last and not trainer.finished:
        for _ in trainer.run_epoch():
            if trainer.epoch * trainer.batches + trainer.batch >= last:
                break
        else:
            trainer.finish_epoch()
    for batch, expected in sorted(digests.items()):
        found = trainer.digests.get(str(batch), {})
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                return Verdict(DIGEST_BATCHES, 0, f"{name} differs after batch {batch}")
    return Verdict(tuple(sorted(digests)), sum(len(tensors) for tensors in digests.values()), None)
