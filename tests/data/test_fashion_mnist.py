import contextlib
import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from hypothesis.extra.numpy import arrays as random_arrays
from numpy.typing import NDArray
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from steadyspike import data
from steadyspike.data.fashion_mnist import (
    compress,
    encode_idx,
    fetch_full,
    read_full,
    read_idx,
    write_idx,
)
from steadyspike.data.manifest import FileSum, bytes_sum, file_sum
from steadyspike.errors import UserError
from tiny import REPOSITORY, change_json, python, write_data

from .conftest import Site

Arrays = dict[str, NDArray[np.uint8]]
IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def embed(root: Path) -> Arrays:
    """A small embedded set with its manifest; returns its four arrays."""
    write_data(root, 40, 20)
    return {path.stem: read_idx(path) for path in (root / "data").glob("*.gz")}


def test_embedded_gives_images_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = embed(tmp_path)
    loaded = data.load("embedded", tmp_path)
    assert (loaded.name, loaded.num_classes) == ("embedded", 10)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.train.labels.dtype == torch.int64
    assert len(loaded.test) == 20
    assert np.array_equal(loaded.train.images[:, 0], arrays[IMAGES])
    assert np.array_equal(loaded.train.labels, arrays[LABELS])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEADYSPIKE_DATA", "elsewhere")
    assert len(data.load("embedded").train) == 40
    assert data.fetch("embedded") == Path("data/manifest.json")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("", shutil.rmtree, "data: no such folder"),
        (f"{LABELS}.gz", Path.unlink, f"{LABELS}.gz: missing"),
        (f"{IMAGES}.gz", truncate, f"{IMAGES}.gz: truncated"),
        (f"{IMAGES}.gz", alter, f"{IMAGES}.gz: altered"),
    ],
)
def test_a_damaged_embedded_set_is_refused_with_the_remedy(
    tmp_path: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    embed(tmp_path)
    damage(tmp_path / "data" / name)
    for use in (data.load, data.fetch):
        with pytest.raises(UserError, match=rf"{message}.*`dvc pull data\.dvc"):
            use("embedded", tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (IMAGES, lambda a: a[:, :27], "train: expected images of 28x28"),
        (IMAGES, lambda a: a[:39], "train: expected 39 labels"),
        (IMAGES, lambda a: a.ravel(), "train: expected images of 28x28"),
        (LABELS, lambda a: a[:, None], "train: expected 40 labels"),
        (LABELS, lambda a: a + 1, "train: expected labels of 0 to 9, found 10"),
    ],
)
def test_other_shapes_and_labels_are_refused(
    tmp_path: Path,
    name: str,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    message: str,
) -> None:
    path = tmp_path / "data" / f"{name}.gz"
    write_idx(path, np.ascontiguousarray(change(embed(tmp_path)[name])))
    known = asdict(file_sum(path))
    change_json(path.parent / "manifest.json", lambda it: it["files"].update({path.name: known}))
    with pytest.raises(UserError, match=message):
        data.load("embedded", tmp_path)


def test_a_missing_full_set_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEADYSPIKE_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"'mnist'; expected one of .*embedded, fashion_mnist"):
        data.load("mnist")
    folder, command = tmp_path / "fashion_mnist", "get it with `steadyspike fetch fashion_mnist`"
    with pytest.raises(UserError, match=f"^{folder}: no such folder; {command}"):
        data.load("fashion_mnist")
    folder.mkdir()
    with pytest.raises(UserError, match=f"raw/{IMAGES}.gz: missing; {command}"):
        data.load("fashion_mnist")


def sums(arrays: Arrays) -> dict[str, FileSum]:
    return {name: bytes_sum(encode_idx(array)) for name, array in arrays.items()}


@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_layout_is_read_and_checked(tmp_path: Path, layout: str, packed: bool) -> None:
    arrays = embed(tmp_path / "embedded")
    place = tmp_path / layout
    place.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if packed:  # in another gzip header than write_idx's
            (place / f"{name}.gz").write_bytes(gzip.compress(encode_idx(array), 1))
        else:
            (place / name).write_bytes(encode_idx(array))
    read = read_full(tmp_path, sums(arrays))
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    with pytest.raises(UserError, match=r"truncated.*steadyspike fetch fashion_mnist"):
        read_full(tmp_path)  # well-formed, but not the original


