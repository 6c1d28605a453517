"""CIFAR as class folders of PNG, beside the archive's form of the same images."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steadyspike.data.cifar import CIFAR10, CIFAR100, Cifar, Content, fetch, load
from steadyspike.data.dataset import Split
from steadyspike.data.images import read_images
from steadyspike.errors import UserError
from tiny import one_line

from .test_cifar import COUNT, lay, table

CLASSES = ("ant", "bee", "cow", "dog")
EACH = {"train": 3, "test": 2}


def lay_folders(root: Path) -> Cifar:
    """Class folders below ``root`` of few random images, and the data set that expects them."""
    random, content = np.random.default_rng(0), {}
    for split, each in EACH.items():
        images = random.integers(0, 256, (each * len(CLASSES), 3, 32, 32), dtype=np.uint8)
        labels = np.arange(len(CLASSES)).repeat(each)
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            write(root / "cifar10" / split / CLASSES[label] / f"{place}.png", image)
        whole = Split(torch.from_numpy(images), torch.from_numpy(labels)).in_content_order()
        content[split] = Content(each, whole.digest)
    return replace(CIFAR10, classes=CLASSES, splits=content)


def write(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path)


@pytest.fixture
def kind(tmp_path: Path) -> Cifar:
    return lay_folders(tmp_path)


def test_names_do_not_matter_and_the_manifest_names_the_form(kind: Cifar, tmp_path: Path) -> None:
    first = load(kind, tmp_path)
    assert first.classes == CLASSES
    assert (len(first.train), len(first.test)) == (12, 8)
    manifest = fetch(kind, tmp_path)
    written = json.loads(manifest.read_text())
    assert written == {
        "name": "cifar10",
        "form": "class folders",
        "counts": {"train": 12, "test": 8},
        "images_sha256": {split: content.digest for split, content in kind.splits.items()},
        "files": {},
    }
    folder = tmp_path / "cifar10" / "train" / "cow"
    for place, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{9 - place} renamed.png")
    for name in (".DS_Store", "._x.png", "Thumbs.db"):
        (folder / name).write_bytes(b"left by a file manager")
    (tmp_path / "cifar10" / "README.md").write_text("cloned")
    again = load(kind, tmp_path)
    assert again.sha256() == first.sha256()
    assert json.loads(fetch(kind, tmp_path).read_text()) == written


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100], ids=lambda kind: kind.name)
def test_the_archive_gives_the_same_samples(
    kind: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lay(kind, tmp_path / "a" / kind.name / kind.reader.base_folder)
    for name, value in made.items():
        monkeypatch.setattr(kind.reader, name, value)
    archived = load(kind, tmp_path / "a")
    # The same images as folders. Random labels: the classes are not of equal size.
    key = "labels" if kind is CIFAR10 else "fine_labels"
    for split, files in (("train", kind.reader.train_list), ("test", kind.reader.test_list)):
        for name, _ in files:
            content = table(kind, name)
            for place, (label, row) in enumerate(zip(content[key], content["data"], strict=True)):
                folder = tmp_path / "b" / split / kind.classes[label]
                write(folder / f"{name}_{place}.png", row.reshape(3, 32, 32))
    for split, samples in (("train", archived.train), ("test", archived.test)):
        paths = sorted((tmp_path / "b" / split).rglob("*.png"))
        images = read_images(paths, (3, 32, 32), lambda path: Image.open(path))
        labels = [kind.classes.index(path.parent.name) for path in paths]
        found = Split(torch.from_numpy(images), torch.tensor(labels)).in_content_order()
        assert found.digest == samples.digest
        assert len(found) == COUNT * len(files if split == "test" else kind.reader.train_list)


def test_complete_archive_files_go_first(
    kind: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lay(CIFAR10, tmp_path / "cifar10" / CIFAR10.reader.base_folder)
    for name, value in made.items():
        monkeypatch.setattr(CIFAR10.reader, name, value)
    assert len(load(kind, tmp_path).test) == COUNT
    (tmp_path / "cifar10" / CIFAR10.reader.base_folder / "test_batch").unlink()
    assert len(load(kind, tmp_path).test) == 8


def test_the_classes_are_in_alphabetical_order() -> None:
    for real, count in ((CIFAR10, 10), (CIFAR100, 100)):
        assert len(real.classes) == count
        assert list(real.classes) == sorted(set(real.classes))


def copy_one(folder: Path) -> None:
    shutil.copy(folder / "train/bee/4.png", folder / "train/bee/copy.png")


def repeat_one(folder: Path) -> None:
    shutil.copy(folder / "train/bee/4.png", folder / "train/bee/5.png")


def swap(folder: Path) -> None:
    (folder / "test/ant/0.png").rename(folder / "x")
    (folder / "test/dog/6.png").rename(folder / "test/ant/0.png")
    (folder / "x").rename(folder / "test/dog/6.png")


def one_pixel(folder: Path) -> None:
    path = folder / "test/ant/1.png"
    image = Image.open(path)
    image.putpixel((3, 3), (1, 2, 3))
    image.save(path)


def resized(folder: Path) -> None:
    path = folder / "test/ant/1.png"
    Image.open(path).resize((64, 32)).save(path)


def as_jpeg(folder: Path) -> None:
    path = folder / "test/ant/1.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f / "test"), "/test: missing; put class folders of PNG at "),
        (lambda f: shutil.rmtree(f / "train/cow"), "/train/cow: missing; expected folders ant, "),
        (lambda f: (f / "test/cow").rename(f / "test/kuh"), "/test/cow: missing"),
        (
            lambda f: shutil.copytree(f / "test/cow", f / "test/kuh"),
            "/test/kuh: no class of cifar10; expected folders ant, bee, cow, dog",
        ),
        (lambda f: (f / "train/dog/9.png").unlink(), "/train/dog: expected 3 images, found 2"),
        (lambda f: (f / "train/dog/notes.txt").touch(), "/train/dog/notes.txt: expected only im"),
        (copy_one, "/train/bee: expected 3 images, found 4; the same image twice: "),
        (copy_one, "bee/4.png and "),
        (repeat_one, "/train: not the published images; "),
        (repeat_one, "the same image twice: "),
        (repeat_one, "bee/5.png"),
        (swap, "/test: not the published images; expected their SHA-256 in content order "),
        (one_pixel, "/test: not the published images; "),
        (resized, "/test/ant/1.png: expected 32x32 pixels, found 64x32"),
        (as_jpeg, "/test/ant/1.jpg: expected PNG, which keeps the published pixels"),
        (lambda f: (f / "test/ant/1.png").write_text("x"), "/test/ant/1.png: expected a whole"),
        (lambda f: (f / "test/ant/1.png").write_bytes(b""), "/test/ant/1.png: expected a whole"),
    ],
)
def test_what_differs_is_named(
    damage: Callable[[Path], object], words: str, kind: Cifar, tmp_path: Path
) -> None:
    damage(tmp_path / "cifar10")
    for use in (load, fetch):
        with pytest.raises(UserError) as caught:
            use(kind, tmp_path)
        one_line(caught.value, words)
        assert str(caught.value).startswith(f"{tmp_path}/cifar10/")
    assert not (tmp_path / "cifar10.manifest.json").exists()


def test_images_that_are_published_twice_are_not_blamed(kind: Cifar, tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    repeat_one(folder)  # 4.png as 5.png
    swap(folder)
    pixels = np.asarray(Image.open(folder / "train/bee/4.png")).transpose(2, 0, 1)
    short = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:8]
    twice = replace(kind.splits["train"], twice=f"00000000 {short}")
    known = replace(kind, splits={**kind.splits, "train": twice})
    with pytest.raises(UserError) as caught:
        load(known, tmp_path)
    assert "twice" not in one_line(caught.value, "/train: not the published images")
    shutil.copy(folder / "train/ant/0.png", folder / "train/dog/9.png")
    with pytest.raises(UserError) as caught:
        load(known, tmp_path)
    words = f"the same image twice: {folder}/train/ant/0.png and {folder}/train/dog/9.png"
    assert str(caught.value).endswith(words)


def test_where_to_put_them_is_said_where_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"put class folders of PNG at {tmp_path}/cifar10/{{train,test}}/<class>/*.png"
    with pytest.raises(
        UserError, match="missing; get it with `steadyspike fetch cifar10`, or"
    ) as e:
        load(CIFAR10, tmp_path)
    one_line(e.value, place)
    monkeypatch.setattr(CIFAR10.reader, "url", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(UserError, match="no connection") as e:
        fetch(CIFAR10, tmp_path)
    one_line(e.value, place)
