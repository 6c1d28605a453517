"""Augmentation of event clips in batches: counts (N, T, 2, 128, 128) to floats (N, T, 2, 48, 48).

Each sample's random numbers come from (seed, epoch, index, draw) and serve all its frames. The
chain of torchvision's transforms that the released code runs on every sample only moves pixels:
crop, nearest to 128x128, bilinear to 48x48, then flips, turns and shifts. So here every output
pixel finds its place in the 48x48 picture, and from there the four counts it is a mean of. Their
weights are whole sixths, so that sums are exact and the result is the same bits on every device.

The bilinear step does not smooth (no antialiasing), as tensors fared in the torchvision 0.15 of
the paper's PyTorch 2.0; torchvision's default since 0.17 would.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from steadyspike.data.counter_rng import (
    EVENT_ANGLE,
    EVENT_COLUMN,
    EVENT_OPERATION,
    EVENT_ROW,
    FLIP,
    RESIZED_CROP,
    random_integers,
    random_reals,
    splitmix,
)
from steadyspike.data.events import SIDE
from steadyspike.data.seeds import derive_seed

SMALL = 48
AREA = (0.7, 1.0)  # of the picture's
ASPECT = (3 / 4, 4 / 3)  # width / height
ATTEMPTS, NUMBERS = 10, 4  # a part that does not fit is drawn again: area, aspect, top, left

GESTURE_DEGREES, CIFAR_DEGREES = 20.0, 30.0
SHIFT = 5  # pixels
HOLE = 16  # pixels
ROLL, ROTATE, CUT = range(3)


@dataclass(frozen=True)
class Boxes:
    """The part of each picture that is kept, in pixels, int64 (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class Places:
    """Where each output pixel lies in the 48x48 picture, int64 (N, 48, 48), and if it is shown."""

    row: Tensor
    column: Tensor
    shown: Tensor


def random_boxes(seed: int, epoch: int, indices: Tensor) -> Boxes:
    """Parts of 128x128 as torchvision's RandomResizedCrop(128, scale=(0.7, 1.0)) draws them.

    The area is uniform in 0.7..1, the logarithm of the aspect in that of 3/4..4/3, the place over
    those inside. The first of ten attempts that fits is taken, or else the whole picture.
    """
    draws = torch.arange(RESIZED_CROP, RESIZED_CROP + ATTEMPTS * NUMBERS, device=indices.device)
    numbers = random_reals(seed, epoch, indices[:, None], draws)  # (N, 40)
    area, aspect, top, left = numbers.view(-1, ATTEMPTS, NUMBERS).unbind(-1)  # (N, 10)
    pixels = SIDE * SIDE * (AREA[0] + (AREA[1] - AREA[0]) * area)
    low, high = (math.log(ratio) for ratio in ASPECT)
    ratio = torch.exp(low + (high - low) * aspect)
    width, height = (pixels * ratio).sqrt().round().long(), (pixels / ratio).sqrt().round().long()
    fits = (width <= SIDE) & (height <= SIDE)
    first = fits.int().argmax(1, keepdim=True)  # (N, 1), the first of equals

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, first).squeeze(1)

    width = torch.where(fits.any(1), chosen(width), SIDE)
    height = torch.where(fits.any(1), chosen(height), SIDE)
    return Boxes(
        top=(chosen(top) * (SIDE - height + 1)).long(),
        left=(chosen(left) * (SIDE - width + 1)).long(),
        height=height,
        width=width,
    )


def resample(frames: Tensor, boxes: Boxes, places: Places) -> Tensor:
    """Counts (N, T, C, 128, 128) to their boxes at 48x48, moved: float32 (N, T, C, 48, 48).

    Equal to crop, nearest to 128x128, bilinear to 48x48 and a choice of those pixels, 0 where one
    is not shown. Counts of up to 65,535 are summed without rounding.
    """
    if frames.shape[-2:] != (SIDE, SIDE):
        raise ValueError(f"expected frames of {SIDE}x{SIDE}, got {tuple(frames.shape)}")
    flat = frames.flatten(-2).flatten(1, -2)  # (N, T C, 128 128)
    rows = _taps(places.row, boxes.top, boxes.height)
    columns = _taps(places.column, boxes.left, boxes.width)
    total = torch.zeros(1, device=frames.device)
    for row, row_weight in rows:
        for column, column_weight in columns:
            source = (row * SIDE + column).flatten(1)[:, None]  # (N, 1, 48 48)
            weight = (row_weight * column_weight * places.shown).flatten(1)[:, None].float()
            counts = flat.gather(2, source.expand(-1, flat.shape[1], -1))
            total = torch.addcmul(total, counts.float(), weight)  # (N, T C, 48 48)
    # By a tensor: a GPU would multiply by a number's rounded inverse.
    total = total / torch.full((1,), 36.0, device=frames.device)
    return total.view(*frames.shape[:-2], SMALL, SMALL)


