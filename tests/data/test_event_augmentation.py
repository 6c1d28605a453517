import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from steadyspike.data.augmentation import random_boxes
from steadyspike.data.clips import MEAN, STD
from steadyspike.data.counter_rng import (
    EVENT_ANGLE,
    EVENT_COLUMN,
    EVENT_OPERATION,
    EVENT_ROW,
    FLIP,
    random_integers,
    random_reals,
)
from steadyspike.data.event_augmentation import (
    EVENT_AUGMENTATIONS,
    SMALL,
    kept_steps,
    shrink,
)
from steadyspike.data.loading import to_frames

GENERATOR = torch.Generator().manual_seed(0)
FRAMES = torch.randint(0, 256, (24, 3, 2, 128, 128), generator=GENERATOR, dtype=torch.uint8)
INDICES = torch.randperm(10_000, generator=GENERATOR)[:24]
SEED, EPOCH = 5, 7


def small_part(n: int) -> Tensor:
    """Sample n cropped and brought to 48x48 by torchvision: float64 (T, 2, 48, 48).

    Its weights in single precision are off by 1e-5, which would hide smaller errors of ours.
    """
    box = random_boxes(128, 128, 0.7, SEED, EPOCH, INDICES)[n].tolist()
    part = reference.resized_crop(
        FRAMES[n].double(), *box, [128, 128], interpolation=InterpolationMode.NEAREST
    )
    return reference.resize(part, [SMALL, SMALL], antialias=False)


def clear_of_ties(degrees: float) -> Tensor:
    """Pixels whose source is not so close to a border that single precision decides."""
    angle = math.radians(degrees)
    line = torch.arange(SMALL, dtype=torch.float64) - (SMALL - 1) / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    places = (
        x * math.cos(angle) - y * math.sin(angle),
        x * math.sin(angle) + y * math.cos(angle),
    )
    # Borders are at whole numbers here, since the centre lies between two pixels.
    clear = [(place - place.round()).abs() > 1e-4 for place in places]
    return clear[0] & clear[1]


def turned(picture: Tensor, degrees: float) -> Tensor:
    return reference.rotate(picture, degrees, interpolation=InterpolationMode.NEAREST, fill=0.0)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-7, atol=1e-9)


def test_gesture_clips_are_torchvisions() -> None:
    ours = EVENT_AUGMENTATIONS["crop_turn"](FRAMES, SEED, EPOCH, INDICES)
    assert ours.shape == (24, 3, 2, SMALL, SMALL)
    assert ours.dtype == torch.float32
    degrees = random_reals(SEED, EPOCH, INDICES, EVENT_ANGLE, -20, 20).tolist()
    for n in range(24):
        clear = clear_of_ties(degrees[n])
        assert clear.double().mean() > 0.99
        close(ours[n][..., clear], turned(small_part(n), degrees[n])[..., clear])


def test_cifar10_dvs_clips_are_torchvisions() -> None:
    ours = EVENT_AUGMENTATIONS["crop_flip_move"](FRAMES, SEED, EPOCH, INDICES)

    def draw(number: int, below: int) -> list[int]:
        drawn: list[int] = random_integers(SEED, EPOCH, INDICES, number, below).tolist()
        return drawn

    flip, move = draw(FLIP, 2), draw(EVENT_OPERATION, 3)
    down, right = draw(EVENT_ROW, 11), draw(EVENT_COLUMN, 11)
    row, column = draw(EVENT_ROW, 48), draw(EVENT_COLUMN, 48)
    degrees = random_reals(SEED, EPOCH, INDICES, EVENT_ANGLE, -30, 30).tolist()
    for n in range(24):
        theirs, clear = small_part(n), torch.ones(SMALL, SMALL, dtype=torch.bool)
        if flip[n]:
            theirs = reference.hflip(theirs)
        if move[n] == 0:
            theirs = torch.roll(theirs, (down[n] - 5, right[n] - 5), (2, 3))
        elif move[n] == 1:
            theirs, clear = turned(theirs, degrees[n]), clear_of_ties(degrees[n])
        else:
            hole = [slice(max(place - 8, 0), place + 8) for place in (row[n], column[n])]
            theirs[:, :, hole[0], hole[1]] = 0
        close(ours[n][..., clear], theirs[..., clear])
    assert len(set(zip(flip, move, strict=True))) == 6


def test_the_test_clips_are_torchvisions() -> None:
    theirs = reference.resize(FRAMES.double().flatten(0, 1), [SMALL, SMALL], antialias=False)
    close(shrink(FRAMES), theirs.view(24, 3, 2, SMALL, SMALL))


def test_sums_are_exact_for_the_highest_counts() -> None:
    counts = torch.full((1, 1, 2, 128, 128), 65_535, dtype=torch.int32)
    assert (shrink(counts) == 65_535).all()
    counts[..., ::2, :] = 65_534
    # Weights of 1/6, 3/6 and 5/6 between two lines, rounded once.
    sixths = torch.tensor([65_534 * 6 + part for part in range(7)], dtype=torch.float32) / 6
    assert torch.isin(shrink(counts), sixths).all()


def test_kept_steps_are_uniform_and_ascending() -> None:
    assert kept_steps(0, 0, 0).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 14, 15, 16, 18, 19]
    counts = torch.zeros(20)
    choices = set()
    for batch in range(600):
        kept = kept_steps(1, 2, batch)
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert len(kept) == 14
        counts[kept] += 1
        choices.add(tuple(kept.tolist()))
    assert len(choices) > 590
    assert ((counts - 420).abs() < 5 * math.sqrt(600 * 0.7 * 0.3)).all()
    assert not torch.equal(kept_steps(1, 2, 0), kept_steps(1, 3, 0))
    assert torch.equal(kept_steps(1, 2, 3, 10, 10), torch.arange(10))
    with pytest.raises(ValueError, match="expected to keep 1 to 20 steps, got 21"):
        kept_steps(0, 0, 0, 20, 21)


def test_the_data_sets_mean_and_deviation_leave_counts_alone() -> None:
    clips = shrink(FRAMES)
    torch.testing.assert_close(to_frames(clips, MEAN, STD), clips)
