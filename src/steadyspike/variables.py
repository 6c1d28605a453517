"""The environment variables that this package reads; each value is understood, or refused by name.

An empty variable counts as unset. Loads no torch.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from steadyspike.errors import UserError

DATA, WORKERS, KERNELS = "STEADYSPIKE_DATA", "STEADYSPIKE_WORKERS", "STEADYSPIKE_KERNELS"
MOST_WORKERS = 16  # by default
LIMIT = 1024  # of workers

OFF = ("0", "off", "false", "no", "none")
ON = ("", "1", "on", "true", "yes", "auto")


def check() -> None:
    """Raises UserError if one of the package's own variables is not understood."""
    data_root()
    worker_count()
    kernels_enabled()


def data_root() -> Path:
    """STEADYSPIKE_DATA, the folder of fetched data sets, by default ``datasets``."""
    text = os.environ.get(DATA, "")
    if not text:
        return Path("datasets")
    try:
        folder = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{DATA}: expected a folder, found {text!r} ({error})") from None
    switch = text.lower() in OFF + ON  # but a folder may have such a name
    if not folder.is_dir() and (switch or folder.exists()):
        raise UserError(f"{DATA}: expected a folder, found {text!r}")
    return folder


def worker_count() -> int:
    """STEADYSPIKE_WORKERS, how many processes or threads decode images; 0 for none.

    By default this process's share of the processors.
    """
    text = os.environ.get(WORKERS, "").strip().lower()
    if text in OFF:
        return 0
    if text not in ("", "auto"):
        return _number(WORKERS, text, 0, LIMIT)
    trainers = whole_number("LOCAL_WORLD_SIZE", 1) or 1  # torchrun's processes here
    return max(1, min(MOST_WORKERS, core_count() // trainers))


def core_count() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def kernels_enabled() -> bool:
    """STEADYSPIKE_KERNELS: off for plain torch everywhere, on by default."""
    text = os.environ.get(KERNELS, "").strip().lower()
    if text not in OFF + ON:
        raise UserError(f"{KERNELS}: expected on or off, found {text!r}")
    return text not in OFF


@dataclass(frozen=True)
class Torchrun:
    """What torchrun sets for each process: its rank of ``world``, and the same on this machine."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str


def torchrun() -> Torchrun | None:
    """None for a process that trains alone.

    Raises UserError for a variable that is missing or odd, as another program may leave it.
    """
    world = whole_number("WORLD_SIZE", 1) or 1
    if world == 1:
        return None
    rank = whole_number("RANK", 0, world - 1)
    port = whole_number("MASTER_PORT", 1, 65535)
    address = os.environ.get("MASTER_ADDR", "")
    for name, value in (("RANK", rank), ("MASTER_PORT", port), ("MASTER_ADDR", address or None)):
        if value is None:
            raise UserError(
                f"{name}: missing, though WORLD_SIZE is {world}: start training by `steadyspike"
                " launch`, or unset WORLD_SIZE to train in one process"
            )
    local_world = whole_number("LOCAL_WORLD_SIZE", 1) or 1
    local_rank = whole_number("LOCAL_RANK", 0, local_world - 1) or 0
    return Torchrun(rank or 0, world, local_rank, local_world, f"{address}:{port}")


def whole_number(name: str, least: int, most: int = 1 << 20) -> int | None:
    """A variable's number, None if it is unset or empty."""
    text = os.environ.get(name, "").strip()
    return _number(name, text, least, most) if text else None


def _number(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text[:20]) <= most):
        raise UserError(f"{name}: expected a whole number of {least} to {most}, found {text!r}")
    return int(text)
