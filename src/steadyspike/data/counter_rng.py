"""Counter-based random numbers: each is a hash of (seed, epoch, sample index, draw).

The hash uses integer operations that are exact on every device. So neither the batch that holds a
sample nor workers, ranks or earlier draws can change a number.
"""

import hashlib

import torch
from torch import Tensor

# One draw for each use. A resized crop takes 40.
FLIP, CROP_ROW, CROP_COLUMN = range(3)
CUTOUT, CUTOUT_AREA, CUTOUT_ASPECT, CUTOUT_ROW, CUTOUT_COLUMN, CUTOUT_COLOUR = range(3, 9)
RESIZED_CROP = 64
EVENT_OPERATION, EVENT_ANGLE, EVENT_ROW, EVENT_COLUMN = range(128, 132)

GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as ``derive_seed(seed, "order", epoch)``.

    It is the SHA-256 of the words, so it does not depend on which seeds were derived before, nor
    on the number of workers or ranks.
    """
    words = "\0".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word; torch's int64 wraps as the word would."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """A logical shift; torch's own repeats the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def splitmix(states: int | Tensor, steps: int | Tensor) -> Tensor:
    """Output ``steps`` (from 1) of SplitMix64 for each state: 64-bit words in int64, any shape.

    At least one of the two is a tensor. Numbers stay numbers: a tensor made of one would be copied
    to the device, which waits for it.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    added = _signed(steps * GAMMA) if isinstance(steps, int) else steps * _signed(GAMMA)
    words = torch.as_tensor(states + added)
    words = (words ^ _shift_right(words, 30)) * _signed(MIX_1)
    words = (words ^ _shift_right(words, 27)) * _signed(MIX_2)
    return words ^ _shift_right(words, 31)


def random_integers(
    seed: int, epoch: int, indices: Tensor, draw: int | Tensor, below: int | Tensor
) -> Tensor:
    """Uniform integers in 0..below-1 for sample indices (N,): int64 (N,) on the same device.

    ``below``, one for all or one a sample (N,), may be up to 2^31; its bias is at most
    below / 2^32. Several draws (D,) for indices (N, 1) give (N, D).
    """
    key = derive_seed(seed, "augmentation", epoch)
    words = splitmix(splitmix(key, indices.long() + 1), draw + 1)
    return (_shift_right(words, 32) * below) >> 32


def random_reals(
    seed: int, epoch: int, indices: Tensor, draw: int | Tensor, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Uniform reals in low..high for sample indices (N,): float64 (N,), one of 2^31 values.

    Double precision, since a device may fuse or approximate operations in single precision.
    """
    parts = random_integers(seed, epoch, indices, draw, 1 << 31).double() / (1 << 31)
    return parts * (high - low) + low