def _taps(place: Tensor, start: Tensor, size: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two source lines that each place (N, 48, 48) of 48 mixes, with weights in sixths.

    Pixel i of 48 is centred on (i + 1/2) 128/48 - 1/2 = (16 i + 5) / 6 of 128, between two lines;
    line k of those 128 is line start + floor(k size / 128) of the source.
    """
    line, part = (16 * place + 5) // 6, (16 * place + 5) % 6
    start, size = start[:, None, None], size[:, None, None]
    return [(start + (line + tap) * size // SIDE, part if tap else 6 - part) for tap in (0, 1)]


def _still(count: int, device: torch.device) -> Places:
    line = torch.arange(SMALL, device=device)
    row, column = (grid.expand(count, -1, -1) for grid in torch.meshgrid(line, line, indexing="ij"))
    return Places(row, column, torch.ones_like(row, dtype=torch.bool))


def rotated(degrees: Tensor) -> Places:
    """Turned counter-clockwise about the middle, float64 (N,), to the nearest pixel, 0 outside."""
    angle = torch.deg2rad(degrees)[:, None, None]
    middle = (SMALL - 1) / 2
    still = _still(len(degrees), degrees.device)
    y, x = still.row - middle, still.column - middle
    # In double precision devices differ by less than any pixel's distance to a tie, in practice.
    column = torch.floor(x * angle.cos() - y * angle.sin() + middle + 0.5).long()
    row = torch.floor(x * angle.sin() + y * angle.cos() + middle + 0.5).long()
    shown = (row >= 0) & (row < SMALL) & (column >= 0) & (column < SMALL)
    return Places(row.clamp(0, SMALL - 1), column.clamp(0, SMALL - 1), shown)


def rolled(down: Tensor, right: Tensor) -> Places:
    """Shifted by whole pixels, int64 (N,); what leaves at one side comes in at the other."""
    still = _still(len(down), down.device)
    row = (still.row - down[:, None, None]) % SMALL
    return Places(row, (still.column - right[:, None, None]) % SMALL, still.shown)


def cut(row: Tensor, column: Tensor) -> Places:
    """A hole of 16x16, the middle of which is that pixel, int64 (N,); it may reach outside."""
    still = _still(len(row), row.device)
    down, right = still.row - row[:, None, None], still.column - column[:, None, None]
    half = HOLE // 2
    hole = (down >= -half) & (down < half) & (right >= -half) & (right < half)
    return Places(still.row, still.column, ~hole)


def augment_gesture(frames: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """DVS128 Gesture, to train: a random part, turned by up to 20 degrees."""
    indices = indices.to(frames.device)
    bound = GESTURE_DEGREES
    degrees = random_reals(seed, epoch, indices, EVENT_ANGLE, -bound, bound)
    return resample(frames, random_boxes(seed, epoch, indices), rotated(degrees))


def augment_cifar10_dvs(frames: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """CIFAR10-DVS, to train: a random part, half of them mirrored, then one of three moves.

    They are a roll by up to 5 pixels each way, a turn by up to 30 degrees and a hole of 16 pixels
    (Li et al., "Neuromorphic data augmentation", ECCV 2022, as the released code has it).
    """
    indices = indices.to(frames.device)
    integers = partial(random_integers, seed, epoch, indices)
    bound = CIFAR_DEGREES
    degrees = random_reals(seed, epoch, indices, EVENT_ANGLE, -bound, bound)
    shift = [integers(draw, 2 * SHIFT + 1) - SHIFT for draw in (EVENT_ROW, EVENT_COLUMN)]
    centre = [integers(draw, SMALL) for draw in (EVENT_ROW, EVENT_COLUMN)]
    moves = {ROLL: rolled(*shift), ROTATE: rotated(degrees), CUT: cut(*centre)}
    operation = integers(EVENT_OPERATION, len(moves))[:, None, None]
    chosen = moves[ROLL]
    for number in (ROTATE, CUT):
        other, mine = moves[number], operation == number
        chosen = Places(
            torch.where(mine, other.row, chosen.row),
            torch.where(mine, other.column, chosen.column),
            torch.where(mine, other.shown, chosen.shown),
        )
    mirrored = integers(FLIP, 2).bool()[:, None, None]
    # The mirror comes before the move, so the way back passes it last.
    column = torch.where(mirrored, SMALL - 1 - chosen.column, chosen.column)
    places = Places(chosen.row, column, chosen.shown)
    return resample(frames, random_boxes(seed, epoch, indices), places)


def shrink(frames: Tensor, seed: int = 0, epoch: int = 0, indices: Tensor | None = None) -> Tensor:
    """To test, on both data sets: the whole picture, nothing random."""
    zero = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
    boxes = Boxes(zero, zero, zero + SIDE, zero + SIDE)
    return resample(frames, boxes, _still(len(frames), frames.device))


def kept_steps(seed: int, epoch: int, batch: int, steps: int = 20, keep: int = 14) -> Tensor:
    """Which of a batch's ``steps`` frames are kept, in order: int64 (keep,), on the processor.

    One choice for all samples of a batch, uniform over all, as the released code makes. Taking
    the frames before the augmentation gives the same clips as after it, and less work.
    """
    if not 0 < keep <= steps:
        raise ValueError(f"expected to keep 1 to {steps} steps, got {keep}")
    key = torch.tensor(derive_seed(seed, "kept steps", epoch, batch))
    words = splitmix(key, torch.arange(1, steps + 1))
    return words.argsort()[:keep].sort().values


# Counts (N, T, 2, 128, 128), seed, epoch and the samples' indices (N,) to (N, T, 2, 48, 48).
EVENT_AUGMENTATIONS: dict[str, Callable[[Tensor, int, int, Tensor], Tensor]] = {
    "crop_turn": augment_gesture,
    "crop_flip_move": augment_cifar10_dvs,
    "shrink": shrink,
}
