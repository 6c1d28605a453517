"""Ends a process when the one that started it ends.

A shell or DVC that a signal ends does not pass the signal on: training would go on without them.

``python -m steadyspike.parent PROGRAM ARGUMENT...`` runs a program that gets SIGTERM when its
parent ends, on Linux.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
INTERVAL = 0.5  # seconds


def end_with_dvc() -> None:
    """If DVC runs this process, end it by SIGTERM once DVC has ended; training writes a checkpoint.

    DVC starts a shell, which may outlive it and is then the parent, so the kernel's signal at a
    parent's end is not enough.
    """
    if "DVC_STAGE" not in os.environ or (dvc := _dvc()) is None:
        return

    def watch() -> None:
        while _dvc() == dvc:
            time.sleep(INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _dvc() -> int | None:
    """The parent, or its parent, if that is DVC."""
    process = os.getpid()
    for _ in range(2):
        try:
            after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
            process = int(after_name.split()[1])
            command = Path(f"/proc/{process}/cmdline").read_text(errors="replace")
        except OSError:  # ended in between, or not Linux
            return None
        if any(Path(argument).name == "dvc" for argument in command.split("\0")):
            return process
    return None


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])
