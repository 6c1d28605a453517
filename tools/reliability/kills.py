"""SIGKILL at any moment of training, evaluation and report; then the same command again."""

import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from moments import After, InWrite, Within, look, timed
from project import NAME, Project, differences, fail, is_whole, make_project, shell_status
from rows import Row

COMMAND = ".venv/bin/python tools/reliability kills"
#: A run is these, one after the other; what was killed is what is started again.
CHAIN = (("train", NAME, "--checkpoint-every", "1s"), ("evaluate", NAME), ("report",))
EVERY_BATCH = ("train", NAME, "--checkpoint-every", "0s")
KILLS, KILLS_IN_WRITES = 200, 50
KILLS_A_RUN = 10
SEED = 6
RUN = f"runs/{NAME}"


class Moment(Protocol):
    @property
    def seconds(self) -> float: ...

    def reached(self, process: "subprocess.Popen[str]", project: Project, dump: Path) -> bool: ...


@dataclass
class Kills:
    """What a number of kills has come to."""

    tried: int = 0
    held: int = 0
    runs: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    cut_writes: int = 0  # that left a file's temporary behind
    checkpoints: int = 0  # looked at after a kill, one having been there before
    whole: int = 0  # of these: at least one was whole, and there were no more than two
    moved: int = 0  # of these: the newest was not yet in its place


@dataclass(frozen=True)
class Whole:
    """The undisturbed run: what it leaves, and the seconds of each command."""

    outcome: dict[str, bytes]
    seconds: list[float]
    work: list[float]  # of these, without the start of Python


def measure(work: Path, few: bool) -> Iterator[Row]:
    """The rows of this part."""
    project = make_project(work)
    whole = undisturbed(project, work / "whole")
    yield from killed(project, whole, work, 4 if few else KILLS, 6 if few else KILLS_IN_WRITES)


def undisturbed(project: Project, root: Path) -> Whole:
    """Run the chain without a break."""
    project = project.fresh(root)
    project.run("--version")  # the first start compiles Python's files
    seconds, work_seconds = zip(*(timed(project, *command) for command in CHAIN), strict=True)
    return Whole(project.outcome(), list(seconds), list(work_seconds))


def killed(
    project: Project, whole: Whole, work: Path, tries: int, tries_in_writes: int
) -> Iterator[Row]:
    """Both kinds of kills, and what they left of checkpoints."""
    anywhere, in_writes = Kills(), Kills()
    numbers = random.Random(SEED)
    length, work_length = sum(whole.seconds), sum(whole.work)
    late: list[tuple[int, After | Within]] = []  # the process had ended: first in the next run
    while anywhere.tried < tries:
        count = min(KILLS_A_RUN, tries - anywhere.tried)
        drawn, late = late[:count], late[count:]
        while len(drawn) < count:
            drawn.append(draw(whole, len(drawn) % 2 == 1, numbers))
        moments = [[m for place, m in drawn if place == number] for number in range(3)]
        fresh = project.fresh(work / f"killed-{anywhere.runs}")
        for place, moment in survive(fresh, CHAIN, moments, whole.outcome, anywhere):
            lengths = whole.seconds if isinstance(moment, After) else whole.work
            if moment is moments[place][0]:  # of a whole run: the machine is faster by now
                lengths[place] = min(lengths[place], moment.seconds)
            elif moment.seconds < lengths[place]:
                late.append((place, moment))
    yield Row(
        "Killed (SIGKILL) at a random moment of `train`, `evaluate` or `report`; the same command "
        "again, and so on to the end: every file of the run and the report has the undisturbed "
        "run's bytes, and no other file is left",
        anywhere.held,
        anywhere.tried,
        f"{anywhere.runs} runs; half of the moments uniform over the {length:.0f} s of an "
        f"undisturbed one, half over the {work_length:.0f} s of it without Python's starts; "
        f"{told(anywhere.phases)}",
        COMMAND,
    )
    chain = (EVERY_BATCH, *CHAIN[1:])
    while in_writes.tried < tries_in_writes:
        count = min(KILLS_A_RUN, tries_in_writes - in_writes.tried)
        fresh = project.fresh(work / f"cut-{in_writes.runs}")
        survive(fresh, chain, aimed(numbers, count), whole.outcome, in_writes)
    yield Row(
        "Killed just when a checkpoint, a result or the report is being written: the same",
        in_writes.held,
        in_writes.tried,
        f"{in_writes.runs} runs; {in_writes.cut_writes} kills left a temporary file behind; "
        f"{told(in_writes.phases)}",
        COMMAND,
    )
    yield Row(
        "After a kill in training that came later than the first checkpoint, a whole checkpoint "
        "is there, and never more than two",
        anywhere.whole + in_writes.whole,
        anywhere.checkpoints + in_writes.checkpoints,
        f"{anywhere.moved + in_writes.moved} times it was the one before, the newest not yet in "
        "its place",
        COMMAND,
    )


