"""Checkpoints of ours, as small as training can write them, and how they are resumed from."""

import copy
import functools
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_seeds as seeds
from fuzz_edits import EDITS, checkpoint_of, edited, pickle_of


@functools.cache
def _trainer() -> Any:
    """One of a network of one neuron and one image, the first of its epochs behind it."""
    import torch

    from steadyspike.data import Dataset
    from steadyspike.data.dataset import Split
    from steadyspike.train.config import Experiment
    from steadyspike.train.params import merge
    from steadyspike.train.trainer import Trainer

    change = {"model": {"widths": [1]}, "training": {"batch": 1, "steps": 1, "chunk": 1}}
    known = merge(merge(seeds.PARAMS["defaults"], change), {"name": seeds.EXPERIMENT})
    split = Split(torch.ones(1, 1, 1, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    dataset = Dataset("embedded", ("a",), (0.5,), (0.5,), split, split)
    trainer = Trainer(Experiment.model_validate(known), dataset)
    for _ in trainer.run_epoch():
        pass
    trainer.finish_epoch()
    return trainer


@functools.cache
def content() -> dict[str, Any]:
    """What training keeps."""
    from steadyspike.train.checkpoint import FORMAT

    trainer = _trainer()
    experiment = trainer.experiment
    # The best weights and their digests would say the same once more: an input is to be short.
    kept = {
        "format": FORMAT,
        "experiment": experiment.decisive(),
        "fingerprint": experiment.fingerprint(),
        "state": {**trainer.state(), "best": {}, "digests": {"1": {}}},
    }
    return copy.deepcopy(kept)


def saved(kept: Any) -> bytes:
    """The file that PyTorch writes."""
    import torch

    out = io.BytesIO()
    torch.save(kept, out)
    return out.getvalue()


def checkpoints() -> list[bytes]:
    """A whole one, its pickle alone, and that of another experiment; without the sum at the end."""
    whole = saved(content())
    other = {**content(), "experiment": {"training.epochs": 1}, "fingerprint": "", "state": {}}
    return [whole, pickle_of(whole)[0], pickle_of(saved(other))[0]]


def resume(folder: Path) -> Callable[[bytes], object]:
    """Takes a file, a pickle, or edits of what training keeps; with the right sum behind it."""
    from steadyspike.train import loop

    trainer, path = _trainer(), folder / "checkpoint.pt"
    storages = pickle_of(checkpoints()[0])[1]

    def attempt(given: bytes) -> None:
        if given[:1] == bytes([EDITS]):
            whole = saved(edited(copy.deepcopy(content()), given[1:]))
        else:
            whole = given if given.startswith(b"PK") else checkpoint_of(given, storages)
        path.write_bytes(whole + hashlib.sha256(whole).digest())
        loop._resume(trainer, path)

    return attempt
