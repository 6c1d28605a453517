"""Kill `train`, `evaluate` and `report` by SIGKILL; the same commands again give the same bytes."""

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from page import Row
from project import NAME, Failure, Project, ended, is_whole, make_project, report, wait_for_write

#: Checkpoints often: every second, or after every batch where writes are to be hit.
COMMANDS = (("train", NAME, "--checkpoint-every", "1s"), ("evaluate", NAME), ("report",))
COMMANDS_THAT_WRITE = (("train", NAME, "--checkpoint-every", "0s"), *COMMANDS[1:])
KILLS, KILLS_IN_WRITES = 200, 50
KILLS_PER_RUN = {"train": 7, "evaluate": 2, "report": 1}
SIGKILLED = 137


@dataclass
class Counts:
    """Kills so far; how many were in training after a first checkpoint, and left a whole one."""

    kills: int = 0
    with_checkpoint: int = 0
    whole: int = 0
    runs: int = 0


def measure(work: Path, few: bool) -> Iterator[Row]:
    """Rows: kills at any moment, kills during a write, and the checkpoints found after them."""
    project = make_project(work)
    seconds, expected = undisturbed(project.fresh(work / "undisturbed"))
    numbers = random.Random(6)
    claim = (
        "`train`, `evaluate` or `report` killed (SIGKILL) {when}, then started again until all "
        "have ended: every file of the run and of the report has the same bytes as without kills, "
        "and no other file is left"
    )
    total = Counts()
    for when, wanted, in_writes in (
        ("at a random moment", 4 if few else KILLS, False),
        ("while it writes a file", 4 if few else KILLS_IN_WRITES, True),
    ):
        counts, held = Counts(), 0
        while counts.kills < wanted:
            before = counts.kills
            run = project.fresh(work / f"{'write' if in_writes else 'any'}-{counts.runs}")
            counts.runs += 1
            try:
                run_with_kills(run, None if in_writes else seconds, numbers, counts)
                run.must_equal(expected)
            except Failure as failure:
                report(failure)
                counts.kills = max(counts.kills, before + 1)
            else:
                held += counts.kills - before
        total.with_checkpoint += counts.with_checkpoint
        total.whole += counts.whole
        yield Row(claim.format(when=when), held, counts.kills, f"{counts.runs} runs")
    yield Row(
        "Killed in training after the first checkpoint: a whole checkpoint is there, at most two",
        total.whole,
        total.with_checkpoint,
    )


def undisturbed(project: Project) -> tuple[Mapping[str, float], Mapping[str, bytes]]:
    """Run all commands without a kill; the seconds each takes, and what they leave."""
    project.run("--version")  # the first start compiles Python's files
    seconds = {}
    for command in COMMANDS:
        began = time.monotonic()
        project.finish(*command)
        seconds[command[0]] = time.monotonic() - began
    return seconds, project.results()


def run_with_kills(
    project: Project,
    seconds: Mapping[str, float] | None,
    numbers: random.Random,
    counts: Counts,
) -> None:
    """Run all commands, each killed several times and then left to end.

    Args:
        seconds: how long each command takes; kills are uniform over it. None: kills while a file
            is being written or shortly after.

    Raises:
        Failure: a command ended with an error.
    """
    for command in COMMANDS if seconds else COMMANDS_THAT_WRITE:
        for _ in range(KILLS_PER_RUN[command[0]]):
            had_checkpoint = bool(whole_checkpoints(project))
            process = project.start(*command)
            if seconds:
                sleep(process, numbers.uniform(0, seconds[command[0]]))
            elif wait_for_write(process, project.root, numbers.randint(1, 12)):
                time.sleep(numbers.uniform(0, 0.0004))
            process.kill()
            status, err = ended(process)
            if status == 0:  # it ended before
                break
            if status != SIGKILLED:
                raise Failure(f"{' '.join(command)} ended with {status}: {err}")
            counts.kills += 1
            over = (project.run_folder / "timing.json").exists()  # checkpoints are being removed
            if command[0] == "train" and had_checkpoint and not over:
                counts.with_checkpoint += 1
                counts.whole += 1 <= len(whole_checkpoints(project)) <= 2
        project.finish(*command)


def whole_checkpoints(project: Project) -> list[Path]:
    """The newest checkpoint and the one before, as far as they are whole."""
    return [path for path in project.run_folder.glob("*.pt") if is_whole(path)]


def sleep(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Sleep, at most until the process has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
