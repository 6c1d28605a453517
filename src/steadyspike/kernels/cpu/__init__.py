"""The fused kernels for CPU tensors, in C: the functions of the other backends."""

from steadyspike.kernels.cpu.operations import (
    charge,
    fire,
    grad_input,
    grad_sums,
    moments,
    pack,
    unpack,
)

__all__ = ["charge", "fire", "grad_input", "grad_sums", "moments", "pack", "unpack"]
