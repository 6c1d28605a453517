"""The processor, its compiler, memory and shared memory. Needs no torch."""

import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

from steadyspike import pins
from steadyspike.doctor.finding import Finding, first_line, size

PROC, SHM, CGROUP = Path("/proc"), Path("/dev/shm"), Path("/sys/fs/cgroup")
#: As many threads as each training process uses.
THREADS = pins.CPU_PINS["OMP_NUM_THREADS"]
#: Those of `steadyspike.kernels.cpu.build`, which loads torch.
COMPILERS = ("cc", "gcc", "clang")


def cpu() -> list[Finding]:
    """Model, cores that this process may use, and AVX2, on which the pinned bits rest."""
    described = pins.first_core(PROC / "cpuinfo")
    cores = visible_cores()
    avx2 = has_avx2()
    model = described.get("model name") or platform.processor() or platform.machine()
    facts = {"model": model, "cores": cores, "limit": core_limit(), "avx2": avx2}
    found = f"{model}, {cores_told()}, {'AVX2' if avx2 else 'no AVX2 seen'}"
    if avx2:
        return [Finding("CPU", "ok", found, facts=facts)]
    advice = "trains all the same; the bits will differ from the committed ones, made with AVX2"
    return [Finding("CPU", "note", found, advice, facts)]


def cores_told() -> str:
    """The cores in words, a container's limit included."""
    cores, limit = visible_cores(), core_limit()
    told = f"{cores} core{'s' if cores != 1 else ''}"
    return told if limit is None or limit >= cores else f"{told}, limited to {limit:g}"


def visible_cores() -> int:
    """How many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def core_limit() -> float | None:
    """How many cores' time a container may take; None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def has_avx2() -> bool:
    """Whether the system says so; only Linux on x86-64 does."""
    return pins.has_avx2(PROC / "cpuinfo")


def compiler() -> list[Finding]:
    """The C compiler that the CPU kernels call, and Triton where there is a GPU."""
    command = next((found for found in map(shutil.which, COMPILERS) if found), None)
    headers = (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
    facts = {"command": command, "version": None, "python_headers": headers}
    advice = "Debian and Ubuntu: install gcc, libc6-dev and, for GPUs, python3-dev"
    if command is None:
        return [Finding("C compiler", "note", "none: no fused kernels", advice, facts)]
    try:
        told = subprocess.run(
            [command, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        found = f"{command} does not answer: {first_line(error)}"
        return [Finding("C compiler", "note", found, advice, facts)]
    facts["version"] = (told.splitlines() or [""])[0]
    found = f"{command}: {facts['version']}"
    if not headers:
        found += "; Python.h, which Triton needs, is missing"
        return [Finding("C compiler", "note", found, advice, facts)]
    return [Finding("C compiler", "ok", found, facts=facts)]


def memory() -> list[Finding]:
    """What is free of the machine's memory, and a container's limit."""
    lines = (line.split() for line in (PROC / "meminfo").read_text().splitlines())
    known = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    free, total, limit = known["MemAvailable"], known["MemTotal"], _memory_limit()
    found = f"{size(free)} of {size(total)} free"
    if limit is not None and limit < total:
        found += f"; this container's limit is {size(limit)}"
    return [
        Finding("memory", "ok", found, facts={"free": free, "total": total, "limit": limit}),
    ]


def _memory_limit() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
    except OSError:
        return None
    return int(limit) if limit.isdecimal() else None


def shared_memory(needed: int | None = None) -> list[Finding]:
    """/dev/shm against what worker processes that read images ask of it, in bytes, if known."""
    if not SHM.is_dir():
        found = f"{SHM} is missing"
        advice = "worker processes cannot pass images on: set STEADYSPIKE_WORKERS=0"
        return [Finding("shared memory", "note", found, advice, {"total": None, "needed": needed})]
    usage = shutil.disk_usage(SHM)
    facts = {"free": usage.free, "total": usage.total, "needed": needed}
    found = f"{size(usage.free)} of {size(usage.total)} free"
    if needed is not None and usage.free < needed:
        found += f"; {size(needed)} wanted where worker processes read images at this batch"
        advice = "give the container more (shm_size, --shm-size) or set STEADYSPIKE_WORKERS lower"
        return [Finding("shared memory", "note", found, advice, facts)]
    return [Finding("shared memory", "ok", found, facts=facts)]
