"""Hostile and broken input ends in one line: a fuzzer at every reader, and attacks one by one."""

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hostile
from fuzz_targets import TARGETS
from rows import Row

COMMAND = ".venv/bin/python tools/reliability inputs"
MEMORY = 1024  # MiB, at most, of a process with all its libraries
TIMEOUT = 25  # seconds for one input, on a machine that may have other work
FEW = 500  # executions of each reader where few are asked for
SEED = 6
INSTALL = (
    "fuzzing needs atheris, which has wheels for Python 3.11 to 3.13 on x86-64 Linux: there "
    "`.venv/bin/uv pip install --require-hashes --requirement requirements-fuzz.lock` installs it"
)
#: How libFuzzer calls its findings.
_KINDS = {"crash-": "crashes", "timeout-": "hangs", "oom-": "too much memory"}


@dataclass(frozen=True)
class Outcome:
    """What came of fuzzing one reader; peak memory in MiB."""

    executions: int
    crashes: int
    hangs: int
    peak: int


def measure(work: Path, few: bool) -> Iterator[Row]:
    """The rows of this part."""
    yield from hostile.rows(work / "hostile", COMMAND)
    if importlib.util.find_spec("atheris") is None:
        print(INSTALL, file=sys.stderr)
        yield Row("Fuzzing finds no crash and no hang in the readers of files", 0, 1, "", COMMAND)
        return
    outcomes = []
    for name, target in TARGETS.items():
        wanted = min(FEW, target.executions) if few else target.executions
        outcome = fuzzed(name, work / name, wanted)
        outcomes.append(outcome)
        yield _row(f"Fuzzing of {target.reads}", [outcome], wanted)
    whole = sum(min(FEW, t.executions) if few else t.executions for t in TARGETS.values())
    yield _row(f"Fuzzing of all {len(TARGETS)} readers, together", outcomes, whole)


def fuzzed(name: str, work: Path, executions: int) -> Outcome:
    """Fuzzes one reader in a process of its own; what is found is printed."""
    # Each execution writes a file: in memory, where there is such a folder.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix=f"steadyspike-{name}-", dir=memory if memory.is_dir() else work.parent
    ) as folder:
        run = subprocess.run(
            [
                # A peak begins with the memory of who starts a process: here a shell's.
                *("sh", "-c", '"$@"; exit $?', "sh"),
                *(sys.executable, str(Path(__file__).with_name("fuzz.py")), name, folder),
                *(f"-runs={executions}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY}"),
                *(f"-seed={SEED}", "-print_final_stats=1", "-verbosity=0"),
            ],
            capture_output=True,
            text=True,
            errors="replace",
        )
        found = [path for path in Path(folder).iterdir() if path.is_file()]
        for path in found:
            kind = next((told for mark, told in _KINDS.items() if path.name.startswith(mark)), "")
            print(f"{name}: {kind}: {path.read_bytes()!r}", file=sys.stderr)
        if run.returncode:
            print(run.stderr[-3000:], file=sys.stderr)
    hangs = sum(path.name.startswith("timeout-") for path in found)
    return Outcome(
        executions=_statistic(run.stderr, "number_of_executed_units"),
        crashes=max(len(found) - hangs, int(run.returncode != 0 and not hangs)),
        hangs=hangs,
        peak=_statistic(run.stderr, "peak_rss_mb"),
    )


def _statistic(told: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s*(\d+)", told)
    return int(found[1]) if found else 0


def _row(subject: str, outcomes: list[Outcome], wanted: int) -> Row:
    """Executions that held are those that were run, less those that were found to fail."""
    executions = sum(outcome.executions for outcome in outcomes)
    crashes, hangs = (sum(getattr(o, kind) for o in outcomes) for kind in ("crashes", "hangs"))
    peak = max(outcome.peak for outcome in outcomes)
    failed = crashes + hangs + (peak > MEMORY)
    return Row(
        f"{subject}: no crash but our own error, no hang, no more than {MEMORY} MiB",
        min(executions, wanted) - failed,
        wanted,
        f"{executions:,} executions, {crashes} crashes, {hangs} hangs, peak memory {peak} MiB",
        COMMAND,
    )
