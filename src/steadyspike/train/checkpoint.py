"""Everything that an exact resume needs, in one file that is whole or absent."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from steadyspike.errors import UserError
from steadyspike.experiment import Experiment
from steadyspike.files import write_atomically

FORMAT = 2
#: Bytes of the SHA-256 at the file's end; torch's own format does not notice a flipped bit.
SUM = 32


def save_checkpoint(path: Path, experiment: Experiment, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) as the checkpoint of ``experiment``."""
    content = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "experiment": experiment.decisive(),
            "fingerprint": experiment.fingerprint(),
            "state": state,
        },
        content,
    )
    raw = content.getvalue()
    try:
        write_atomically(path, raw + hashlib.sha256(raw).digest())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read_checkpoint(path: Path) -> bytes | None:
    """The bytes of a checkpoint, or None where there is none; UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def load_checkpoint(path: Path, experiment: Experiment) -> dict[str, Any] | None:
    """The state to resume ``experiment`` from, or None where there is none; raises as the two."""
    raw = read_checkpoint(path)
    return None if raw is None else parse_checkpoint(raw, path, experiment)


def parse_checkpoint(raw: bytes, path: Path, experiment: Experiment) -> dict[str, Any]:
    """The state to resume ``experiment`` from, on the CPU; ``path`` is where the bytes were found.

    Raises:
        UserError: they are damaged, or belong to another experiment.
    """
    begin_anew = "remove the file to begin anew"
    if hashlib.sha256(raw[:-SUM]).digest() != raw[-SUM:]:
        raise UserError(f"{path}: truncated or altered, no whole checkpoint; {begin_anew}")
    try:
        content = torch.load(io.BytesIO(raw[:-SUM]), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it holds more than tensors and plain values
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: no checkpoint of this version of steadyspike; {begin_anew}")
    if content["fingerprint"] != experiment.fingerprint():
        theirs, ours = content["experiment"], experiment.decisive()
        differing = sorted(
            key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)
        )
        told = ", ".join(
            f"{key} is {ours.get(key)!r} and was {theirs.get(key)!r}" for key in differing
        )
        raise UserError(f"{path}: belongs to another experiment: {told}; {begin_anew}")
    state: dict[str, Any] = content["state"]
    return state
