"""Compiles every kernel for an H100 without one, and prints of each what is bad about it.

A line a kernel: its name, bytes of registers spilled to memory, fused multiply-adds, and accesses
to memory narrower than 16 bytes a thread where each value of a layer passes through.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from steadyspike.kernels import cuda

SHAPE = (2, 128, 64, 32, 32)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Hopper:
    """Takes the place of a driver: only told what to compile for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main() -> None:
    driver.set_active(Hopper())
    launch = JITFunction.run
    kernels: dict[str, Any] = {}

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        kernels[kernel.hash] = (self.__name__, kernel)

    JITFunction.run = compile_only
    for dtype in (torch.float32, torch.bfloat16):
        call_all(dtype)
    for name, kernel in kernels.values():
        ptx = kernel.asm["ptx"]
        print(name, spilled(kernel.asm["cubin"]), ptx.count("fma.rn.f32"), narrow(name, ptx))


def call_all(dtype: torch.dtype) -> None:
    x = torch.empty(SHAPE, dtype=dtype).movedim(2, -1).contiguous().movedim(-1, 2)
    u = torch.empty_like(x, dtype=torch.float32)
    vector, theta = torch.ones(SHAPE[0], SHAPE[2]), torch.ones(SHAPE[0])
    cuda.moments(x)
    for before, statistics, spikes in ((None, True, None), (u[0], True, None), (u[0], False, x[1])):
        cuda.charge(
            x[1], vector[1], vector[1], before, theta[0], leak=0.5, zero_reset=False, out=u[1],
            statistics=statistics, spikes=spikes, fire_at=None if spikes is None else 1.0,
        )  # fmt: skip
    cuda.fire(u[0], theta[0], x[0])
    cuda.grad_sums(x, u, theta, 4.0, x, vector, vector)
    cuda.grad_input(x, u, theta, 4.0, x, *[vector] * 5)
    cuda.unpack(cuda.pack(x, 1), 1, dtype)


def spilled(cubin: bytes) -> int:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    stack, local = re.search(r"STACK:(\d+).* LOCAL:(\d+)", usage).groups()  # type: ignore
    return int(stack) + int(local)


def narrow(name: str, ptx: str) -> int:
    """Accesses in blocks (``@%p``, masked) that are not 16 bytes wide."""
    if "combine" in name:
        return 0
    kinds = re.findall(r"@%p\d+ (ld|st)\.global(\S*)", ptx)
    return len([kind for _, kind in kinds if ".v4.b32" not in kind])


if __name__ == "__main__":
    main()
