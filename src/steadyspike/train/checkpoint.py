"""Checkpoints of an unfinished run: the newest and the one before it, each whole or absent."""

import hashlib
import io
import reprlib
from pathlib import Path
from typing import Any

import torch

from steadyspike.console import notify
from steadyspike.errors import UserError
from steadyspike.files import atomic_path
from steadyspike.train.config import Experiment

FORMAT = 4
#: Bytes of the SHA-256 at the end of the file; torch's own format does not notice a flipped bit.
CHECKSUM = 32
REMEDY = "remove the file to start from the beginning"


class DamagedCheckpoint(UserError):
    """The file is truncated or altered."""


class StaleCheckpoint(UserError):
    """A whole checkpoint of other parameters, other images or another version of steadyspike."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest one lies."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def save_checkpoint(path: Path, experiment: Experiment, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) as the newest checkpoint of ``experiment``.

    A process killed at any moment leaves a whole checkpoint, under one of the two names.
    """
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
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw + hashlib.sha256(raw).digest())
        if path.exists():
            path.replace(previous(path))


def newest_checkpoint(path: Path, experiment: Experiment) -> tuple[bytes, dict[str, Any]] | None:
    """The newest whole checkpoint of ``experiment``: the file's bytes and the saved state.

    Where the newest file is damaged, the one before it is used, with a note on standard error.
    None if there is no checkpoint.

    Raises:
        StaleCheckpoint: one belongs to another experiment.
        UserError: every checkpoint is damaged; the files are left as they are.
    """
    damaged = None
    for place in (path, previous(path)):
        try:
            raw = place.read_bytes()
            state = parse_checkpoint(raw, place, experiment)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from error
        except DamagedCheckpoint as error:
            damaged = damaged or error
        else:
            if damaged is not None:
                notify(f"steadyspike: {damaged}; resuming from {place}")
            return raw, state
    if damaged is not None:
        raise damaged
    return None


def set_aside(path: Path, why: StaleCheckpoint) -> None:
    """Rename a stale checkpoint, such as an interrupted run left before parameters changed."""
    for place in (path, previous(path)):
        if place.exists():
            place.replace(place.with_name(f"stale-{place.name}"))
    notify(
        f"steadyspike: note: {why}; it is now {path.with_name(f'stale-{path.name}')}, and training"
        " begins anew"
    )


def parse_checkpoint(raw: bytes, path: Path, experiment: Experiment) -> dict[str, Any]:
    """The state saved in a checkpoint's bytes, on the CPU; ``path`` is for messages.

    Raises:
        DamagedCheckpoint: the checksum does not match.
        StaleCheckpoint: another experiment or another version of steadyspike wrote it.
    """
    if hashlib.sha256(raw[:-CHECKSUM]).digest() != raw[-CHECKSUM:]:
        raise DamagedCheckpoint(f"{path}: truncated or altered checkpoint; {REMEDY}")
    try:
        content = torch.load(io.BytesIO(raw[:-CHECKSUM]), map_location="cpu", weights_only=True)
    except Exception:  # an unknown format fails anywhere in zipfile, pickle or torch
        content = None
    keys = {"format": int, "experiment": dict, "fingerprint": str, "state": dict}
    if (
        not isinstance(content, dict)
        or not all(isinstance(content.get(key), kind) for key, kind in keys.items())
        or content["format"] != FORMAT
    ):
        raise StaleCheckpoint(f"{path}: not a checkpoint of this version of steadyspike")
    if content["fingerprint"] != experiment.fingerprint():
        saved, own = content["experiment"], experiment.decisive()
        differing = ", ".join(
            f"{key} is {own.get(key)!r} and was {reprlib.repr(saved.get(key))}"
            for key in sorted(saved.keys() | own.keys(), key=str)
            if saved.get(key) != own.get(key)
        )
        raise StaleCheckpoint(f"{path}: belongs to another experiment: {differing}")
    state: dict[str, Any] = content["state"]
    return state