def draw(whole: Whole, started: bool, numbers: random.Random) -> tuple[int, After | Within]:
    """A moment of the chain, uniform over its time or, ``started``, without Python's starts.

    Returns the command's place, and when after its start.
    """
    lengths = whole.work if started else whole.seconds
    place = numbers.choices(range(len(lengths)), lengths)[0]
    seconds = numbers.uniform(0, lengths[place])
    return place, Within(seconds) if started else After(seconds)


def aimed(numbers: random.Random, count: int) -> list[list[InWrite]]:
    """Kills in writes, by command: most in checkpoints, one in each other kind of file."""
    results = [f"{RUN}/.{name}.tmp" for name in ("model.safetensors", "digests.json")]
    metrics = [f"{RUN}/.{name}.tmp" for name in ("membranes.json", "metrics.json")]
    report = [f"reports/.{name}.tmp" for name in ("digests.json", "table2.md", "training.svg")]

    def write(places: Sequence[str], most: int) -> InWrite:
        # A write takes milliseconds: within it, or in the next steps after it.
        return InWrite(places, numbers.randint(0, most), numbers.uniform(0, 0.0004))

    checkpoints = [write([f"{RUN}/.checkpoint.pt.tmp"], 12) for _ in range(max(1, count - 3))]
    others = [write(results, 1), write(metrics, 1), write(report, 2)][: count - 1]
    return [[*checkpoints, *others[:1]], others[1:2], others[2:]]


def survive(
    project: Project,
    chain: Sequence[Sequence[str]],
    moments: Sequence[Sequence[Moment]],
    expected: dict[str, bytes],
    kills: Kills,
) -> list[tuple[int, Moment]]:
    """One run with these kills in each command; those that came too late, the command having ended.

    A moment comes with the place of its command.
    """
    missed: list[tuple[int, Moment]] = []
    tried, sound = 0, True
    for place, command in enumerate(chain):
        ended = False
        for number, moment in enumerate(moments[place]):
            status = kill(project, command, moment, kills)
            if status is None:
                tried += 1
                continue
            ended = True
            if status:
                sound, tried = False, tried + 1
            missed += [(place, late) for late in moments[place][number:]]
            break
        if not ended and sound:
            status, err = project.run(*command)
            if status:
                fail(f"{' '.join(command)}, after {tried} kills, ended with {status}: {err}")
                sound = False
    different = differences(expected, project.outcome()) if sound else []
    if different:
        fail(f"after {tried} kills in {project.root} not as undisturbed: {', '.join(different)}")
    kills.runs += 1
    kills.tried += tried if sound else max(1, tried)
    kills.held += tried if sound and not different else 0
    return missed


def kill(project: Project, command: Sequence[str], moment: Moment, kills: Kills) -> int | None:
    """Start a command and kill it at a moment; its exit status if it ended before, else None."""
    training = command[0] == "train"
    had_one = checkpoints(project) > 0
    before = temporaries(project)
    dump = project.root / "stack"
    dump.unlink(missing_ok=True)
    with (project.root / "log").open("a+") as log:
        process = project.start(*command, err=log, dump=dump)
        if moment.reached(process, project, dump):
            # A write lasts for milliseconds: what it was is seen in what is left.
            phase = None if isinstance(moment, InWrite) else look(process, dump)
            process.kill()
            process.wait()
        if process.returncode != -signal.SIGKILL:
            status = shell_status(process)
            if status:
                log.seek(0)
                fail(f"{' '.join(command)} ended with {status}: {log.read()}")
            return status
    cut = sorted(temporaries(project).items() - before.items())
    kills.cut_writes += bool(cut)
    if phase is None:
        phase = f"writing {kind(cut[0][0])}" if cut else f"just after, in `{command[0]}`"
    kills.phases[phase] += 1
    if training and had_one and not (project.run_folder / "timing.json").exists():
        count = checkpoints(project)
        kills.checkpoints += 1
        kills.whole += 1 <= count <= 2
        kills.moved += count == 1 and not is_whole(project.checkpoint)
        if not 1 <= count <= 2:
            fail(f"{count} whole checkpoints in {project.run_folder} after a kill")
    return None


def checkpoints(project: Project) -> int:
    """How many whole checkpoints lie there, whatever they are called but not as a temporary."""
    return sum(is_whole(path) for path in project.run_folder.glob("*.pt"))


def temporaries(project: Project) -> dict[str, int]:
    """The temporary files that lie there, and when each was changed, ns."""
    return {path.name: path.stat().st_ctime_ns for path in project.root.rglob(".*.tmp")}


def kind(temporary: str) -> str:
    return "a checkpoint" if "checkpoint" in temporary else "a result or the report"


def told(phases: Counter[str]) -> str:
    """``61 in a batch, 12 in evaluation``, the most frequent first."""
    return ", ".join(f"{count} {phase}" for phase, count in phases.most_common())
