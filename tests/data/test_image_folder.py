"""Folders of the user's own images: what is read of them, and what is refused by name."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steadyspike import data
from steadyspike.data import image_folder
from steadyspike.data.image_folder import fetch, load, moments
from steadyspike.errors import UserError
from tiny import one_line

SIZE = 8
RANDOM = np.random.default_rng(0)
NAMES = {
    "train": ("ant/1.png", "ant/2.png", "bee/1.png", "bee/2.jpeg", "bee/3.PNG"),
    "test": ("ant/1.png", "bee/9.png"),
}


def write(path: Path, height: int = SIZE, width: int = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for split, names in NAMES.items():
        for name in names:
            write(folder / split / name)
    return folder


def test_images_and_labels_are_those_of_the_files(folder: Path) -> None:
    got = load(None, path=str(folder), size=SIZE)
    assert (got.name, got.classes) == ("image_folder", ("ant", "bee"))
    for split, samples in (("train", got.train), ("test", got.test)):
        expected = sorted(
            (name.split("/")[0], np.asarray(Image.open(folder / split / name)).tobytes())
            for name in NAMES[split]
        )
        (_, images, labels), *_ = samples.gather([torch.arange(len(samples))], None, None)
        assert images.shape == (len(expected), 3, SIZE, SIZE)
        pixels = [image.tobytes() for image in images.permute(0, 2, 3, 1).contiguous().numpy()]
        assert expected == sorted(zip([got.classes[n] for n in labels], pixels, strict=True))


def test_mean_and_deviation_are_those_of_the_training_images(folder: Path) -> None:
    got = load(None, path=str(folder), size=SIZE)
    pixels = np.stack([np.asarray(Image.open(folder / "train" / n)) for n in NAMES["train"]]) / 255
    assert got.mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-6)
    assert got.std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-6)
    # A channel that does not vary is left as it is.
    assert moments(np.full((3, 1, 2, 2), 51, np.uint8)) == ((0.2,), (1.0,))


def test_file_names_do_not_matter(folder: Path) -> None:
    first = load(None, path=str(folder), size=SIZE)
    manifest = fetch(None, path=str(folder)).read_bytes()
    (folder / "train/bee/1.png").rename(folder / "train/bee/zebra.png")
    (folder / "train/bee/.DS_Store").touch()
    moved = folder.rename(folder.with_name("moved"))
    assert load(None, path=str(moved), size=SIZE).sha256() == first.sha256()
    assert fetch(None, path=str(moved)).read_bytes() == manifest


def test_the_largest_central_square_is_resized(folder: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the central square
    tall = wide.swapaxes(0, 1)
    for place, pixels in enumerate((wide, tall)):
        path = folder / f"test/bee/{place}.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        small = np.asarray(data.read_image("image_folder", path, (3, 4, 4)))
        assert (small[1:-1, 1:-1] == 200).all()
        assert small.min() > 150  # the filter reaches a little beyond the square
    # Each pixel of a reduced image is the mean of those that it replaces, up to the filter's width.
    ramp = np.arange(64, dtype=np.uint8)[None, :].repeat(64, 0) * 4
    Image.fromarray(ramp).save(path)
    small = np.asarray(data.read_image("image_folder", path, (1, 8, 8))).astype(int)
    expected = ramp.reshape(64, 8, 8).mean((0, 2))
    assert np.abs(small - expected)[:, 1:-1].max() <= 1


def test_photographs_are_reduced_while_they_are_decoded(folder: Path) -> None:
    coarse = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = Image.fromarray(coarse).resize((512, 512))
    whole.save(folder / "photo.png")
    whole.save(folder / "photo.jpg", quality=95)
    exact, reduced = (
        np.asarray(data.read_image("image_folder", folder / f"photo.{form}", (3, 16, 16)))
        for form in ("png", "jpg")
    )
    assert np.abs(exact.astype(int) - reduced).max() <= 12


def test_grey_images(folder: Path) -> None:
    got = load(None, path=str(folder), size=SIZE, channels=1)
    assert got.train.shape == (1, SIZE, SIZE)
    assert len(got.mean) == len(got.std) == 1
    # A grey file for a network that sees colour has three equal channels.
    Image.open(folder / "train/ant/1.png").convert("L").save(folder / "grey.png")
    pixels = np.asarray(data.read_image("image_folder", folder / "grey.png", (3, SIZE, SIZE)))
    assert (pixels == pixels[:, :, :1]).all()


def test_a_class_may_lack_test_images(folder: Path) -> None:
    shutil.rmtree(folder / "test/ant")
    got = load(None, path=str(folder), size=SIZE)
    assert got.classes == ("ant", "bee")
    assert got.test.labels.tolist() == [1]


def test_the_manifest(folder: Path) -> None:
    path = fetch(None, path=str(folder))
    assert path == folder.parent / "mine.manifest.json"
    lines = sorted(
        f"{name[:3]} {hashlib.sha256((folder / 'train' / name).read_bytes()).hexdigest()}\n"
        for name in NAMES["train"]
    )
    written = json.loads(path.read_text())
    assert written["files_sha256"]["train"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert written["classes"] == ["ant", "bee"]
    assert written["counts"] == {"train": 5, "test": 2}


def truncate(path: Path) -> None:
    write(path, 64, 64)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, ": no such folder (dataset.path); expected images at "),
        (
            lambda f: (f / "test").rename(f / "val"),
            "/test: missing; expected train and test, found train, val",
        ),
        (
            lambda f: [shutil.rmtree(f / "test"), *(write(f / f"{n}.png") for n in range(9))],
            "/test: missing; expected train and test, found 0.png, 1.png, 2.png, 3.png, 4.png,"
            " 5.png and 4 more",
        ),
        (lambda f: write(f / "test/cow/1.png"), "/test/cow: expected a class that train has too"),
        (lambda f: (f / "train/cow").mkdir(), "/train/cow: empty; expected images"),
        (lambda f: shutil.rmtree(f / "train/bee"), "/train: expected folders of at least two"),
        (lambda f: truncate(f / "test/bee/9.png"), "/test/bee/9.png: expected a whole JPEG or PNG"),
        (lambda f: truncate(f / "train/bee/2.jpeg"), "/train/bee/2.jpeg: expected a whole JPEG or"),
        (
            lambda f: (f / "train/ant/1.png").write_text("text"),
            "/train/ant/1.png: expected a whole",
        ),
        (lambda f: (f / "train/ant/1.png").write_bytes(b""), "/train/ant/1.png: expected a whole"),
        (lambda f: (f / "train/ant/x.gif").write_bytes(b""), "/train/ant/x.gif: expected only ima"),
        (lambda f: write(f / "train/a\nb/1.png"), "/train: 'a\\nb': expected a class of printable"),
    ],
)
def test_what_cannot_be_read_is_named(
    damage: Callable[[Path], object], words: str, folder: Path
) -> None:
    damage(folder)
    for use in (
        lambda: load(None, path=str(folder), size=SIZE),
        lambda: fetch(None, path=str(folder)),
    ):
        with pytest.raises(UserError) as caught:
            use()
        assert one_line(caught.value).startswith(f"{folder}{words}")
    assert not (folder.parent / "mine.manifest.json").exists()


def test_more_images_than_fit_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "_memory", lambda: 2 * 7 * 3 * SIZE**2)
    load(None, path=str(folder), size=SIZE)
    with pytest.raises(UserError, match=r"mine: 7 images of 9x9 \(dataset\.size\) need 0\.0 GiB"):
        load(None, path=str(folder), size=9)
