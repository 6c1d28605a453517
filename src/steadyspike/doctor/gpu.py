"""The driver and the GPUs as NVML tells them; without NVML, why there is none. Needs no torch."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steadyspike.doctor.finding import Finding, State, first_line, size

PROC, SYS, ROOT = Path("/proc"), Path("/sys"), Path("/")

NONE = "no GPU found: training runs on the CPU"
IN_CONTAINER = "to use one in the container: COMPOSE_FILE=compose.yaml:docker/gpu.yaml"
IN_POD = "to use one in the pod: resources.limits nvidia.com/gpu, see docker/kubernetes.yaml"


@dataclass(frozen=True)
class Gpu:
    """A GPU; free and total memory in bytes, None where the driver does not tell."""

    name: str
    free: int | None
    total: int | None
    usable: bool = True

    def __str__(self) -> str:
        if not self.usable:
            return self.name
        if self.free is None or self.total is None:
            return f"{self.name}, its memory unknown"
        return f"{self.name}, {size(self.free)} of {size(self.total)} free"


@dataclass(frozen=True)
class Driver:
    """What NVML says. ``cuda`` is the newest CUDA that the driver runs, as (major, minor)."""

    version: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    #: Why NVML could not be asked; empty where it was.
    silent: str = ""

    @property
    def newest_cuda(self) -> str:
        return ".".join(map(str, self.cuda or ("?",)))


def ask_driver() -> Driver:
    """Every GPU that this process may see, whatever CUDA_VISIBLE_DEVICES says. Raises nothing."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError as error:
        return Driver(silent=f"nvidia-ml-py cannot be imported: {first_line(error)}")
    try:
        pynvml.nvmlInit()
    except Exception as error:  # NVMLError, or an OSError of a broken library
        return Driver(silent=first_line(error))
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return Driver(
            _text(pynvml.nvmlSystemGetDriverVersion()),
            (cuda // 1000, cuda % 1000 // 10),
            tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())),
        )
    except Exception as error:
        return Driver(silent=first_line(error))
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int) -> Gpu:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(pynvml.nvmlDeviceGetName(handle))
    except Exception as error:  # one that has fallen off the bus must not hide the others
        return Gpu(f"not usable ({first_line(error)})", None, None, usable=False)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except Exception:  # where CPU and GPU share it
        return Gpu(name, None, None)
    return Gpu(name, int(memory.free), int(memory.total))


def _text(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told


def driver_findings(driver: Driver) -> list[Finding]:
    """The driver, and one finding a GPU."""
    facts = {"version": driver.version or None, "cuda": driver.cuda}
    if not driver.gpus:
        found, advice = why_none(driver)
        return [Finding("driver", "note", found, advice, facts)]
    found = f"{driver.version}, for CUDA up to {driver.newest_cuda}"
    findings = [Finding("driver", "ok", found, facts=facts)]
    for index, gpu in enumerate(driver.gpus):
        state: State = "ok" if gpu.usable else "note"
        findings.append(Finding(f"GPU {index}", state, str(gpu), facts=asdict(gpu)))
    return findings


def why_none(driver: Driver) -> tuple[str, str]:
    """What to say, and to advise, where NVML shows no GPU."""
    if in_container():
        advice = IN_POD if "KUBERNETES_SERVICE_HOST" in os.environ else IN_CONTAINER
    else:
        advice = IN_CONTAINER
    kernel = _kernel_driver()
    if driver.version:
        return f"{NONE} (driver {driver.version} is there, with no GPU)", advice
    if kernel and in_container():
        return f"{NONE} (the host has driver {kernel}; this container was given no GPU)", advice
    if kernel:
        return (
            f"{NONE} (driver {kernel} is loaded, but does not answer: {driver.silent})",
            "install the driver's libraries of the same version, or restart after its update",
        )
    if _on_the_bus():
        return (
            f"{NONE} (this machine has an NVIDIA GPU, but no driver is loaded)",
            "install NVIDIA's driver on the host" + (f"; {advice}" if in_container() else ""),
        )
    return NONE, advice


def in_container() -> bool:
    """Whether this is a container of Docker, Podman or Kubernetes."""
    marks = (ROOT / ".dockerenv", ROOT / "run/.containerenv")
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(mark.exists() for mark in marks)


def _kernel_driver() -> str:
    """The version of the kernel's NVIDIA module, which containers see too; empty without."""
    try:
        words = (PROC / "driver/nvidia/version").read_text().split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and "." in word), "of NVIDIA")


def _on_the_bus() -> bool:
    nvidia, display = "0x10de", "0x03"
    for device in (SYS / "bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / name).read_text() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor.strip() == nvidia and kind.startswith(display):
            return True
    return False
