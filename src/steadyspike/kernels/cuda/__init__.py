"""The fused kernels for CUDA tensors, in Triton: the functions of the other backends.

Results, before they are rounded to a tensor's type, are within 1e-5 of the reference's in float64,
relative to the largest value, and not the bits of a CPU. The same call gives the same bits every
time on one model of GPU: no atomic adds, no autotuning. Nothing synchronizes with the host or
branches on a tensor's values, so that everything can be captured in a CUDA graph after a first run,
which compiles it.
"""

from steadyspike.kernels.cuda.backward import grad_input, grad_sums
from steadyspike.kernels.cuda.bytes import pack, unpack
from steadyspike.kernels.cuda.forward import charge, fire, membrane_type
from steadyspike.kernels.cuda.moments import moments
from steadyspike.kernels.cuda.norm import norm_backward, norm_fold, norm_forward, norm_inference
from steadyspike.kernels.cuda.pooling import pool, unpool

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
