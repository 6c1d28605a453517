"""Where a run took place: processor, memory, commit."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steadyspike.bench.records import Machine

_OWN = Path(__file__).parents[1]


def cores() -> int:
    """How many the process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Of the last minute: how many processes wanted a core."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine(device: str, facts: dict[str, Any], load_before: float | None) -> Machine:
    """This machine; ``facts`` is what a worker's torch says of it."""
    return Machine(
        device=device,
        processor=_processor(),
        cores=cores(),
        memory_bytes=_memory(),
        instructions=facts["instructions"],
        gpu=facts["gpu"],
        gpu_memory_bytes=facts["gpu_memory"],
        cuda=facts["cuda"],
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        load=load_before,
    )


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return _processor()


def now() -> str:
    """The date and time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> tuple[str | None, bool]:
    """The commit that this package was checked out from, and whether its files have changed."""
    head = _git("rev-parse", "HEAD")
    return head, bool(head and _git("status", "--porcelain", "--", "."))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_OWN, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
