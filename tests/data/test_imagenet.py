import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steadyspike import data
from steadyspike.data.imagenet import Expected, fetch, load
from steadyspike.data.loading import batches
from steadyspike.errors import UserError

WNIDS = ("n01440764", "n01443537", "n01484850")
SMALL = Expected(3, {"train": 9, "val": 6})


def jpeg(seed: int) -> bytes:
    colour = np.random.default_rng(seed).integers(0, 256, 3).tolist()
    out = io.BytesIO()
    Image.new("RGB", (30 + seed, 25), tuple(colour)).save(out, "JPEG")
    return out.getvalue()


def images(split: str) -> list[tuple[str, int, bytes]]:
    """Class folder, label and content of each image of a small ImageNet."""
    each = SMALL.images[split] // 3
    numbers = range(SMALL.images[split])
    return [(WNIDS[n // each], n // each, jpeg(n + 50 * (split == "val"))) for n in numbers]


def lay_folders(root: Path) -> Path:
    for split in SMALL.images:
        for n, (wnid, _, content) in enumerate(images(split)):
            path = root / "imagenet" / split / wnid / f"{wnid}_{n}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root / "imagenet"


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADYSPIKE_WORKERS", "0")


def test_samples_are_those_of_the_folders(tmp_path: Path) -> None:
    lay_folders(tmp_path)
    got = load(tmp_path, SMALL)
    assert (got.name, got.classes) == ("imagenet", WNIDS)
    assert (got.mean, got.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for split, samples in (("train", got.train), ("val", got.test)):
        expected = images(split)
        assert samples.shape == (3, 224, 224)
        order = torch.arange(len(samples))
        visits = list(batches(samples, order, 4, seed=0, epoch=0))
        found = torch.cat([labels for _, _, labels in visits])
        assert found.tolist() == samples.labels.tolist() == [label for _, label, _ in expected]
        assert found.dtype == torch.int64
        for picture, (_, _, content) in zip(
            torch.cat([pictures for _, pictures, _ in visits]), expected, strict=True
        ):
            colour = np.asarray(Image.open(io.BytesIO(content)))[0, 0]
            assert np.array_equal(picture[:, 100, 100], colour)


def test_a_renamed_image_is_noticed(tmp_path: Path) -> None:
    folder = lay_folders(tmp_path)
    path = fetch(tmp_path, SMALL)
    assert path == tmp_path / "imagenet.manifest.json"
    written = json.loads(path.read_text())
    assert written["classes"] == list(WNIDS)
    assert written["counts"] == {"train": 9, "test": 6}
    sizes = [p.stat().st_size for p in (folder / "train").rglob("*.JPEG")]
    assert written["splits"]["train"]["bytes"] == sum(sizes)
    load(tmp_path, SMALL)
    # A renamed image keeps all counts.
    image = folder / "train" / WNIDS[1] / f"{WNIDS[1]}_4.JPEG"
    image.rename(image.with_name("other.JPEG"))
    with pytest.raises(UserError, match=r"imagenet: train: not what .*manifest\.json describes"):
        load(tmp_path, SMALL)
    assert fetch(tmp_path, SMALL).read_bytes() != b""
    load(tmp_path, SMALL)


def lose_val(folder: Path) -> None:
    shutil.rmtree(folder / "val")


def lose_train_class(folder: Path) -> None:
    shutil.rmtree(folder / "train" / WNIDS[2])


def lose_val_class(folder: Path) -> None:
    shutil.rmtree(folder / "val" / WNIDS[0])


def lose_class(folder: Path) -> None:
    lose_train_class(folder)
    shutil.rmtree(folder / "val" / WNIDS[2])


def lose_image(folder: Path) -> None:
    (folder / "train" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG").unlink()


def empty_class(folder: Path) -> None:
    for path in (folder / "val" / WNIDS[1]).iterdir():
        path.unlink()


def empty_image(folder: Path) -> None:
    (folder / "val" / WNIDS[1] / f"{WNIDS[1]}_2.JPEG").write_bytes(b"")


def flatten_val(folder: Path) -> None:
    for path in (folder / "val").rglob("*.JPEG"):
        path.rename(folder / "val" / path.name)


def empty_val(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    (folder / "val").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            shutil.rmtree,
            r"imagenet: missing; ImageNet must be downloaded by hand: .*image-net\.org",
        ),
        (lose_val, r"imagenet/val: missing"),
        (lose_train_class, rf"train/{WNIDS[2]}: missing; expected the same class folders"),
        (lose_val_class, rf"val/{WNIDS[0]}: missing; expected the same class folders"),
        (lose_class, r"imagenet/train: expected 3 class folders, found 2"),
        (lose_image, r"imagenet: train: expected 9 images, found 8"),
        (empty_class, rf"val: cannot be read: Found no valid file for the classes {WNIDS[1]}"),
        (empty_image, rf"val/{WNIDS[1]}/{WNIDS[1]}_2\.JPEG: empty"),
        (flatten_val, rf"val: cannot be read: Found no valid file for .*{WNIDS[0]}"),
        (empty_val, r"val: cannot be read: Couldn't find any class folder .*/val/<class>/<image>"),
    ],
)
def test_what_is_wrong_is_named(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(lay_folders(tmp_path))
    for use in (load, fetch):
        with pytest.raises(UserError, match=message) as caught:
            use(tmp_path, SMALL)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "imagenet.manifest.json").exists()


def test_a_damaged_image_is_named_when_it_is_reached(tmp_path: Path) -> None:
    folder = lay_folders(tmp_path)
    broken = folder / "val" / WNIDS[1] / f"{WNIDS[1]}_3.JPEG"
    broken.write_bytes(broken.read_bytes()[:-40])
    got = load(tmp_path, SMALL)
    visits = batches(got.test, torch.arange(6), 3)
    next(visits)
    with pytest.raises(UserError, match=rf"{WNIDS[1]}_3\.JPEG: expected a whole JPEG"):
        next(visits)


def test_the_real_counts_are_expected_by_default(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1000 classes, 1281167 and 50000 images"):
        data.fetch("imagenet", tmp_path)
    with pytest.raises(UserError, match="missing; ImageNet must be downloaded"):
        data.load("imagenet", tmp_path)
    lay_folders(tmp_path)
    with pytest.raises(UserError, match="expected 1000 class folders, found 3"):
        data.load("imagenet", tmp_path)
