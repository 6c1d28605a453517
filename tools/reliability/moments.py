"""When a process is ended, and what it was doing just then."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from project import Project, shell_status

OTHER = "starting or ending"
#: By what a stack shows, innermost call first in each of its lines; the first that fits counts.
PHASES = (
    (r"train/(trainer|loop)\.py.* in (__init__|_resume)\b.*train/loop\.py.* in train\b", OTHER),
    (r"train/checkpoint\.py.* in save_checkpoint", "writing a checkpoint"),
    (r"evaluate/accuracy\.py.* in evaluate\b.*train/loop\.py", "evaluation within training"),
    (r"train/trainer\.py.* in _train_batch", "in a batch"),
    (r"train/loop\.py.* in train\b", "between batches"),
    (r"files\.py.*train/run\.py.* in train_run", "writing a run's results"),
    (r"files\.py.*evaluate/run\.py.* in evaluate_run", "writing metrics"),
    (r"evaluate/run\.py.* in evaluate_run", "evaluation"),
    (r"files\.py.*report/write\.py", "writing the report"),
    (r"report/write\.py.* in write_report", "report"),
)
PATIENCE = 3.0  # seconds that a dump may take where others want the processor
#: Of a whole dump: where Python begins, no call at all, or more than are shown.
LAST_LINES = ("in _run_module_as_main\n", "<no Python frame>\n", "  ...\n")


def phase_of(stack: str) -> str:
    """What a process does, by the stack that it has dumped."""
    line = " ".join(stack.splitlines())
    return next((phase for pattern, phase in PHASES if re.search(pattern, line)), OTHER)


def look(process: "subprocess.Popen[str]", dump: Path) -> str:
    """The phase that a process is in; it runs on."""
    if not _answers(process.pid):
        return OTHER
    before = _size(dump)
    process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        stack = dump.read_text()[before:]
        if stack.endswith(LAST_LINES):
            return phase_of(stack)
        time.sleep(0.0005)
    return phase_of(dump.read_text()[before:])


def _answers(pid: int) -> bool:
    """Whether a process has a handler for SIGUSR1; at first, and at its end, it has none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def running(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Whether a process still runs after so many seconds; does not wait for the rest of them."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


@dataclass(frozen=True)
class After:
    """So many seconds after the start."""

    seconds: float

    def reached(self, process: "subprocess.Popen[str]", project: Project, dump: Path) -> bool:
        """Waits for the moment; False if the process ended before."""
        return running(process, self.seconds)


@dataclass(frozen=True)
class Within:
    """So many seconds after the start of what the command is for: Python is up by then."""

    seconds: float

    def reached(self, process: "subprocess.Popen[str]", project: Project, dump: Path) -> bool:
        """As of `After`."""
        alive = running(process, 0)
        while alive and look(process, dump) == OTHER:
            alive = running(process, 0.02)
        return alive and running(process, self.seconds)


@dataclass(frozen=True)
class InPhase:
    """In one of these phases, looked for from so many seconds after the start on."""

    phases: Sequence[str]
    seconds: float

    def reached(self, process: "subprocess.Popen[str]", project: Project, dump: Path) -> bool:
        """As of `After`."""
        alive = running(process, self.seconds)
        while alive and look(process, dump) not in self.phases:
            alive = running(process, 0.01)
        return alive


@dataclass(frozen=True)
class InWrite:
    """So many seconds after the temporary of a file has appeared, some writes being passed over."""

    places: Sequence[str]  # of the temporaries, relative to the project
    passed: int
    seconds: float

    def reached(self, process: "subprocess.Popen[str]", project: Project, dump: Path) -> bool:
        """As of `After`."""
        paths = [project.root / place for place in self.places]
        left, seen = self.passed, [_stamp(path) for path in paths]  # a kill leaves temporaries
        while process.poll() is None:
            now = [_stamp(path) for path in paths]
            begun = sum(
                stamp is not None and stamp != old for stamp, old in zip(now, seen, strict=True)
            )
            seen = now
            left -= begun
            if left < 0:
                time.sleep(self.seconds)
                return process.poll() is None
            time.sleep(0.0001)
        return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def timed(project: Project, *command: str) -> tuple[float, float]:
    """Run a command undisturbed: the seconds it took, and those without the start of Python.

    Raises RuntimeError if it fails: then there is nothing to compare with.
    """
    dump = project.root / "stack"
    dump.unlink(missing_ok=True)
    began = time.monotonic()
    with (project.root / "log").open("w+") as log:
        process = project.start(*command, err=log, dump=dump)
        up = time.monotonic() if Within(0).reached(process, project, dump) else began
        process.wait()
        end = time.monotonic()
        if process.returncode:
            log.seek(0)
            told = f"ended with {shell_status(process)}: {log.read()}"
            raise RuntimeError(f"the undisturbed {' '.join(command)} {told}")
    return end - began, end - up