def test_fetch_downloads_what_is_missing(
    tmp_path: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    root, arrays = tmp_path / "root", embed(tmp_path)
    for name, array in arrays.items():
        write_idx(site.folder / f"{name}.gz", array)
    write_idx(root / "fashion_mnist" / f"{LABELS}.gz", arrays[LABELS])
    fetch = partial(fetch_full, root, base_url=site.url, contents=sums(arrays))
    path = fetch()
    assert path == root / "fashion_mnist.manifest.json"
    assert capsys.readouterr().err.count("downloading") == 3
    first = path.read_bytes()
    manifest = json.loads(first)
    assert manifest["name"] == "fashion_mnist"
    assert manifest["counts"] == {"train": 40, "test": 20}
    assert {name: FileSum(**known) for name, known in manifest["files"].items()} == sums(arrays)
    path.unlink()
    assert fetch().read_bytes() == first  # the second time nothing is downloaded
    assert capsys.readouterr().err == ""
    alter(root / "fashion_mnist" / "FashionMNIST" / "raw" / f"{IMAGES}.gz")
    with pytest.raises(UserError, match=f"{IMAGES}.gz: .*"):
        fetch()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the full Fashion-MNIST is not installed")
def test_the_original_full_set(tmp_path: Path) -> None:
    (tmp_path / "fashion_mnist").symlink_to(DEBIAN)
    loaded = data.load("fashion_mnist", tmp_path)
    assert (len(loaded.train), len(loaded.test)) == (60_000, 10_000)
    histogram = np.bincount(loaded.train.images.numpy().ravel(), minlength=256) / (60_000 * 784)
    values = np.arange(256) / 255
    mean = float(histogram @ values)
    std = float(np.sqrt(histogram @ (values - mean) ** 2))
    assert loaded.mean == pytest.approx([mean], abs=5e-5)
    assert loaded.std == pytest.approx([std], abs=5e-5)
    data.fetch("fashion_mnist", tmp_path)  # nothing to download


def test_the_embedded_set_of_the_repository() -> None:
    if not (REPOSITORY / "data").is_dir():
        pytest.skip("run `dvc pull data.dvc`")
    loaded = data.load("embedded", REPOSITORY)
    assert loaded.train.labels.bincount().tolist() == [600] * 10
    assert loaded.test.labels.bincount().tolist() == [100] * 10
    manifest = json.loads(data.fetch("embedded", REPOSITORY).read_text())
    assert manifest["counts"] == {"train": 6000, "test": 1000}
    assert sorted(manifest["files"])[0] == "LICENSE"
    for name, known in manifest["contents"].items():
        array = read_idx(REPOSITORY / "data" / f"{name}.gz")
        assert bytes_sum(encode_idx(array)) == FileSum(**known)


@pytest.mark.slow
def test_loading_imports_no_torchvision() -> None:
    """Importing it takes seconds."""
    python("import sys, steadyspike.data; assert 'torchvision' not in sys.modules")


ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + bytes(range(24))
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_folder
@given(array=random_arrays(np.uint8, array_shapes(max_dims=3, min_side=1, max_side=7)))
def test_reads_what_it_wrote_as_torchvision_does(tmp_path: Path, array: np.ndarray) -> None:
    packed, plain = tmp_path / "a.gz", tmp_path / "a"
    write_idx(packed, array)
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    for back in (read_idx(packed), read_idx(plain)):
        assert (back.dtype, back.shape) == (np.uint8, array.shape)
        assert np.array_equal(back, array)
        assert back.flags.writeable
    assert np.array_equal(read_sn3_pascalvincent_tensor(str(plain)).numpy(), array)


def test_equal_arrays_give_equal_files() -> None:
    assert encode_idx(ARRAY) == encode_idx(np.asfortranarray(ARRAY)) == CONTENT
    assert compress(CONTENT)[:10] == bytes.fromhex("1f8b080000000000 02ff")  # no time or system


@pytest.mark.parametrize("packed", [False, True])
@same_folder
@given(keep=st.integers(0, 1 << 16))
def test_every_truncation_is_refused(tmp_path: Path, keep: int, packed: bool) -> None:
    path = tmp_path / "f"
    raw = compress(CONTENT) if packed else CONTENT
    path.write_bytes(raw[: keep % len(raw)])
    with pytest.raises(UserError, match=r"f: (truncated|not an IDX)") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


@same_folder
@given(position=st.integers(0, 1 << 16), flip=st.integers(1, 255))
def test_an_altered_byte_is_noticed(tmp_path: Path, position: int, flip: int) -> None:
    path = tmp_path / "a.gz"
    raw = bytearray(compress(CONTENT))
    raw[10 + position % (len(raw) - 10)] ^= flip  # past the gzip header
    path.write_bytes(raw)
    # The bits that pad the stream to a whole byte mean nothing.
    with contextlib.suppress(UserError):
        assert np.array_equal(read_idx(path), ARRAY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d" + CONTENT[3:], "not an IDX file of unsigned bytes; expected the bytes 00 00"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"<html>", "not an IDX file"),
        (CONTENT + b"\0", r"truncated or altered; expected 24 bytes \(2x3x4\), found 25"),
        (b"\0\0\x08\3" + b"\0\0\0\x09" * 3 + b"abc", "truncated or altered; expected 729"),
        (gzip.compress(CONTENT) + b"tail", "altered; expected one gzip stream"),
        (None, "cannot be read: No such file"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "f.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"f\.gz: {message}"):
        read_idx(path)
