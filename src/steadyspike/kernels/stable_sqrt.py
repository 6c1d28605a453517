"""A square root that rounds alike on every processor."""

from torch import Tensor


def stable_sqrt(x: Tensor) -> Tensor:
    """√x of each value, 0 of 0.

    On a CPU torch.sqrt calls MKL, which rounds differently on processors without AVX-512, whatever
    instruction set is pinned. rsqrt and reciprocal are torch's own.
    """
    return x.rsqrt().reciprocal()
