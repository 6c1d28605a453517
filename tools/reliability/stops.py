"""Signals and a time limit: a checkpoint, the right exit status, and soon."""

import math
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import damage
from moments import OTHER, After, InPhase, Within, look, timed
from project import NAME, Project, differences, fail, is_whole, make_project, shell_status
from rows import Row

COMMAND = ".venv/bin/python tools/reliability stops"
MOST_SECONDS = 10.0  # that a stop may take
STOPS, STOPS_IN_EVALUATION, LIMITS = 22, 8, 8
Stop = After | Within | InPhase
IN_EVALUATION = ("evaluation within training",)
TOLD = f"steadyspike: {NAME} stopped; the same command goes on from runs/{NAME}/checkpoint.pt"
#: Where whoever stops a run must be told how it goes on.
WITHIN = ("in a batch", "evaluation within training", "writing a checkpoint")
NAMES = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "Ctrl-C (SIGINT)",
    signal.SIGHUP: "A closed terminal (SIGHUP)",
}


@dataclass
class Stops:
    """What a number of stops has come to."""

    tried: int = 0
    held: int = 0
    runs: int = 0
    early: int = 0  # before there was anything to keep
    slowest: float = 0.0
    phases: Counter[str] = field(default_factory=Counter)


def measure(work: Path, few: bool) -> Iterator[Row]:
    """The rows of this part."""
    project = make_project(work)
    whole = project.fresh(work / "whole")
    project.run("--version")  # the first start compiles Python's files
    lengths = timed(whole, "train", NAME)
    results = whole.outcome("runs")
    tries = (1, 1) if few else (STOPS, STOPS_IN_EVALUATION)
    for number in NAMES:
        yield by_signal(project, results, lengths, work, number, *tries)
    yield by_limit(project, results, lengths[0], work, 1 if few else LIMITS)
    yield from damage.rows(project, results, work, few)


