"""Damaged checkpoints: the one before serves, and says so; with both damaged, a refusal."""

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from moments import InWrite
from project import CHECKPOINT, NAME, Project, contents, differences, fail, is_whole
from rows import Row

COMMAND = ".venv/bin/python tools/reliability stops"
TRIES, TRIES_OF_BOTH = 20, 6
BEFORE = "checkpoint-before.pt"
BLOCK = 4096  # bytes of a file system's


def truncated(raw: bytes, numbers: random.Random) -> bytes:
    return raw[: numbers.randrange(1, len(raw))]


def one_bit(raw: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1 << numbers.randrange(8)]) + raw[place + 1 :]


def empty(raw: bytes, numbers: random.Random) -> bytes:
    return b""


def block_of_zeros(raw: bytes, numbers: random.Random) -> bytes:
    start = numbers.randrange(len(raw) // BLOCK) * BLOCK
    return raw[:start] + bytes(BLOCK) + raw[start + BLOCK :]


def longer(raw: bytes, numbers: random.Random) -> bytes:
    return raw + numbers.randbytes(numbers.randint(1, BLOCK))


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated,
    one_bit,
    empty,
    block_of_zeros,
    longer,
)


def rows(project: Project, results: dict[str, bytes], work: Path, few: bool) -> Iterator[Row]:
    """``results`` are what undisturbed training leaves."""
    stopped = interrupted(project, work / "interrupted")
    numbers = random.Random(24)
    tries = 1 if few else TRIES
    held = 0
    for number in range(tries):
        how = DAMAGES[number % len(DAMAGES)]
        copy = stopped.copy(work / f"damaged-{number}")
        damage(copy.checkpoint, how, numbers)
        held += goes_on(copy, results, how.__name__)
    yield Row(
        "The newest checkpoint damaged: the one before serves, a line says so, and the run's "
        "files have the undisturbed run's bytes",
        held,
        tries,
        f"{', '.join(how.__name__.replace('_', ' ') for how in DAMAGES)}, at random places",
        COMMAND,
    )
    tries = 1 if few else TRIES_OF_BOTH
    held = 0
    for number in range(tries):
        how, other = numbers.sample(DAMAGES, 2)
        copy = stopped.copy(work / f"both-damaged-{number}")
        damage(copy.checkpoint, how, numbers)
        damage(copy.run_folder / BEFORE, other, numbers)
        held += refused(copy, f"{how.__name__} and {other.__name__}")
    yield Row(
        "Both damaged: refused in one line, exit status 2, both left as they are",
        held,
        tries,
        "",
        COMMAND,
    )


def interrupted(project: Project, root: Path) -> Project:
    """A project whose training was stopped in mid-epoch, with two whole checkpoints."""
    project = project.fresh(root)
    dump = root / "stack"
    process = project.start("train", NAME, "--checkpoint-every", "0s", dump=dump)
    moment = InWrite([f"runs/{NAME}/.{CHECKPOINT}.tmp"], passed=60, seconds=0)
    if moment.reached(process, project, dump):
        process.send_signal(signal.SIGTERM)
    process.communicate()
    if not all(is_whole(project.run_folder / name) for name in (CHECKPOINT, BEFORE)):
        raise RuntimeError(f"training that was stopped has left no two checkpoints in {root}")
    return project


def damage(
    path: Path, how: Callable[[bytes, random.Random], bytes], numbers: random.Random
) -> None:
    """Damage a file, and make sure that it is."""
    raw = path.read_bytes()
    damaged = how(raw, numbers)
    while damaged == raw:  # that block was of zeros
        damaged = how(raw, numbers)
    path.write_bytes(damaged)


def goes_on(project: Project, results: dict[str, bytes], how: str) -> bool:
    """Whether training says that it falls back, and comes to the same bytes."""
    status, err = project.run("train", NAME)
    folder = f"runs/{NAME}"
    said = [
        line
        for line in err.splitlines()
        if line.startswith(f"steadyspike: {folder}/{CHECKPOINT}: ")
        and line.endswith(f"; going on from {folder}/{BEFORE}")
    ]
    different = differences(results, project.outcome("runs"))
    if status or len(said) != 1 or different:
        fail(f"{how}: ended with {status}; not as undisturbed: {different}; {err}")
    return not status and len(said) == 1 and not different


def refused(project: Project, how: str) -> bool:
    """Whether training is refused in one line that names the file, and changes neither."""
    files = contents(project.run_folder)
    status, err = project.run("train", NAME)
    lines = err.splitlines()
    one_line = len(lines) == 1 and lines[0].startswith(f"steadyspike: runs/{NAME}/{CHECKPOINT}: ")
    changed = differences(files, contents(project.run_folder))
    if status != 2 or not one_line or changed:
        fail(f"both damaged, {how}: ended with {status}; changed: {changed}; {err}")
    return status == 2 and one_line and not changed
