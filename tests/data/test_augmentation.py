import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import transforms as torchvisions

from no_waiting import NoReading
from steadyspike.data.augmentation import (
    AUGMENTATIONS,
    CROP_ASPECTS,
    paint,
    random_boxes,
    random_rectangles,
)
from steadyspike.data.counter_rng import (
    CROP_COLUMN,
    CROP_ROW,
    CUTOUT,
    CUTOUT_AREA,
    CUTOUT_ASPECT,
    CUTOUT_COLOUR,
    CUTOUT_COLUMN,
    CUTOUT_ROW,
    FLIP,
    RESIZED_CROP,
    random_integers,
    random_reals,
)
from steadyspike.data.event_augmentation import EVENT_AUGMENTATIONS

GENERATOR = torch.Generator().manual_seed(0)
PHOTOS = torch.randint(0, 256, (300, 3, 32, 32), generator=GENERATOR).to(torch.uint8)
CLIPS = torch.randint(0, 256, (24, 3, 2, 128, 128), generator=GENERATOR).to(torch.uint8)
INDICES = torch.randperm(50_000, generator=GENERATOR)[:300]
SEED, EPOCH = 5, 17
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ALL = AUGMENTATIONS | EVENT_AUGMENTATIONS
every = pytest.mark.parametrize("name", sorted(ALL))


def samples(name: str) -> Tensor:
    """24 images (N, 3, 9, 7), or clips of events (N, 3, 2, 128, 128)."""
    return CLIPS if name in EVENT_AUGMENTATIONS else PHOTOS[:24, :, :9, :7]


@every
@given(cuts=st.lists(st.integers(0, 24), max_size=4))
@settings(max_examples=8)
def test_no_split_into_batches_changes_a_sample(name: str, cuts: list[int]) -> None:
    given, indices = samples(name), INDICES[:24]
    before = given.clone()
    whole = ALL[name](given, 0, 1, indices)
    edges = [0, *sorted(cuts), 24]
    parts = [ALL[name](given[a:b], 0, 1, indices[a:b]) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(len(cuts)))
    assert torch.equal(ALL[name](given[order], 0, 1, indices[order]), whole[order])
    assert torch.equal(given, before)


@every
def test_all_steps_of_a_clip_move_alike(name: str) -> None:
    events = name in EVENT_AUGMENTATIONS
    clips = CLIPS[:10] if events else PHOTOS[:40].view(10, 4, 3, 32, 32)  # (N, T, C, H, W)
    whole = ALL[name](clips, 0, 0, INDICES[:10])
    for step in range(clips.shape[1]):
        alone = clips[:, [step]] if events else clips[:, step]
        assert torch.equal(
            ALL[name](alone, 0, 0, INDICES[:10]).view_as(whole[:, step]), whole[:, step]
        )


@every
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_gives_the_same_bits(name: str, device: str) -> None:
    got = ALL[name](samples(name).to(device), 0, 1, INDICES[:24])
    assert got.device.type == device
    assert torch.equal(got.cpu(), ALL[name](samples(name), 0, 1, INDICES[:24]))


@every
def test_applying_waits_for_nothing_and_launches_little(name: str) -> None:
    given, augmentation = samples(name), ALL[name]
    choices = augmentation.draw(0, 1, INDICES[:24], given.shape[1:])
    with NoReading() as count:
        augmentation.apply(given, choices)
    assert count.launches <= (130 if name in EVENT_AUGMENTATIONS else 24)


def rectangle(index: Tensor) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the cutout of one image, computed in Python's floats."""

    def real(draw: int) -> float:
        return float(random_reals(SEED, EPOCH, index, draw))

    if not int(random_integers(SEED, EPOCH, index, CUTOUT, 2)):
        return None
    area = (0.02 + 0.38 * real(CUTOUT_AREA)) * 32 * 32
    aspect = 0.4 + 2.1 * real(CUTOUT_ASPECT)
    wide, tall = int(math.sqrt(area / aspect)), int(math.sqrt(area * aspect))
    left = int(random_integers(SEED, EPOCH, index, CUTOUT_COLUMN, 33 - wide))
    top = int(random_integers(SEED, EPOCH, index, CUTOUT_ROW, 33 - tall))
    return left, top, left + wide, top + tall