def by_signal(
    project: Project,
    results: dict[str, bytes],
    lengths: tuple[float, float],
    work: Path,
    number: signal.Signals,
    anywhere: int,
    in_evaluation: int,
) -> Row:
    """Stop training by a signal, at random moments and in evaluation; finish; compare.

    ``lengths`` are the seconds of undisturbed training, and those without Python's start.
    """
    numbers = random.Random(int(number))
    longest = dict(zip((After, Within, InPhase), (*lengths, lengths[1] / 2), strict=True))

    def draw(kind: type[Stop]) -> Stop:
        seconds = numbers.uniform(0, longest[kind])
        return InPhase(IN_EVALUATION, seconds) if kind is InPhase else kind(seconds)

    kinds = [After, Within] * ((anywhere + 1) // 2)
    moments = [draw(kind) for kind in kinds[:anywhere] + [InPhase] * in_evaluation]
    numbers.shuffle(moments)
    stops = Stops()
    while moments:
        fresh = project.fresh(work / f"{number.name}-{stops.runs}")
        sound: bool | None = True
        tried = 0
        while moments and sound:
            sound = stop(fresh, number, moments[-1], stops)
            if sound is not None:
                tried += 1
                moments.pop()
            elif not tried:  # the whole of training was over: the machine is faster by now
                late = moments.pop()
                longest[type(late)] = min(longest[type(late)], late.seconds)
                moments.append(draw(type(late)))
        finish(fresh, results, stops, tried, sound)
    return Row(
        f"{NAMES[number]} during training: exit status {128 + number} within {MOST_SECONDS:.0f} s "
        "and a whole checkpoint; the same command goes on, and the run's files have the "
        "undisturbed run's bytes",
        stops.held,
        stops.tried,
        f"slowest {stops.slowest:.2f} s; {stops.early} in start-up, before there was anything to "
        f"keep; {', '.join(f'{count} {phase}' for phase, count in stops.phases.most_common())}",
        COMMAND,
    )


def stop(project: Project, number: signal.Signals, moment: Stop, stops: Stops) -> bool | None:
    """Send a signal at a moment; whether all is as promised, or None if training had ended."""
    before = written(project.checkpoint)
    dump = project.root / "stack"
    dump.unlink(missing_ok=True)
    process = project.start("train", NAME, dump=dump)
    if not moment.reached(process, project, dump):
        _, err = process.communicate()
        if process.returncode == 0:
            return None
        stops.tried += 1
        return _failed(f"ended with {shell_status(process)} by itself: {err}")
    phase = look(process, dump)
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate()
    took = time.monotonic() - sent
    status = shell_status(process)
    over = phase == OTHER and (project.run_folder / "timing.json").exists()
    if over and status in (0, 128 + number):
        return None  # it was about to end: every result is written
    stops.tried += 1
    stops.phases[phase] += 1
    stops.slowest = max(stops.slowest, took)
    if status != 128 + number or took > MOST_SECONDS:
        return _failed(f"{number.name} {phase}: ended with {status} after {took:.1f} s: {err}")
    if TOLD in err.splitlines():
        if not is_whole(project.checkpoint) or written(project.checkpoint) == before:
            return _failed(f"{number.name} {phase}: no new checkpoint")
    elif phase in WITHIN:
        return _failed(f"{number.name} {phase}: it does not tell how to go on: {err}")
    elif written(project.checkpoint) == before:
        stops.early += 1
    elif not is_whole(project.checkpoint):  # of the last epoch: nothing is trained any more
        return _failed(f"{number.name} {phase}: the checkpoint is not whole")
    if "Traceback" in err and "in main" in err:  # not while Python itself begins
        return _failed(f"{number.name} {phase}: {err}")
    return True


def written(path: Path) -> int | None:
    """When a file was written, ns; stopped twice in the same batch, it may hold the same bytes."""
    return path.stat().st_mtime_ns if path.exists() else None


def by_limit(
    project: Project, results: dict[str, bytes], seconds: float, work: Path, tries: int
) -> Row:
    """Stop by ``--stop-after`` until training is through, with every limit there is room for."""
    stops = Stops()
    # Every whole second from where Python's start leaves some time to where half is trained.
    began = time.monotonic()
    project.fresh(work / "limit").run("train", NAME, "--stop-after", "0s")
    shortest = math.ceil(time.monotonic() - began)
    span = 1 + max(1, int(seconds / 2))
    given = []
    while stops.tried < tries:
        fresh = project.fresh(work / f"limit-{stops.runs}")
        sound: bool | None = True
        tried = 0
        while sound and stops.tried < tries:
            limit = shortest + stops.tried % span
            began = time.monotonic()
            status, err = fresh.run("train", NAME, "--stop-after", f"{limit}s")
            if status == 0:
                if not tried:  # the machine is faster by now
                    shortest = max(0, shortest - 1)
                sound = None
                break
            given.append(limit)
            took = time.monotonic() - began - limit
            stops.tried += 1
            tried += 1
            stops.slowest = max(stops.slowest, took)
            sound = status == 143 and took <= MOST_SECONDS and TOLD in err.splitlines()
            if not sound or not is_whole(fresh.checkpoint):
                sound = _failed(
                    f"--stop-after {limit}s ended with {status} {took:.1f} s late: {err}"
                )
        finish(fresh, results, stops, tried, sound)
    return Row(
        f"`--stop-after TIME`: the same within {MOST_SECONDS:.0f} s of that time",
        stops.held,
        stops.tried,
        f"limits of {min(given, default=0)} to {max(given, default=0)} s; the latest end came "
        f"{stops.slowest:.2f} s after its limit",
        COMMAND,
    )


def finish(
    project: Project, results: dict[str, bytes], stops: Stops, tried: int, sound: bool | None
) -> None:
    """Train to the end, where it has not come there (None), and compare; False is not sound."""
    stops.runs += 1
    if sound is False:
        return
    status, err = project.run("train", NAME) if sound else (0, "")
    different = differences(results, project.outcome("runs"))
    if status or different:
        fail(f"after {tried} stops: ended with {status}; not as undisturbed: {different}; {err}")
        return
    stops.held += tried


def _failed(what: str) -> bool:
    fail(what)
    return False
