"""Augmentation of event clips in batches: counts (N, T, 2, 128, 128) to floats (N, T, 2, 48, 48).

Each sample's random numbers come from (seed, epoch, index, draw) and serve all its frames. The
released code runs a chain of torchvision's transforms on every sample, which only move pixels:
crop, nearest to 128x128, bilinear to 48x48, then flip, rotate or shift. Here the chain is traced
backwards: each output pixel is looked up in the 48x48 image, and each pixel of that is a weighted
mean of four counts. The weights are whole sixths, so sums are exact and every device gives the
same bits.

The bilinear step has no antialiasing, as for tensors in torchvision 0.15, which the paper's
PyTorch 2.0 came with; since 0.17 antialiasing is torchvision's default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from steadyspike.data.augmentation import Augmentation, draw_nothing, random_boxes
from steadyspike.data.counter_rng import (
    EVENT_ANGLE,
    EVENT_COLUMN,
    EVENT_OPERATION,
    EVENT_ROW,
    FLIP,
    derive_seed,
    random_integers,
    random_reals,
    splitmix,
)
from steadyspike.data.events import SIDE

SMALL = 48
MIN_AREA = 0.7  # of the frame's that a random crop keeps

GESTURE_DEGREES, CIFAR_DEGREES = 20.0, 30.0
SHIFT = 5  # pixels
HOLE = 16  # pixels
MOVES = 3
ROLL, ROTATE, CUT = range(MOVES)


@dataclass(frozen=True)
class Places:
    """For each output pixel its row and column in the 48x48 image, all (N, 48, 48).

    Pixels whose ``shown`` is False become 0.
    """

    row: Tensor
    column: Tensor
    shown: Tensor


def resample(frames: Tensor, boxes: Tensor, places: Places) -> Tensor:
    """Crops counts (N, T, C, 128, 128), resizes and moves them: float32 (N, T, C, 48, 48).

    ``boxes`` (N, 4) hold top, left, height and width. Equal to crop, nearest to 128x128, bilinear
    to 48x48, and then the pixels that ``places`` names. Counts of up to 65,535 are summed without
    rounding. Raises ValueError for frames of another size.
    """
    if frames.shape[-2:] != (SIDE, SIDE):
        raise ValueError(f"expected frames of {SIDE}x{SIDE}, got {tuple(frames.shape)}")
    flat = frames.flatten(-2).flatten(1, -2)  # (N, T C, 128 128)
    top, left, height, width = boxes.unbind(1)
    rows = _taps(places.row, top, height)
    columns = _taps(places.column, left, width)
    total = torch.zeros(1, device=frames.device)
    for row, row_weight in rows:
        for column, column_weight in columns:
            source = (row * SIDE + column).flatten(1)[:, None]  # (N, 1, 48 48)
            weight = (row_weight * column_weight * places.shown).flatten(1)[:, None].float()
            counts = flat.gather(2, source.expand(-1, flat.shape[1], -1))
            total = torch.addcmul(total, counts.float(), weight)  # (N, T C, 48 48)
    # Divided by a tensor: by a Python number a GPU would multiply with its rounded inverse.
    total = total / torch.full((1,), 36.0, device=frames.device)
    return total.view(*frames.shape[:-2], SMALL, SMALL)


def _taps(place: Tensor, start: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For rows or columns (N, 48, 48) of 48: the two of the source to mix, and weights in sixths.

    Pixel i of 48 is centred on (i + 1/2) 128/48 - 1/2 = (16 i + 5) / 6 of 128, between two lines;
    line k of those 128 is line start + floor(k size / 128) of the source.
    """
    line, part = (16 * place + 5) // 6, (16 * place + 5) % 6
    start, size = start[:, None, None], size[:, None, None]
    return [(start + (line + tap) * size // SIDE, part if tap else 6 - part) for tap in (0, 1)]


def _unmoved(count: int, device: torch.device) -> Places:
    line = torch.arange(SMALL, device=device)
    row, column = (grid.expand(count, -1, -1) for grid in torch.meshgrid(line, line, indexing="ij"))
    return Places(row, column, torch.ones_like(row, dtype=torch.bool))


def rotated(degrees: Tensor) -> Places:
    """Rotation about the centre, counter-clockwise, by degrees float64 (N,), nearest pixel."""
    angle = torch.deg2rad(degrees)[:, None, None]
    middle = (SMALL - 1) / 2
    unmoved = _unmoved(len(degrees), degrees.device)
    y, x = unmoved.row - middle, unmoved.column - middle
    # Devices differ in the last bits of sine and cosine. No position seen so far was so close to
    # the border of two pixels that this chose another one.
    column = torch.floor(x * angle.cos() - y * angle.sin() + middle + 0.5).long()
    row = torch.floor(x * angle.sin() + y * angle.cos() + middle + 0.5).long()
    shown = (row >= 0) & (row < SMALL) & (column >= 0) & (column < SMALL)
    return Places(row.clamp(0, SMALL - 1), column.clamp(0, SMALL - 1), shown)


def rolled(down: Tensor, right: Tensor) -> Places:
    """Shift by whole pixels, int64 (N,), wrapping around."""
    unmoved = _unmoved(len(down), down.device)
    row = (unmoved.row - down[:, None, None]) % SMALL
    return Places(row, (unmoved.column - right[:, None, None]) % SMALL, unmoved.shown)


def cut(row: Tensor, column: Tensor) -> Places:
    """A hole of 16x16 centred on a pixel, int64 (N,); it may reach beyond the border."""
    unmoved = _unmoved(len(row), row.device)
    down, right = unmoved.row - row[:, None, None], unmoved.column - column[:, None, None]
    half = HOLE // 2
    hole = (down >= -half) & (down < half) & (right >= -half) & (right < half)
    return Places(unmoved.row, unmoved.column, ~hole)


def _draw_gesture(seed: int, epoch: int, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, 5): a box of the frame, and degrees of a rotation."""
    bound = GESTURE_DEGREES
    degrees = random_reals(seed, epoch, indices, EVENT_ANGLE, -bound, bound)
    boxes = random_boxes(SIDE, SIDE, MIN_AREA, seed, epoch, indices)
    return torch.cat([boxes, degrees[:, None]], 1)


def _augment_gesture(frames: Tensor, choices: Tensor) -> Tensor:
    """Training on DVS128 Gesture: a random crop, rotated by up to 20 degrees."""
    return resample(frames, choices[:, :4].long(), rotated(choices[:, 4]))


def _draw_cifar10_dvs(seed: int, epoch: int, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, 11): a box, degrees, a shift, the centre of a hole, which of the three, and a mirror."""
    integers = partial(random_integers, seed, epoch, indices)
    bound = CIFAR_DEGREES
    degrees = random_reals(seed, epoch, indices, EVENT_ANGLE, -bound, bound)
    shift = [integers(draw, 2 * SHIFT + 1) - SHIFT for draw in (EVENT_ROW, EVENT_COLUMN)]
    centre = [integers(draw, SMALL) for draw in (EVENT_ROW, EVENT_COLUMN)]
    move, mirrored = integers(EVENT_OPERATION, MOVES), integers(FLIP, 2)
    boxes = random_boxes(SIDE, SIDE, MIN_AREA, seed, epoch, indices)
    others = torch.stack([degrees, *shift, *centre, move, mirrored], 1)
    return torch.cat([boxes, others], 1)


def _augment_cifar10_dvs(frames: Tensor, choices: Tensor) -> Tensor:
    """Training on CIFAR10-DVS: a random crop, half of them mirrored, then one of three moves.

    The moves are a roll by up to 5 pixels each way, a rotation by up to 30 degrees and a hole of
    16x16 pixels (Li et al., "Neuromorphic data augmentation", ECCV 2022, as in the released code).
    """
    whole = choices.long()
    down, right, row, column = whole[:, 5:9].unbind(1)
    move, mirrored = (whole[:, n, None, None] for n in (9, 10))
    chosen = rolled(down, right)
    for number, other in ((ROTATE, rotated(choices[:, 4])), (CUT, cut(row, column))):
        mine = move == number
        chosen = Places(
            torch.where(mine, other.row, chosen.row),
            torch.where(mine, other.column, chosen.column),
            torch.where(mine, other.shown, chosen.shown),
        )
    # The mirror comes before the move, so traced backwards it comes last.
    turned = (mirrored * (SMALL - 1) - chosen.column).abs()
    return resample(frames, whole[:, :4], Places(chosen.row, turned, chosen.shown))


def shrink(frames: Tensor) -> Tensor:
    """Testing on both data sets: the whole frame resized, nothing random."""
    whole = torch.zeros(len(frames), 4, dtype=torch.int64, device=frames.device)
    whole[:, 2:] = SIDE
    return resample(frames, whole, _unmoved(len(frames), frames.device))


def kept_steps(seed: int, epoch: int, batch: int, steps: int = 20, keep: int = 14) -> Tensor:
    """Chooses which of ``steps`` frames a batch keeps: ascending indices, int64 (keep,), CPU.

    One uniform choice for all samples of a batch, as in the released code. Dropping frames before
    the augmentation gives the same clips as after it, for less work.
    """
    if not 0 < keep <= steps:
        raise ValueError(f"expected to keep 1 to {steps} steps, got {keep}")
    key = derive_seed(seed, "kept steps", epoch, batch)
    words = splitmix(key, torch.arange(1, steps + 1))
    return words.argsort()[:keep].sort().values


# Counts (N, T, 2, 128, 128) to (N, T, 2, 48, 48); choices are float64.
EVENT_AUGMENTATIONS = {
    "crop_turn": Augmentation(_draw_gesture, _augment_gesture),
    "crop_flip_move": Augmentation(_draw_cifar10_dvs, _augment_cifar10_dvs),
    "shrink": Augmentation(draw_nothing, lambda frames, _: shrink(frames)),
}
