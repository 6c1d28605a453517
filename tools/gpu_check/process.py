"""Runs one part in a process of its own, and ends it at its limit."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from record import REPOSITORY, Part, Row

LOG_END = 3000  # characters of a failed part's output that are kept


def run_part(
    name: str,
    options: Mapping[str, Any],
    part: Part,
    log: Path,
    show: Callable[[Row], None],
) -> None:
    """Run part.py and add its rows to ``part`` as they come, then how it ended.

    Args:
        name: the part.
        options: of `common.Options`; "seconds" is the limit.
        part: whose state is set.
        log: receives what the process prints; its folder exists.
        show: called after each row.
    """
    limit = options["seconds"]
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("part.py")), name, json.dumps(options)],
            cwd=REPOSITORY,
            env=_environment(options["rehearse"]),
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
        try:
            for line in _lines_until(process, began + limit):
                row = Row(**json.loads(line))
                part.add(row)
                part.seconds = round(time.monotonic() - began, 1)
                show(row)
        finally:
            over = process.poll() is None
            _end(process)
    part.seconds = round(time.monotonic() - began, 1)
    if process.returncode == 0:
        part.state = "done"
        return
    part.log = log.read_text(errors="replace")[-LOG_END:]
    if over:
        part.state = f"over its limit of {limit:.0f} s"
    else:
        last = part.log.strip().rpartition("\n")[2][:200]
        part.state = f"failed, status {process.returncode}: {last}"


def _environment(rehearse: bool) -> dict[str, str]:
    paths = [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    if rehearse:
        own["OMP_NUM_THREADS"] = "1"  # tensors are tiny, and other processes may be at work
    return {**os.environ, **own}


def _lines_until(process: "subprocess.Popen[bytes]", deadline: float) -> Iterator[bytes]:
    """Whole lines of the process's output until it has ended or the deadline has passed."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            read = os.read(process.stdout.fileno(), 1 << 16)
            if not read:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(1.0, deadline - time.monotonic()))
                return
            *lines, rest = (rest + read).split(b"\n")
            yield from lines


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
