"""Everything that an exact resume needs, in a file that is whole or absent; the newest two."""

import hashlib
import io
import json
import reprlib
from pathlib import Path
from typing import Any

import torch

from steadyspike.console import notify
from steadyspike.errors import UserError
from steadyspike.files import atomic_path
from steadyspike.train.config import Experiment
from steadyspike.train.plain_checkpoint import check_checkpoint

FORMAT = 2
#: Bytes of the SHA-256 at the file's end; torch's own format does not notice a flipped bit.
SUM = 32


class Damaged(UserError):
    """It is no whole checkpoint."""


def both(path: Path) -> tuple[Path, Path]:
    """Where the newest checkpoint lies, and where the one before it."""
    return path, path.with_name(f"{path.stem}-before{path.suffix}")


def save_checkpoint(path: Path, experiment: Experiment, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) as the checkpoint of ``experiment``.

    The one before it is kept beside it. At every moment one of the two is there and whole.
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
    try:
        with atomic_path(path) as whole:
            whole.write_bytes(raw + hashlib.sha256(raw).digest())
            if path.exists():
                path.replace(both(path)[1])
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def newest_checkpoint(path: Path, experiment: Experiment) -> tuple[bytes, dict[str, Any]] | None:
    """The newest whole checkpoint of ``experiment``, as bytes and as `parse_checkpoint` gives it.

    A damaged one is told on standard error, and the one before it serves. None where there is none.

    Raises:
        UserError: all that are there are damaged, or one belongs to another experiment; they are
            left as they are.
    """
    damaged = None
    for place in both(path):
        try:
            raw = place.read_bytes()
            state = parse_checkpoint(raw, place, experiment)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from error
        except Damaged as error:
            damaged = damaged or error
        else:
            if damaged is not None:
                notify(f"steadyspike: {damaged}; going on from {place}")
            return raw, state
    if damaged is not None:
        raise damaged
    return None


def load_checkpoint(path: Path, experiment: Experiment) -> dict[str, Any] | None:
    """The state to resume ``experiment`` from, or None; raises as `newest_checkpoint`."""
    found = newest_checkpoint(path, experiment)
    return None if found is None else found[1]


def parse_checkpoint(raw: bytes, path: Path, experiment: Experiment) -> dict[str, Any]:
    """The state to resume ``experiment`` from, on the CPU; ``path`` is where the bytes were found.

    Raises:
        Damaged: they are not whole.
        UserError: they belong to another experiment or version.
    """
    begin_anew = "remove the file to begin anew"
    if hashlib.sha256(raw[:-SUM]).digest() != raw[-SUM:]:
        raise Damaged(f"{path}: truncated or altered, no whole checkpoint; {begin_anew}")
    try:
        file = io.BytesIO(raw[:-SUM])
        check_checkpoint(file)  # torch would believe any size it tells
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # it holds more than tensors and plain values, or is no zip file at all
        content = None
    keys = {"format": int, "experiment": dict, "fingerprint": str, "state": dict}
    if (
        not isinstance(content, dict)
        or not all(isinstance(content.get(key), kind) for key, kind in keys.items())
        or content["format"] != FORMAT
        or not _decisive(content["experiment"])
    ):
        raise UserError(f"{path}: no checkpoint of this version of steadyspike; {begin_anew}")
    if content["fingerprint"] != experiment.fingerprint():
        theirs, ours = content["experiment"], experiment.decisive()
        differing = sorted(
            key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)
        )
        told = ", ".join(
            f"{key} is {ours.get(key)!r} and was {reprlib.repr(theirs.get(key))}"
            for key in differing
        )
        raise UserError(f"{path}: belongs to another experiment: {told}; {begin_anew}")
    state: dict[str, Any] = content["state"]
    return state


def _decisive(saved: dict[Any, Any]) -> bool:
    """Whether it is a few names with JSON's values, as `Experiment.decisive` gives them."""
    try:
        json.dumps(saved)
    except (TypeError, ValueError, RecursionError):
        return False
    return len(saved) < 100 and all(
        isinstance(key, str) and key.isprintable() and len(key) < 100 for key in saved
    )
