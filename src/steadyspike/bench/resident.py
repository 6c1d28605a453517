"""How much memory a process took at most."""

from pathlib import Path

import torch

from steadyspike.bench.heap import trim

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes above what there was when this was made.

    On a GPU the allocator's count of live tensors. On a CPU the resident memory of the process,
    as Linux tells it; elsewhere nothing does.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.before = 0
        self.restart()
        self.before = self._now()

    def restart(self) -> None:
        """Forget the peak so far; ``before`` stays."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        trim()  # or what was freed would count as taken
        if _CLEAR.exists():
            _CLEAR.write_text("5")  # the peak becomes what is resident now

    def peak(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        peak = _resident("VmHWM")
        return None if peak is None else peak - self.before

    def _now(self) -> int:
        return torch.cuda.memory_allocated() if self.device == "cuda" else _resident("VmRSS") or 0


def _resident(key: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
