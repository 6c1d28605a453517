"""What must be decided before torch loads, so that a CPU gives the same bits everywhere.

Vector width and thread count change the order in which floats are added. Pinned to AVX2 and two
threads, every x86-64 machine with AVX2 adds in the same order. Nothing here imports torch.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path

from steadyspike.console import notify

CPU_PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    # MKL's AVX2 mode still differs between vendors; this one does not.
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
    # A machine with one core must still split the work in two.
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
}
CPUINFO = Path("/proc/cpuinfo")


def pin_cpu() -> None:
    """Pin threads and instruction set of this process; RuntimeError once torch has loaded."""
    if "torch" in sys.modules:
        raise RuntimeError("the CPU must be pinned before torch is imported")
    os.environ.update(CPU_PINS)
    if sys.platform == "linux" and platform.machine() == "x86_64" and not has_avx2():
        del os.environ["ATEN_CPU_CAPABILITY"]  # torch takes its word, and would crash
        notify(
            "steadyspike: note: this processor has no AVX2: training is slower and rounds "
            "otherwise than the committed results"
        )
    # Either of these, set in a user's shell, would take a thread away again.
    for variable in ("OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS"):
        os.environ.pop(variable, None)
    # A thread that waits for the other sleeps after some microseconds: left to spin for as long as
    # it likes, it made training twenty times slower where another process wanted the core.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # cuBLAS reads this when it starts; without it a deterministic GPU run is refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def has_avx2(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the system says so; only Linux on x86-64 does."""
    return "avx2" in first_core(cpuinfo).get("flags", "").split()


def first_core(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """What the system says of it, by its own words."""
    try:
        first = cpuinfo.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def keep_freed_memory() -> None:
    """Ask glibc to keep large freed blocks: every batch asks for the same ones again.

    Otherwise each activation is fresh memory from the kernel, zeroed page by page: about a tenth
    of a training step. Results do not depend on it; elsewhere than on glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)
