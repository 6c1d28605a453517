"""What `steadyspike doctor` says of the machine: GPUs, torch, processor, kernels, memory, disk."""

import os
import re
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadyspike import pins
from steadyspike.doctor.finding import Finding
from steadyspike.errors import reason
from steadyspike.variables import KERNELS, core_count, data_root, kernels_enabled

GIB = 1 << 30
# Named here so that tests can point them elsewhere.
PROC, SHARED_MEMORY = Path("/proc"), Path("/dev/shm")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
OWN_IMAGE = Path("/usr/local/bin/steadyspike-entrypoint")


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver and a description of each GPU, or the ``error`` of asking it."""

    version: str = ""
    cuda: int = 0  # the newest CUDA it can run: 13020 for 13.2
    gpus: tuple[str, ...] = ()
    error: str = ""

    def __str__(self) -> str:
        return f"driver {self.version}, for CUDA up to {self.cuda // 1000}.{self.cuda % 1000 // 10}"


def query_driver() -> Driver:
    """What NVML reports, regardless of CUDA_VISIBLE_DEVICES. Raises nothing."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        return Driver(
            pynvml.nvmlSystemGetDriverVersion(),
            pynvml.nvmlSystemGetCudaDriverVersion_v2(),
            tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())),
        )
    except Exception as error:  # no package, no driver, or a broken one
        return Driver(error=reason(error))


def _gpu(pynvml: Any, index: int) -> str:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name: str = pynvml.nvmlDeviceGetName(handle)
    try:
        usage = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:  # where CPU and GPU share their memory
        return name
    return f"{name} ({size(usage.free)} of {size(usage.total)} free)"


def gpus(driver: Driver | None = None) -> Iterator[Finding]:
    """The GPUs, or the reason that there are none, and the remedy."""
    driver = driver or query_driver()
    if driver.gpus:
        yield Finding("GPU", f"{', '.join(driver.gpus)}; {driver}")
        return
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    in_container = in_pod or any(mark.exists() for mark in CONTAINER_MARKS)
    loaded = (PROC / "driver/nvidia/version").exists()  # containers see that of their host
    found = "none found, training runs on the CPU"
    advice = "to use one by NVIDIA, install its driver"
    if loaded and not in_container:
        found += f" (the driver is loaded but shows none: {driver.error or 'no error'})"
        advice = "restart after an update of the driver, or install it again"
    elif loaded:
        found += " (the host has a driver, but this container was given no GPU)"
    if in_pod:
        advice = "to use one: nvidia.com/gpu in docker/kubernetes.yaml"
    elif in_container and OWN_IMAGE.exists():
        advice = "to use one: COMPOSE_FILE=compose.yaml:docker/gpu.yaml"
    elif in_container:
        advice = "to use one: start this container with it (docker run --gpus all)"
    yield Finding("GPU", found, advice)


def torch_and_gpus(driver: Driver) -> Iterator[Finding]:
    """The system, torch as training sets it up, and whether it computes on each GPU."""
    if "torch" not in sys.modules:
        pins.pin_cpu()
    try:
        import torch
        from torch.utils import collect_env
    except Exception as error:
        yield Finding("torch", f"cannot be imported: {reason(error)}", "make setup", problem=True)
        return
    compiler = collect_env.get_gcc_version(collect_env.run) or "none"
    yield Finding("system", f"{collect_env.get_os(collect_env.run)}, gcc {compiler}")
    found = f"{torch.__version__}, {torch.get_num_threads()} threads, "
    found += torch.backends.cpu.get_cpu_capability()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    advice = ""
    if driver.gpus and not count:
        warned = [str(warning.message).splitlines()[0] for warning in caught]
        why, advice = why_torch_sees_none(driver, torch.version.cuda, warned)
        found += f"; sees no GPU: {why}"
    for index in range(count):
        try:
            torch.ones(8, device=f"cuda:{index}").sum().item()
            found += f"; computes on GPU {index}"
        except Exception as error:
            found += f"; GPU {index} does not compute: {reason(error)}"
            advice = "stop what else uses it (nvidia-smi), or hide it with CUDA_VISIBLE_DEVICES"
    yield Finding("torch", found, advice)


