"""NVML of a machine with the GPUs that a test names."""

from types import SimpleNamespace
from typing import Any

GIB = 1 << 30


class NVMLError(Exception):
    pass


class FakeNvml:
    """pynvml of a machine with these GPUs: (name, free, total); an exception is raised instead."""

    NVMLError = NVMLError

    def __init__(self, gpus: list[Any], init: Exception | None = None) -> None:
        self.gpus, self.init, self.open = gpus, init, 0

    def nvmlInit(self) -> None:
        if self.init:
            raise self.init
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "610.43"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13020

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        if isinstance(self.gpus[index], Exception):
            raise self.gpus[index]
        return self.gpus[index]

    def nvmlDeviceGetName(self, handle: Any) -> bytes:
        return handle[0].encode()

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        if handle[1] is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(free=handle[1], total=handle[2])
