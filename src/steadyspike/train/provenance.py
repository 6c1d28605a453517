"""What a run's numbers came from, as hashes: the code, the data, and what else decides bits."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadyspike import kernels
from steadyspike.pins import CPU_PINS
from steadyspike.train.config import Experiment
from steadyspike.train.distributed import ALONE, Ranks

PACKAGE = Path(__file__).parents[1]

#: What training runs, of this package: the same files and folders that dvc.yaml names.
CODE = ("data", "kernels", "models", "pins.py", "snn", "train")
SUFFIXES = {".py", ".c", ".h"}


def code_sha256(package: Path = PACKAGE) -> str:
    """One SHA-256 over the names and the bytes of all source files that training runs."""
    content = hashlib.sha256()
    for path in sorted(_sources(package)):
        name = path.relative_to(package).as_posix()
        content.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()


def _sources(package: Path) -> Iterable[Path]:
    for name in CODE:
        place = package / name
        yield from (
            [path for path in place.rglob("*") if path.suffix in SUFFIXES]
            if place.is_dir()
            else [place]
        )


def bits_decided_by(experiment: Experiment, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Versions, device and processes: another of these may round otherwise."""
    cuda = experiment.device == "cuda"
    here = kernels.backend(torch.empty(1, device=experiment.device))
    return {
        "torch": _release(torch.__version__),
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if cuda else CPU_PINS,
        "kernels": here.__name__.rpartition(".")[2],
        "processes": ranks.world,
    }


def environment_sha256(experiment: Experiment, ranks: Ranks = ALONE) -> str:
    """One SHA-256 over `bits_decided_by`."""
    facts = json.dumps(bits_decided_by(experiment, ranks), sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def _release(version: str) -> str:
    return version.partition("+")[0]  # what follows names the build, for a processor or for CUDA