def augment_one(name: str, image: Tensor, index: Tensor) -> Tensor:
    """One image by Pillow, step by step as in the released code."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if "crop" in name:
        down, right = (
            int(random_integers(SEED, EPOCH, index, d, 9)) for d in (CROP_ROW, CROP_COLUMN)
        )
        padded = Image.new("RGB", (40, 40))
        padded.paste(picture, (4, 4))
        picture = padded.crop((right, down, right + 32, down + 32))
    box = rectangle(index)
    if "cutout" in name and box is not None:
        picture.paste(int(random_integers(SEED, EPOCH, index, CUTOUT_COLOUR, 256)), box)
    if "flip" in name and int(random_integers(SEED, EPOCH, index, FLIP, 2)):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmentation_is_exactly_the_loop_over_pillow_images(name: str) -> None:
    got = AUGMENTATIONS[name](PHOTOS, SEED, EPOCH, INDICES)
    assert got.dtype == torch.uint8
    for n, index in enumerate(INDICES):
        assert torch.equal(got[n], augment_one(name, PHOTOS[n], index)), n


def test_rectangles_have_the_sizes_and_frequency_of_the_original() -> None:
    grey = torch.full((1,), 9, dtype=torch.uint8).expand(20_000, 3, 32, 32)
    rectangles = random_rectangles(32, 32, 0, 0, torch.arange(20_000))
    painted = (paint(grey, rectangles) != 9).any(1)  # (N, H, W)
    tall = painted.any(2).sum(1)
    wide = painted.any(1).sum(1)
    assert torch.equal(painted.sum((1, 2)), tall * wide)  # one rectangle, nothing else
    hit = tall > 0
    assert hit.double().mean() == pytest.approx(0.5, abs=0.015)
    area = (tall * wide)[hit].double() / 1024
    assert area.max() <= 0.4
    # The mean of a uniform area is 0.21; rounding down costs about one pixel a side.
    assert 0.17 < area.mean() < 0.21
    for side in (tall, wide):
        assert int(math.sqrt(0.02 * 1024 / 2.5)) <= side[hit].min()
        assert 28 <= side[hit].max() <= 32
    middle = painted[hit].double().mean(0)
    assert torch.allclose(middle, middle.flip(0), atol=0.03)
    assert torch.allclose(middle, middle.flip(1), atol=0.03)


class ScriptedTorch:
    """Stands in for the ``torch`` that torchvision draws from: returns given numbers."""

    def __init__(self, attempts: list[list[float]]) -> None:
        self.attempts = iter(attempts)
        self.rest: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def empty(self, _: int) -> "ScriptedTorch":
        return self

    def uniform_(self, low: float, high: float) -> Tensor:
        # Area and aspect of an attempt; the next two are its place, asked for only if it fits.
        if len(self.rest) in (0, 2):
            self.rest = list(next(self.attempts))
        return self.tensor([float(low) + (float(high) - float(low)) * self.rest.pop(0)])

    def randint(self, low: int, high: int, size: tuple[int]) -> Tensor:
        return torch.tensor([int(self.rest.pop(0) * high)])


@pytest.mark.parametrize("min_area", [0.08, 0.7])
@pytest.mark.parametrize(
    "size",
    [(500, 375), (375, 500), (224, 224), (128, 128), (60, 3000), (2999, 61), (97, 301), (3, 2)],
)
def test_boxes_are_torchvisions_for_the_same_numbers(
    size: tuple[int, int], min_area: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = torch.arange(200)
    draws = torch.arange(RESIZED_CROP, RESIZED_CROP + 40)
    numbers = random_reals(3, 4, indices[:, None], draws).view(-1, 10, 4).tolist()
    theirs = []
    for attempts in numbers:
        monkeypatch.setattr(torchvisions, "torch", ScriptedTorch(attempts))
        image = Image.new("RGB", size)
        theirs.append(RandomResizedCrop.get_params(image, [min_area, 1.0], list(CROP_ASPECTS)))
    ours = random_boxes(*size, min_area, 3, 4, indices)
    assert [tuple(box) for box in ours.tolist()] == theirs
    assert size != (500, 375) or len(set(theirs)) > 150


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 99))
def test_a_box_lies_inside_its_image(width: int, height: int, seed: int) -> None:
    top, left, tall, wide = random_boxes(width, height, 0.08, seed, 0, torch.arange(20)).unbind(1)
    assert ((top >= 0) & (tall > 0) & (top + tall <= height)).all()
    assert ((left >= 0) & (wide > 0) & (left + wide <= width)).all()


def test_the_boxes_never_change() -> None:
    boxes = random_boxes(128, 128, 0.7, 0, 0, torch.tensor([0, 1, 59_999]))
    assert boxes.tolist() == [[0, 1, 121, 102], [20, 0, 105, 121], [6, 4, 119, 109]]


def test_areas_and_aspects_are_uniform() -> None:
    boxes = random_boxes(10_000, 10_000, 0.08, 3, 4, torch.arange(4000))
    tall, wide = boxes[:, 2], boxes[:, 3]
    areas, aspects = tall * wide / 1e8, (wide / tall).log()
    # Crops that do not fit are drawn again, so only small areas keep their share.
    assert areas[areas < 0.5].mean() == pytest.approx(0.29, abs=0.01)
    assert aspects.mean() == pytest.approx(0, abs=0.01)
    assert 0.0799 < areas.min() < 0.085
    assert math.log(3 / 4) - 1e-3 < aspects.min() < -0.28
