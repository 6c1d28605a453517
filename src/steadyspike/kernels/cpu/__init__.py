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
from steadyspike.kernels.norm import norm_backward, norm_fold, norm_forward, norm_inference
from steadyspike.kernels.reference import membrane_type, pool, unpool

__all__ = [
    "charge",
    "fire",
    "grad_input",
    "grad_sums",
    "membrane_type",
    "moments",
    "norm_backward",
    "norm_fold",
    "norm_forward",
    "norm_inference",
    "pack",
    "pool",
    "unpack",
    "unpool",
]
