"""The square root, in bits that no processor decides."""

from torch import Tensor


def stable_sqrt(x: Tensor) -> Tensor:
    """√x of each value, 0 of 0.

    torch.sqrt is MKL's on a CPU: it is not rounded correctly, and rounds otherwise on processors
    without AVX-512, whatever instruction set is asked for. These two are torch's own.
    """
    return x.rsqrt().reciprocal()
