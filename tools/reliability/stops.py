"""Stop training by a signal or a time limit, or damage its checkpoints, and resume it."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from page import Row
from project import (
    NAME,
    STOPPED,
    Attempts,
    Failure,
    Project,
    ended,
    is_whole,
    make_project,
    wait_for_write,
)

SIGNALS = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "Ctrl-C (SIGINT)",
    signal.SIGHUP: "A closed terminal (SIGHUP)",
}
MOST_SECONDS = 10.0  # from the signal or the limit to the end of the process
STOPS, LIMITS, DAMAGED, BOTH_DAMAGED = 20, 8, 20, 6
TRAIN = ("train", NAME, "--checkpoint-every", "0s")
BEFORE = "checkpoint-before.pt"
BLOCK = 4096  # bytes of a block of the file system
#: How a checkpoint is damaged, at a random place.
DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": lambda raw, numbers: raw[: numbers.randrange(1, len(raw))],
    "one bit": lambda raw, numbers: _with_one_bit_flipped(raw, numbers.randrange(8 * len(raw))),
    "empty": lambda raw, numbers: b"",
    "block of zeros": lambda raw, numbers: _with_zeros(raw, numbers.randrange(len(raw) // BLOCK)),
    "longer": lambda raw, numbers: raw + numbers.randbytes(numbers.randint(1, BLOCK)),
}


def _with_one_bit_flipped(raw: bytes, bit: int) -> bytes:
    place = bit // 8
    return raw[:place] + bytes([raw[place] ^ 1 << bit % 8]) + raw[place + 1 :]


def _with_zeros(raw: bytes, block: int) -> bytes:
    return raw[: block * BLOCK] + bytes(BLOCK) + raw[(block + 1) * BLOCK :]


def measure(work: Path, few: bool) -> Iterator[Row]:
    """Rows: each signal, the time limit, the newest checkpoint damaged, both damaged."""
    project = make_project(work)
    project.fresh(work / "first").finish(*TRAIN)  # compiles Python's files and kernels
    whole = project.fresh(work / "undisturbed")
    began = time.monotonic()
    whole.finish(*TRAIN)
    seconds, expected = time.monotonic() - began, whole.results()
    yield from signals(project, expected, seconds, work, 2 if few else STOPS)
    yield limits(project, expected, seconds, work, 2 if few else LIMITS)
    yield from damages(project, expected, work, few)


def signals(
    project: Project, expected: Mapping[str, bytes], seconds: float, work: Path, tries: int
) -> Iterator[Row]:
    """Half of the stops in the first half of a run's ``seconds``, half after a random batch."""
    numbers = random.Random(15)
    for number, name in SIGNALS.items():
        attempts, slowest = Attempts(), 0.0
        for attempt in range(tries):
            run = project.fresh(work / f"{number.name}-{attempt}")
            if attempt % 2:
                when = (0, numbers.uniform(0, 0.5 * seconds))
            else:  # in a batch, or in the evaluation after an epoch
                when = (numbers.randint(2, 60), numbers.uniform(0, 0.05))
            with attempts.attempt():
                slowest = max(slowest, stop(run, number, *when))
                run.finish(*TRAIN)
                run.must_equal(expected)
        yield Row(
            f"{name} during training: exit status {128 + number} within {MOST_SECONDS:.0f} s, with "
            "a whole checkpoint if training has begun; the same command resumes, and the run's "
            "files have the same bytes as without the stop",
            attempts.held,
            attempts.tried,
            f"slowest {slowest:.2f} s",
        )


def stop(project: Project, number: signal.Signals, writes: int = 0, seconds: float = 0) -> float:
    """Start training and stop it by a signal; the seconds from the signal to the end.

    The signal is sent ``seconds`` after the beginning of that many ``writes``, which are those of
    checkpoints after each batch, or after the start of the process if ``writes`` is 0. Raises
    Failure if the process does not end as it should, or had ended before.
    """
    process = project.start(*TRAIN)
    if writes:
        wait_for_write(process, project.run_folder, writes)
    time.sleep(seconds)
    began = time.monotonic()
    process.send_signal(number)
    status, err = ended(process)
    took = time.monotonic() - began
    if status != 128 + number or took > MOST_SECONDS:
        raise Failure(f"{number.name}: ended with {status} after {took:.1f} s: {err}")
    if STOPPED in err.splitlines():
        if not is_whole(project.checkpoint):
            raise Failure(f"{number.name}: no whole checkpoint")
    elif writes:  # training had begun
        raise Failure(f"{number.name}: does not say how to go on: {err}")
    return took


