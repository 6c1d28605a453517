"""Random numbers for samples; each is a hash of what it is for: (seed, epoch, index, draw).

The hash is computed by integer operations that are exact on every device. So neither the batch
a sample falls into nor workers, ranks or history can change a number.
"""

import torch
from torch import Tensor

from steadyspike.data.seeds import derive_seed

# One number a sample for each use.
FLIP, CROP_ROW, CROP_COLUMN = range(3)
CUTOUT, CUTOUT_AREA, CUTOUT_ASPECT, CUTOUT_ROW, CUTOUT_COLUMN, CUTOUT_COLOUR = range(3, 9)
RESIZED_CROP = 64  # the first of 40
EVENT_OPERATION, EVENT_ANGLE, EVENT_ROW, EVENT_COLUMN = range(128, 132)

GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word; torch's int64 wraps as the word would."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """A logical shift; torch's own repeats the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def splitmix(states: Tensor, step: int | Tensor) -> Tensor:
    """Output ``step`` (from 1) of SplitMix64 from each state: 64-bit words in int64, any shape.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    words = states + step * torch.tensor(_signed(GAMMA), device=states.device)
    words = (words ^ _shift_right(words, 30)) * _signed(MIX_1)
    words = (words ^ _shift_right(words, 27)) * _signed(MIX_2)
    return words ^ _shift_right(words, 31)


def random_integers(
    seed: int, epoch: int, indices: Tensor, draw: int | Tensor, below: int | Tensor
) -> Tensor:
    """Uniform integers in 0..below-1, int64 (N,), one for each sample's index, where they lie.

    ``below``, one for all or one a sample (N,), may be up to 2^31; its bias is at most
    below / 2^32. Several draws (D,) for indices (N, 1) give (N, D).
    """
    key = torch.tensor(derive_seed(seed, "augmentation", epoch), device=indices.device)
    words = splitmix(splitmix(key, indices.long() + 1), draw + 1)
    return (_shift_right(words, 32) * below) >> 32


def random_reals(
    seed: int, epoch: int, indices: Tensor, draw: int | Tensor, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Uniform reals in low..high, float64 (N,), of 2^31 values, one for each sample's index.

    Double precision, since a device may fuse or approximate operations in single.
    """
    parts = random_integers(seed, epoch, indices, draw, 1 << 31).double() / (1 << 31)
    return parts * (high - low) + low
