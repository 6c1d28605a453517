"""What a run's numbers came from: as training recorded it, and what measures them now."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.evaluate.settings import settings_of
from steadyspike.train.config import Experiment
from steadyspike.train.provenance import code_sha256, environment_sha256

SHORT = 12  # digits of a hash that tell it from any other, in a sentence


@dataclass(frozen=True)
class Provenance:
    """SHA-256 of what trained a run; several of code or environment where it was resumed."""

    code: tuple[str, ...]
    data: str
    environment: tuple[str, ...]
    weights: str  # of the last epoch


def provenance_of(
    experiment: Experiment, runs: Sequence[tuple[Experiment, Path]], dataset: Dataset
) -> dict[str, Any]:
    """What trained all of an experiment's runs, for metrics.json.

    Args:
        experiment: as it is now.
        runs: the experiment of each seed and its folder, which holds ``digests.json``.
        dataset: what the runs are to be measured on.

    Raises:
        UserError: ``digests.json`` is missing or damaged, or a run was trained with other
            parameters than it has now, or on other data than the other seeds or than ``dataset``.
    """
    trained = [_read(folder / "digests.json", run) for run, folder in runs]
    first = trained[0]
    for (_, folder), other in zip(runs, trained, strict=True):
        if other.data != first.data:
            raise UserError(
                f"{folder / 'digests.json'}: provenance.data: trained on {_short(other.data)}, but "
                f"{runs[0][1] / 'digests.json'} on {_short(first.data)}: {_again(experiment)}"
            )
    here = dataset.sha256()
    if here != first.data:
        raise UserError(
            f"{runs[0][1] / 'digests.json'}: provenance.data: trained on {_short(first.data)}, "
            f"but {dataset.name} here is {_short(here)}: restore the data, or {_again(experiment)}"
        )
    return {
        "code": _joined([run.code for run in trained]),
        "data": first.data,
        "params": experiment.fingerprint(),
        "environment": _joined([run.environment for run in trained]),
    }


def check_weights(run: Experiment, folder: Path, weights: str) -> None:
    """Whether a run's weights are those that it recorded; UserError if not.

    Args:
        run: the experiment of one seed.
        folder: holds ``digests.json`` and ``model.safetensors``.
        weights: the SHA-256 of what the latter holds.
    """
    recorded = _read(folder / "digests.json", run).weights
    if weights != recorded:
        raise UserError(
            f"{folder / 'model.safetensors'}: weights {_short(weights)}, but digests.json beside "
            f"it records {_short(recorded)}: {_again(run)}"
        )


def measured_by(experiment: Experiment) -> dict[str, Any]:
    """The settings, the code and the environment with which an experiment is evaluated."""
    return {
        **asdict(settings_of(experiment)),
        "code": evaluation_code_sha256(),
        "environment": environment_sha256(experiment),
    }


def evaluation_code_sha256(package: Path = Path(__file__).parents[1]) -> str:
    """One SHA-256 over all source files that evaluation runs: training's and this folder's."""
    content = hashlib.sha256(code_sha256(package).encode())
    for path in sorted((package / "evaluate").glob("*.py")):
        content.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()


def _joined(seeds: Sequence[Sequence[str]]) -> list[str]:
    """What took part in the first seed's run, in order, then what the others have besides."""
    joined = list(seeds[0])
    for sums in seeds[1:]:
        joined += [one for one in sums if one not in joined]
    return joined


def _read(path: Path, run: Experiment) -> Provenance:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fingerprint, facts = record["fingerprint"], record["provenance"]
        found = Provenance(
            tuple(facts["code"]),
            facts["data"],
            tuple(facts["environment"]),
            record["weights_sha256"],
        )
        sums = [fingerprint, *found.code, found.data, *found.environment, found.weights]
        if not (found.code and found.environment and all(map(_is_sum, sums))):
            raise ValueError
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found: train it first, `steadyspike train {run.name}`"
        ) from None
    except (KeyError, ValueError, TypeError, RecursionError, OSError):
        raise UserError(
            f"{path}: expected SHA-256 sums: fingerprint, weights_sha256, provenance.code, .data "
            f"and .environment: {_again(run)}"
        ) from None
    if fingerprint != run.fingerprint():
        raise UserError(
            f"{path}: fingerprint: trained with other parameters ({_short(fingerprint)}) than "
            f"{run.name} has now ({_short(run.fingerprint())}): {_again(run)}"
        )
    return found


def _is_sum(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _short(value: str) -> str:
    return value[:SHORT]


def _again(experiment: Experiment) -> str:
    return f"train it again, `steadyspike train {experiment.name}`"
