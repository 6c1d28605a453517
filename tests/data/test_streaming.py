from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from steadyspike.data.augmentation import random_boxes
from steadyspike.data.loading import batches, epoch_order
from steadyspike.data.streaming import (
    ImageFiles,
    StreamedSplit,
    central_crop,
    random_resized_crop,
)
from steadyspike.errors import UserError

from .formats import photograph

COUNT = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for n in range(COUNT):
        (folder / f"{n}.JPEG").write_bytes(photograph(n))
    return folder


@pytest.fixture
def split(folder: Path) -> StreamedSplit:
    names = np.array([f"{n}.JPEG".encode() for n in range(COUNT)])
    return StreamedSplit(ImageFiles(folder, names), torch.arange(COUNT) % 3, "random", workers=0)


def visit(split: StreamedSplit, batch: int = 4, epoch: int = 1) -> list[torch.Tensor]:
    """Indices, images and labels of an epoch, joined."""
    order = epoch_order(0, epoch, len(split))
    parts = list(batches(split, order, batch, seed=5, epoch=epoch))
    assert [len(indices) for indices, _, _ in parts[:-1]] == [batch] * (len(parts) - 1)
    return [torch.cat(kind) for kind in zip(*parts, strict=True)]


def test_batches_have_the_form_of_those_in_memory(split: StreamedSplit) -> None:
    indices, images, labels = visit(split)
    assert torch.equal(indices, epoch_order(0, 1, COUNT))
    assert (images.shape, images.dtype) == ((COUNT, 3, 224, 224), torch.uint8)
    assert tuple(images.shape[1:]) == split.shape
    assert images[:4].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(labels, split.labels[indices])
    assert list(batches(split, torch.arange(0), 4, seed=0, epoch=0)) == []


@pytest.mark.parametrize(("workers", "batch"), [(1, 4), (3, 11)])
def test_neither_workers_nor_batches_change_an_image(
    split: StreamedSplit, workers: int, batch: int
) -> None:
    state = torch.get_rng_state()
    for here, there in zip(
        visit(split), visit(replace(split, workers=workers), batch), strict=True
    ):
        assert torch.equal(here, there)
    assert torch.equal(torch.get_rng_state(), state)  # untouched


def test_images_are_the_loop_over_files(split: StreamedSplit, folder: Path) -> None:
    for index, image, _ in zip(*visit(split), strict=True):
        whole = Image.open(folder / f"{index}.JPEG")
        expected = np.asarray(random_resized_crop(whole, 5, 1, int(index)))
        assert np.array_equal(image.permute(1, 2, 0), expected)
    _, images, _ = visit(replace(split, crop="centre"))
    for index, image in zip(epoch_order(0, 1, COUNT).tolist(), images, strict=True):
        expected = np.asarray(central_crop(Image.open(folder / f"{index}.JPEG")))
        assert np.array_equal(image.permute(1, 2, 0), expected)


def noise(size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(size)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (97, 301), (257, 255)])
def test_crops_are_torchvisions(size: tuple[int, int]) -> None:
    image = noise(size)
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image)
    assert np.array_equal(central_crop(image), theirs)
    for index in range(5):
        (box,) = random_boxes(*size, 0.08, 0, 0, torch.tensor([index])).tolist()
        theirs = functional.resized_crop(image, *box, [224, 224])
        assert np.array_equal(random_resized_crop(image, 0, 0, index), theirs)


def test_another_epoch_crops_differently(split: StreamedSplit) -> None:
    part = [torch.arange(COUNT)]
    (_, first, _), (_, second, _) = (next(split.gather(part, 5, epoch)) for epoch in (1, 2))
    assert (first != second).flatten(1).any(1).all()


def test_random_crops_need_seed_and_epoch(split: StreamedSplit) -> None:
    with pytest.raises(ValueError, match="needs the seed and the epoch"):
        batches(split, torch.arange(4), 2)
    assert list(batches(replace(split, crop="centre"), torch.arange(4), 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_in_one_line(
    split: StreamedSplit, tmp_path: Path, workers: int
) -> None:
    for n in range(COUNT):
        raw = photograph(n)
        (tmp_path / f"{n}.JPEG").write_bytes(raw if n != 7 else raw[: len(raw) // 2])
    names = np.array([f"{n}.JPEG".encode() for n in range(COUNT)])
    broken = replace(split, images=ImageFiles(tmp_path, names), workers=workers)
    with pytest.raises(UserError, match=r"/7\.JPEG: expected a whole JPEG or PNG") as caught:
        visit(broken)
    assert "\n" not in str(caught.value)
    (tmp_path / "7.JPEG").unlink()
    with pytest.raises(UserError, match=r"/7\.JPEG: .*No such file"):
        visit(broken)