def why_torch_sees_none(
    driver: Driver, built_for: str | None, warned: list[str]
) -> tuple[str, str]:
    """The reason that torch, ``built_for`` this CUDA, sees no GPU of the driver; and the remedy."""
    if built_for is None:
        return "it was built without CUDA", "make setup installs one built with CUDA"
    needed = int(built_for.split(".")[0])
    if driver.cuda // 1000 < needed:
        return str(driver), f"install a driver for CUDA {needed}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not warned:  # torch hides them without a warning
        found = f"CUDA_VISIBLE_DEVICES is {visible!r}"
        return found, f"unset it, or name some of 0 to {len(driver.gpus) - 1}"
    return (warned or ["torch gives no reason"])[0], "see nvidia-smi"


def cpu() -> Iterator[Finding]:
    """The processor, the cores this process may use, and AVX2, on which the committed bits rest."""
    cpuinfo = PROC / "cpuinfo"
    avx2 = pins.has_avx2(cpuinfo)
    advice = "" if avx2 else "training works, but its bits differ from the committed results"
    yield Finding(
        "CPU",
        f"{pins.cpu_name(cpuinfo)}, {core_count()} cores, {'AVX2' if avx2 else 'no AVX2'}",
        advice,
    )


def kernels(driver: Driver) -> Iterator[Finding]:
    """Whether the CPU kernels compile, and whether Triton, for GPUs, finds Python's headers."""
    from steadyspike.kernels.cpu import build

    found, advice = "compiled", ""
    slower = "training works, but slower, and its bits differ from the committed results"
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not kernels_enabled():
        found, advice = f"{KERNELS} is off", f"{slower}; unset it"
    else:
        try:
            for bfloat16 in (False, True):
                build.library(bfloat16)
        except build.NoCompiler as error:
            found = reason(error)
            advice = f"{slower}; {error.remedy}"
    if driver.gpus and not headers.is_file():
        found += "; Triton needs Python.h, which is missing"
        advice = "on Debian and Ubuntu, install python3-dev"
    yield Finding("kernels", found, advice)


def memory() -> Iterator[Finding]:
    """Free memory, a container's limit, and the shared memory through which GPUs exchange."""
    kib = dict(re.findall(r"(?m)^(\w+): +(\d+)", (PROC / "meminfo").read_text()))
    found = f"{size(int(kib['MemAvailable']) << 10)} of {size(int(kib['MemTotal']) << 10)} free"
    if MEMORY_LIMIT.is_file() and (limit := MEMORY_LIMIT.read_text().strip()).isdecimal():
        found += f", limited to {size(int(limit))} in this container"
    yield Finding("memory", found)
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    advice = "several GPUs may need more (NCCL): --shm-size, or shm_size in Compose"
    yield Finding("shared memory", f"{size(free)} free", advice if free < GIB else "")


def disk() -> Iterator[Finding]:
    """Space and permission where runs are written and where fetched data lie."""
    for topic, folder in (("runs", Path("runs")), ("datasets", data_root())):
        place = folder.absolute()
        while not place.exists():
            place = place.parent
        if os.access(place, os.W_OK | os.X_OK):
            free = shutil.disk_usage(place).free
            advice = "make room: a run keeps weights and a checkpoint, and DVC copies of them"
            yield Finding(topic, f"{place}: {size(free)} free", advice if free < GIB else "")
        else:
            found = f"user {os.geteuid()} cannot write to {place} of user {place.stat().st_uid}"
            advice = "change its owner, run as its owner, or mount it writable"
            yield Finding(topic, found, advice, problem=topic == "runs")


def size(count: int) -> str:
    """Bytes in a readable unit."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count >> 20} MiB"
