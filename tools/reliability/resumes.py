"""Training that is interrupted in mid-epoch and goes on in a changed world."""

import io
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moments import InWrite
from project import CHECKPOINT, NAME, Project, fail, is_whole, shell_status

Start = Callable[[Project], "subprocess.Popen[str]"]
ROUNDING = 1e-9


def training(
    ranks: int = 1,
    every: str = "0s",
    start: Callable[..., "subprocess.Popen[str]"] = Project.start,
) -> Start:
    """Training by this number of processes, with checkpoints so often."""
    arguments = ("train", NAME, "--checkpoint-every", every)
    if ranks > 1:
        arguments = ("launch", "--nproc-per-node", str(ranks), *arguments)
    return lambda project: start(project, *arguments)


@dataclass(frozen=True)
class Position:
    """Where a checkpoint is: finished epochs, and batches of the one in progress."""

    epoch: int
    batch: int


OVER = Position(0, 0)  # of a run that came to its end, and keeps no checkpoint


def position(checkpoint: Path) -> Position | None:
    """Of a whole checkpoint; None if there is none."""
    import torch

    if not is_whole(checkpoint):
        return None
    content = torch.load(io.BytesIO(checkpoint.read_bytes()[:-32]), weights_only=True)
    return Position(content["state"]["epoch"], content["state"]["batch"])


def interrupt(project: Project, start: Start, numbers: random.Random) -> Position | None:
    """Stop training by SIGTERM at a random batch; where it stopped, or None if it did wrong."""
    process = start(project)
    # The first batches' checkpoints are passed over, so that it is not always the same batch.
    moment = InWrite([f"runs/{NAME}/.{CHECKPOINT}.tmp"], numbers.randint(1, 16), 0)
    reached = moment.reached(process, project, project.root / "stack")
    if reached:
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    if not reached and process.returncode == 0:  # it wrote faster than one can look
        return OVER
    place = position(project.checkpoint)
    if shell_status(process) != 143 or place is None:
        fail(f"SIGTERM: ended with {shell_status(process)}: {err}")
        return None
    return place


def finish(project: Project, start: Start) -> bool:
    """Go on to the end; whether it came there."""
    process = start(project)
    _, err = process.communicate()
    if process.returncode:
        fail(f"resumed in {project.root}, it ended with {shell_status(process)}: {err}")
    return process.returncode == 0


def interrupted_in_epoch(
    fresh: Callable[[], Project], start: Start, numbers: random.Random
) -> tuple[Project, Position] | None:
    """A new project whose training was stopped in mid-epoch; None if it could not be."""
    for _ in range(3):  # after the last batch of an epoch, or of all, it is not: once more
        project = fresh()
        place = interrupt(project, start, numbers)
        if place is None:
            return None
        if place.batch > 0:
            return project, place
    fail("three times in a row training was not stopped within an epoch")
    return None


def distance(expected: Path, got: Path) -> float:
    """The greatest difference of two values in two weights files, relative to those over 1.

    Infinite where names, shapes, types or whole numbers differ.
    """
    from safetensors.torch import load_file

    ours, theirs = load_file(got), load_file(expected)
    if ours.keys() != theirs.keys():
        return float("inf")
    greatest = 0.0
    for name, tensor in theirs.items():
        other = ours[name]
        if (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
            return float("inf")
        if not tensor.is_floating_point():
            if not tensor.equal(other):
                return float("inf")
            continue
        apart = (tensor - other).abs() / tensor.abs().clamp(min=1)
        greatest = max(greatest, apart.max().item())
    return greatest
