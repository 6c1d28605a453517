import contextlib
import gzip
import json
import shutil
import struct
from collections.abc import Callable
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
from steadyspike.data.manifest import FileSum, bytes_sum
from steadyspike.errors import UserError
from tiny import REPOSITORY, python

Arrays = dict[str, NDArray[np.uint8]]
Embed = Callable[[Path, Arrays], Path]
IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


@pytest.fixture
def contents(arrays: Arrays) -> dict[str, FileSum]:
    return {name: bytes_sum(encode_idx(array)) for name, array in arrays.items()}


def test_embedded_gives_images_and_labels(tmp_path: Path, arrays: Arrays, embed: Embed) -> None:
    embed(tmp_path, arrays)
    loaded = data.load("embedded", tmp_path)
    assert loaded.name == "embedded"
    assert loaded.num_classes == 10
    assert loaded.train.images.shape == (40, 1, 28, 28)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.train.labels.dtype == torch.int64
    assert len(loaded.test) == 20
    assert loaded.train.images[7, 0, 3, 4] == int(arrays[IMAGES][7, 3, 4])
    assert loaded.train.labels.tolist() == arrays[LABELS].tolist()


def test_embedded_lies_in_the_current_folder(
    tmp_path: Path, arrays: Arrays, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(tmp_path, arrays)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEADYSPIKE_DATA", "elsewhere")
    assert len(data.load("embedded").train) == 40
    assert data.fetch("embedded") == Path("data/manifest.json")


def drop_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def drop_file(folder: Path) -> None:
    (folder / f"{LABELS}.gz").unlink()


def truncate(folder: Path) -> None:
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-1])


def alter(folder: Path) -> None:
    path = folder / f"{IMAGES}.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_folder, "data: no such folder"),
        (drop_file, f"{LABELS}.gz: missing"),
        (truncate, f"{IMAGES}.gz: truncated"),
        (alter, f"{IMAGES}.gz: altered"),
    ],
)
@pytest.mark.parametrize("use", [data.load, data.fetch])
def test_a_damaged_embedded_set_is_refused_with_the_remedy(
    tmp_path: Path,
    arrays: Arrays,
    embed: Embed,
    damage: Callable[[Path], None],
    message: str,
    use: Callable[[str, Path], object],
) -> None:
    damage(embed(tmp_path, arrays))
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
    arrays: Arrays,
    embed: Embed,
    name: str,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    message: str,
) -> None:
    embed(tmp_path, {**arrays, name: np.ascontiguousarray(change(arrays[name]))})
    with pytest.raises(UserError, match=message):
        data.load("embedded", tmp_path)


def test_an_unknown_name_gets_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'mnist'; expected one of .*embedded, fashion_mnist"):
        data.load("mnist")


def test_a_missing_full_set_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEADYSPIKE_DATA", str(tmp_path))
    with pytest.raises(
        UserError,
        match=rf"{tmp_path}/fashion_mnist: no such folder; .*`steadyspike fetch fashion_mnist`",
    ):
        data.load("fashion_mnist")
    (tmp_path / "fashion_mnist").mkdir()
    with pytest.raises(UserError, match=rf"raw/{IMAGES}.gz: missing; .*`steadyspike fetch"):
        data.load("fashion_mnist")


@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_layout_is_read_and_checked(
    tmp_path: Path, arrays: Arrays, contents: dict[str, FileSum], layout: str, packed: bool
) -> None:
    place = tmp_path / layout
    place.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if packed:  # in another gzip header than write_idx's
            (place / f"{name}.gz").write_bytes(gzip.compress(encode_idx(array), 1))
        else:
            (place / name).write_bytes(encode_idx(array))
    read = read_full(tmp_path, contents)
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    with pytest.raises(UserError, match=r"truncated.*steadyspike fetch fashion_mnist"):
        read_full(tmp_path)  # well-formed, but not the original


def test_fetch_downloads_what_is_missing(
    tmp_path: Path,
    arrays: Arrays,
    contents: dict[str, FileSum],
    site: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, url = site
    root = tmp_path / "root"
    for name, array in arrays.items():
        write_idx(folder / f"{name}.gz", array)
    write_idx(root / "fashion_mnist" / f"{LABELS}.gz", arrays[LABELS])
    fetch = partial(fetch_full, root, base_url=url, contents=contents)
    path = fetch()
    assert path == root / "fashion_mnist.manifest.json"
    assert capsys.readouterr().err.count("downloading") == 3
    first = path.read_bytes()
    manifest = json.loads(first)
    assert manifest["name"] == "fashion_mnist"
    assert manifest["counts"] == {"train": 40, "test": 20}
    assert {name: FileSum(**known) for name, known in manifest["files"].items()} == contents
    path.unlink()
    assert fetch().read_bytes() == first  # the second time nothing is downloaded
    assert capsys.readouterr().err == ""
    alter(root / "fashion_mnist" / "FashionMNIST" / "raw")
    with pytest.raises(UserError, match=f"{IMAGES}.gz: .*"):
        fetch()


def test_the_original_full_set(tmp_path: Path, debian: Path) -> None:
    (tmp_path / "fashion_mnist").symlink_to(debian)
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


def test_equal_arrays_give_equal_files(tmp_path: Path) -> None:
    write_idx(tmp_path / "one.gz", ARRAY)
    write_idx(tmp_path / "two.gz", np.asfortranarray(ARRAY))
    one, two = ((tmp_path / name).read_bytes() for name in ("one.gz", "two.gz"))
    assert one == two
    assert one[:10] == bytes.fromhex("1f8b080000000000 02ff")  # no time, name or system


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
