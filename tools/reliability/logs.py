"""What training writes its progress to, and how often it keeps a checkpoint, change no bit."""

import itertools
import os
import pty
import random
import subprocess
import threading
from collections.abc import Callable

from project import Project, differences, fail
from resumes import finish, interrupted_in_epoch, training
from rows import Row

COMMAND = ".venv/bin/python tools/reliability changes"
EVERY = ("0s", "1s", "5m")
STEPS = (1, 2)  # from one log to the next: each comes first and second as often


def to_pipe(project: Project, *arguments: str) -> "subprocess.Popen[str]":
    return project.start(*arguments)


def to_terminal(project: Project, *arguments: str) -> "subprocess.Popen[str]":
    """A bar is drawn, and the numbers are looked at, several times a second."""
    screen, keyboard = pty.openpty()
    process = project.start(*arguments, err=keyboard)
    os.close(keyboard)
    threading.Thread(target=_read_all, args=(screen,), daemon=True).start()
    return process


def to_file(project: Project, *arguments: str) -> "subprocess.Popen[str]":
    with (project.root / "log").open("a") as log:
        return project.start(*arguments, err=log)


def to_nobody(project: Project, *arguments: str) -> "subprocess.Popen[str]":
    return project.start(*arguments, err=subprocess.DEVNULL)


def to_closed(project: Project, *arguments: str) -> "subprocess.Popen[str]":
    return project.start(*arguments, through=("sh", "-c", 'exec "$@" 2>&-', "sh"))


LOGS: dict[str, Callable[..., "subprocess.Popen[str]"]] = {
    "terminal": to_terminal,
    "pipe": to_pipe,
    "file": to_file,
    "/dev/null": to_nobody,
    "closed": to_closed,
}


def row(project: Project, whole: Project, numbers: random.Random, few: bool) -> Row:
    """Training begins with one log and goes on with another."""
    names = list(LOGS)
    pairs = [
        (name, names[(place + step) % len(names)])
        for step in STEPS
        for place, name in enumerate(names)
    ]
    pairs = [("terminal", "closed")] if few else pairs
    expected = whole.outcome("runs")
    held = 0
    for number, (before, after) in enumerate(pairs):
        begins = training(start=LOGS[before])
        goes_on = training(every=EVERY[number % len(EVERY)], start=LOGS[after])
        fresh = (
            project.fresh(project.root.parent / f"log-{number}-{n}") for n in itertools.count()
        )
        found = interrupted_in_epoch(lambda: next(fresh), begins, numbers)  # noqa: B023
        if found is None or not finish(found[0], goes_on):
            continue
        different = differences(expected, found[0].outcome("runs"))
        held += not different
        if different:
            fail(f"log {before}, then {after}: not as undisturbed: {', '.join(different)}")
    return Row(
        "Resumed in mid-epoch with another log and another `--checkpoint-every`: the run's files "
        "have the undisturbed run's bytes",
        held,
        len(pairs),
        "standard error: " + ", ".join(f"{before} to {after}" for before, after in pairs),
        COMMAND,
    )


def _read_all(screen: int) -> None:
    try:
        while os.read(screen, 4096):
            pass
    except OSError:  # the last one who wrote to it is gone
        pass
    os.close(screen)
