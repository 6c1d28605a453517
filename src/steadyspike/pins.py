"""Pins threads and instruction set before torch is imported: the same bits on every CPU.

Vector width and thread count change the order in which floats are added. Pinned to AVX2 and two
threads, every x86-64 machine with AVX2 adds in the same order. This module imports no torch.
"""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

from steadyspike.console import notify

CPU_PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    # MKL's AVX2 mode differs between processor vendors; this mode does not.
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
    # Two threads on a machine with one core too: they decide how work is split.
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
        del os.environ["ATEN_CPU_CAPABILITY"]  # torch does not check it, and would crash
        notify(
            "steadyspike: note: this processor has no AVX2: training is slower, and its rounding "
            "differs from the committed results"
        )
    # Set in a user's shell, either of these would limit the threads to fewer.
    for variable in ("OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS"):
        os.environ.pop(variable, None)
    # A waiting thread sleeps after some microseconds. Spinning without limit made training twenty
    # times slower while another process used the core.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # cuBLAS reads this at its start; torch refuses deterministic matrix products without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def has_avx2(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor has AVX2; False on anything but Linux on x86-64."""
    return "avx2" in cpu_flags(cpuinfo)


@cache
def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The instruction sets of the processor, by Linux's names on x86-64."""
    return frozenset(first_core(cpuinfo).get("flags", "").split())


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The processor's model name; the architecture where Linux gives none, as on ARM."""
    return first_core(cpuinfo).get("model name") or platform.machine()


def first_core(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """The first core's entries in /proc/cpuinfo; empty where there is no such file."""
    try:
        first = cpuinfo.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks, since every batch needs the same ones again.

    Otherwise the kernel maps and zeroes new pages for each activation, about a tenth of a training
    step. Does not affect results; does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)
