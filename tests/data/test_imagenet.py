import hashlib
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
from steadyspike.data.loading import batches, epoch_order
from steadyspike.errors import UserError

from .formats import photograph, tar_of

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


def pack(folder: Path) -> Path:
    """Packs the image folders into two shards a split, in the same order."""
    shards = folder / "shards"
    shards.mkdir()
    for split in SMALL.images:
        files = sorted((folder / split).glob("*/*"))
        for number, part in enumerate((files[:5], files[5:])):
            members = {}
            for path in part:
                members[f"{path.stem}.jpg"] = path.read_bytes()
                members[f"{path.stem}.cls"] = str(WNIDS.index(path.parent.name)).encode()
            (shards / f"{split}-{number:06d}.tar").write_bytes(tar_of(members))
    return shards


def lay_shards(root: Path) -> Path:
    folder = lay_folders(root)
    shards = pack(folder)
    for split in SMALL.images:
        shutil.rmtree(folder / split)
    return shards


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


def test_shards_give_the_batches_of_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_folders(tmp_path)
    for n, path in enumerate(sorted(folder.rglob("*.JPEG"))):
        path.write_bytes(photograph(n))

    def visit() -> list[tuple[torch.Tensor, ...]]:
        got = load(tmp_path, SMALL)
        train = batches(got.train, epoch_order(0, 1, 9), 4, seed=3, epoch=1)
        return [*train, *batches(got.test, torch.arange(6), 4)]

    expected = visit()
    pack(folder)
    assert load(tmp_path, SMALL).classes == WNIDS  # of the folders, which go first
    for split in SMALL.images:
        shutil.rmtree(folder / split)
    assert load(tmp_path, SMALL).classes == ("0", "1", "2")
    monkeypatch.setenv("STEADYSPIKE_WORKERS", "2")
    for ours, theirs in zip(visit(), expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_another_shard_and_a_label_without_images_are_noticed(tmp_path: Path) -> None:
    shards = lay_shards(tmp_path)
    written = json.loads(fetch(tmp_path, SMALL).read_text())
    assert written["classes"] == ["0", "1", "2"]
    sizes = [path.stat().st_size for path in sorted(shards.glob("train-*.tar"))]
    facts = written["splits"]["train"]
    assert (facts["images"], facts["bytes"]) == (9, sum(sizes))
    names = b"".join(b"train-00000%d.tar\t%d\0" % (n, size) for n, size in enumerate(sizes))
    assert facts["names_and_sizes_sha256"] == hashlib.sha256(names).hexdigest()
    with (shards / "val-000001.tar").open("ab") as file:
        file.write(bytes(10240))
    with pytest.raises(UserError, match="imagenet: val: not what"):
        load(tmp_path, SMALL)
    with pytest.raises(UserError, match="shards: train: no image of the label 3; expected every"):
        load(tmp_path, Expected(4, SMALL.images))


def test_a_damaged_image_in_a_shard_is_named(tmp_path: Path) -> None:
    path = lay_shards(tmp_path) / "val-000001.tar"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(images("val")[5][2][:8], bytes(8)))
    got = load(tmp_path, SMALL)
    with pytest.raises(UserError, match=r"val-000001\.tar: n01484850_5\.jpg: expected a whole"):
        list(batches(got.test, torch.arange(6), 3))


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

    for path in (folder / "val").iterdir():
        if path.is_dir():
            path.rmdir()


def tar_classes(folder: Path) -> None:
    """As the archive of the training images unpacks."""
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    for wnid in WNIDS:
        (folder / "train" / f"{wnid}.tar").touch()


def keep_archives(folder: Path) -> None:
    for split in SMALL.images:
        shutil.rmtree(folder / split)
        (folder / f"ILSVRC2012_img_{split}.tar").touch()


def rename_val(folder: Path) -> None:
    (folder / "val").rename(folder / "validation")


def rename_both(folder: Path) -> None:
    (folder / "train").rename(folder / "training")
    (folder / "val").rename(folder / "test")


def move_up(folder: Path) -> None:
    for split in SMALL.images:
        (folder / split).rename(folder.parent / split)
    folder.rmdir()


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
        (flatten_val, r"val: expected .*found 6 images without class folders; .*valprep\.sh"),
        (tar_classes, r"train: expected .*found 3 archives of classes; .*for t in \*\.tar"),
        (keep_archives, r"train: missing; .*ILSVRC2012_img_train\.tar is not unpacked: mkdir"),
        (empty_val, r"val: expected .*/val/<class>/<image>.*; unpack ILSVRC2012_img_val\.tar"),
        (rename_val, r"imagenet/val: missing; .*found train, validation; .*ln -s NAME"),
        (rename_both, r"expected the folders train and val, or shards, found test, training;"),
        (move_up, r"imagenet: missing; found \S+/train: move what is in"),
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
        assert "run `steadyspike fetch imagenet`" not in str(caught.value).split("then ")[0]
    assert not (tmp_path / "imagenet.manifest.json").exists()


def test_stray_files_of_operating_systems_are_no_images(tmp_path: Path) -> None:
    folder = lay_folders(tmp_path)
    before = fetch(tmp_path, SMALL).read_bytes()
    for path in list(folder.rglob("*.JPEG")):
        path.with_name(f"._{path.name}").write_bytes(bytes(120))
    for name in (".DS_Store", "train/.DS_Store", f"val/{WNIDS[0]}/Thumbs.db"):
        (folder / name).touch()
    (folder / "train/__MACOSX").mkdir()
    assert fetch(tmp_path, SMALL).read_bytes() == before


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
