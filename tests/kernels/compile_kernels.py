"""Compiles every Triton kernel for a GPU architecture, without a GPU; run as a program.

Usage: python compile_kernels.py CAPABILITY, such as 90 for an H100.

Prints a line for each compiled kernel: its name, the bytes of registers spilled to memory, the
fused multiply-adds, and the accesses narrower than 16 bytes, but for those of kernels on channels.
"""

import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from steadyspike.kernels import cuda
from steadyspike.kernels.norm import StepMoments
from steadyspike.kernels.stabilizer import Stabilizer

#: Layers of the paper's networks: (K, N, C, H, W) of convolutions, (K, N, C) of hidden layers.
SHAPES = [(2, 128, 64, 32, 32), (1, 32, 512, 4, 4), (2, 16, 1024)]
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Target:
    """Stands in for a GPU's driver: it only says what to compile for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main(capability: int) -> None:
    driver.set_active(Target(capability))
    launch = JITFunction.run
    kernels: dict[str, Any] = {}

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        kernels[kernel.hash] = (self.__name__, kernel)

    JITFunction.run = compile_only
    for shape, dtype in itertools.product(SHAPES, (torch.float32, torch.bfloat16)):
        call_all(shape, dtype)
    for name, kernel in kernels.values():
        ptx = kernel.asm["ptx"]
        print(name, spilled(kernel.asm["cubin"]), ptx.count("fma.rn.f32"), narrow(name, ptx))


def call_all(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Every kernel with every combination of arguments that the pipelines use."""
    x = torch.empty(shape, dtype=dtype)
    x = x.movedim(2, -1).contiguous().movedim(-1, 2) if x.dim() == 5 else x
    u = torch.empty_like(x, dtype=cuda.membrane_type(dtype))
    vector, theta = torch.ones(shape[0], shape[2]), torch.ones(shape[0])
    before, out = torch.empty_like(u[0]), torch.empty_like(u[0])
    cuda.moments(x)
    first: list[Tensor | None] = [None, before]
    norms: list[Tensor | None] = [None, vector[0]]
    whole = {"statistics": True}  # of several processes
    for last, norm, zero_reset in itertools.product(first, norms, (False, True)):
        stabilizer = Stabilizer(1.0, torch.empty(2), last is None, theta[0])
        spikes = torch.empty_like(x[0])
        fixed = {"spikes": spikes, "fire_at": 1.0}
        live = {"stabilizer": stabilizer}
        for then in (live, {**live, "last_spikes": spikes}, whole, fixed):
            cuda.charge(
                x[0], norm, norm, last, theta[0], leak=0.5, zero_reset=zero_reset, out=out, **then
            )
    cuda.fire(u[0], theta[0], x[0])
    for membranes, thresholds in ((u, theta), (None, None)):
        cuda.grad_sums(x, membranes, thresholds, 4.0, x, vector, vector)
        for currents in (x, x[:1]):
            cuda.grad_input(x, membranes, thresholds, 4.0, currents, *[vector] * 5)
    cuda.grad_input(x, u, theta, 4.0, *[None] * 6)
    cuda.unpack(cuda.pack(x, 1), 1, dtype)
    call_norms(vector)
    if x.dim() == 5:
        flat = x.flatten(0, 1)
        cuda.unpool(cuda.pool(flat), flat.shape)


def call_norms(vector: Tensor) -> None:
    """A norm's arithmetic on the channels of ``vector`` (K, C)."""
    moments, one = StepMoments.empty(vector, len(vector)), vector[0]
    for offset, limit in itertools.product([None, one], [None, 20.0]):
        scales = cuda.norm_forward(
            vector, vector, (one, one), (one, one), offset, eps=1e-4, limit=limit, moments=moments
        )
        cuda.norm_inference((one, one), (one, one), offset, eps=1e-4, steps=len(vector))
    wholes: list[Any] = [None, (vector, vector)]
    for whole, count in itertools.product(wholes, [None, 7]):
        cuda.norm_backward(vector, vector, whole, scales, count)
    counts: list[Any] = [None, torch.zeros((), dtype=torch.int64)]
    weights: list[Any] = [0.1, torch.tensor(0.1)]
    for fallbacks, between, weight in itertools.product(counts, [False, True], weights):
        cuda.norm_fold(
            moments, (one, one), weight=weight, between=between, unbias=1.0, fallbacks=fallbacks
        )


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
    if "combine" in name or "norm" in name:  # of few values
        return 0
    accesses = re.findall(r"@%p\d+ (?:ld|st)\.global.*|cp\.async\.c[ag]\..*", ptx)
    return len([each for each in accesses if ".v4.b32" not in each and " 0x10," not in each])


if __name__ == "__main__":
    main(int(sys.argv[1]))