def limits(
    project: Project, expected: Mapping[str, bytes], seconds: float, work: Path, tries: int
) -> Row:
    """Limits from 0 s to most of an undisturbed run's ``seconds``."""
    attempts, latest, given = Attempts(), 0.0, []
    for attempt in range(tries):
        run = project.fresh(work / f"limit-{attempt}")
        limit = int(0.8 * seconds * attempt / tries)
        given.append(limit)
        with attempts.attempt():
            began = time.monotonic()
            status, err = run.run(*TRAIN, "--stop-after", f"{limit}s")
            late = time.monotonic() - began - limit
            latest = max(latest, late)
            sound = status == 143 and STOPPED in err.splitlines() and is_whole(run.checkpoint)
            if not sound or late > MOST_SECONDS:
                raise Failure(f"--stop-after {limit}s: {status} after {late:.1f} s more: {err}")
            run.finish(*TRAIN)
            run.must_equal(expected)
    return Row(
        f"`--stop-after TIME`: exit status 143 within {MOST_SECONDS:.0f} s after that time, with a "
        "whole checkpoint; the same command resumes, to the same bytes",
        attempts.held,
        attempts.tried,
        f"limits of {min(given)} to {max(given)} s; the latest end {latest:.2f} s after its limit",
    )


def damages(
    project: Project, expected: Mapping[str, bytes], work: Path, few: bool
) -> Iterator[Row]:
    """Damage the newest checkpoint of a stopped run, then both."""
    numbers = random.Random(24)
    stopped = project.fresh(work / "stopped")
    stop(stopped, signal.SIGTERM, writes=30)
    names = list(DAMAGES)
    for claim, tries, both in (
        (
            "The newest checkpoint damaged: a line says so, training resumes from the one before, "
            "and the run's files have the same bytes as without the damage",
            1 if few else DAMAGED,
            False,
        ),
        (
            "Both checkpoints damaged: refused in one line that names the file, exit status 2, "
            "and no file is changed",
            1 if few else BOTH_DAMAGED,
            True,
        ),
    ):
        attempts = Attempts()
        for attempt in range(tries):
            run = stopped.copy(work / f"damaged-{both:d}-{attempt}")
            damage(run.checkpoint, names[attempt % len(names)], numbers)
            with attempts.attempt():
                if both:
                    damage(run.run_folder / BEFORE, numbers.choice(names), numbers)
                    is_refused(run)
                else:
                    resumes_from_before(run)
                    run.must_equal(expected)
        yield Row(claim, attempts.held, attempts.tried, ", ".join(names))


def damage(path: Path, how: str, numbers: random.Random) -> None:
    """Damage a file in one of the ways of `DAMAGES`."""
    raw = path.read_bytes()
    damaged = raw
    while damaged == raw:  # a block may be of zeros already
        damaged = DAMAGES[how](raw, numbers)
    path.write_bytes(damaged)


def resumes_from_before(project: Project) -> None:
    """Raise Failure unless training ends well after one line about the damaged checkpoint."""
    status, err = project.run(*TRAIN)
    folder = f"runs/{NAME}"
    lines = [
        line
        for line in err.splitlines()
        if line.startswith(f"steadyspike: {folder}/checkpoint.pt: ")
        and line.endswith(f"; resuming from {folder}/{BEFORE}")
    ]
    if status or len(lines) != 1:
        raise Failure(f"with a damaged checkpoint training ended with {status}: {err}")


def is_refused(project: Project) -> None:
    """Raise Failure unless training refuses the checkpoint in one line."""
    before = project.results()
    status, err = project.run(*TRAIN)
    place = f"steadyspike: runs/{TRAIN[1]}/checkpoint.pt: "
    if status != 2 or err.count("\n") != 1 or not err.startswith(place):
        raise Failure(f"{project.root}: expected a refusal, ended with {status}: {err}")
    project.must_equal(before)
