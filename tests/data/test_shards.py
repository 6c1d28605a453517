import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from steadyspike.data import shards as module
from steadyspike.data.shards import find_shards, index_shards, walk_shard
from steadyspike.errors import UserError

from .formats import tar_of


def sample(key: str, label: int) -> dict[str, bytes]:
    return {f"{key}.jpg": f"image {key}".encode(), f"{key}.cls": str(label).encode()}


LONG = "n01440764/" + "x" * 150  # needs a header of its own


def two_shards(folder: Path) -> tuple[Path, ...]:
    first = {**sample("a.b/n1_2", 4), "a.b/n1_2.json": b"{}", **sample(LONG, 0)}
    (folder / "train-000000.tar").write_bytes(tar_of(first, tarfile.GNU_FORMAT))
    second = {"k.cls": b"9\n", "k.JPEG": b"image k"}
    (folder / "train-000001.tar").write_bytes(tar_of(second, tarfile.PAX_FORMAT))
    (folder / "train-000001.idx").touch()
    return find_shards(folder, "train")


def test_every_image_is_one_read(tmp_path: Path) -> None:
    paths = two_shards(tmp_path)
    assert [path.name for path in paths] == ["train-000000.tar", "train-000001.tar"]
    images = index_shards(paths, 10, tmp_path / "index.npz")
    assert images.labels.tolist() == [4, 0, 9]
    assert images.names.tolist() == [b"a.b/n1_2.jpg", f"{LONG}.jpg".encode(), b"k.JPEG"]
    for index, key in enumerate(("a.b/n1_2", LONG, "k")):
        assert images.read(index) == f"image {key}".encode()
    assert images.name(2) == f"{paths[1]}: k.JPEG"
    paths[1].unlink()
    with pytest.raises(UserError, match=r"train-000001\.tar: cannot be read"):
        images.read(2)


def test_the_index_is_kept_until_a_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, cache = two_shards(tmp_path), tmp_path / "index.npz"
    first = index_shards(paths, 10, cache)
    with monkeypatch.context() as patched:
        patched.setattr(module, "walk_shard", None)
        again = index_shards(paths, 10, cache)
    for name in module.COLUMNS:
        assert np.array_equal(getattr(first, name), getattr(again, name))
    state = paths[1].stat()
    paths[1].write_bytes(tar_of(sample("l", 3), tarfile.PAX_FORMAT))  # of the same size
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert index_shards(paths, 10, cache).labels.tolist() == [4, 0, 3]
    cache.write_bytes(cache.read_bytes()[:-30])
    assert index_shards(paths, 10, cache).labels.tolist() == [4, 0, 3]
    nowhere = paths[0] / "index.npz"  # cannot be written
    assert index_shards(paths, 10, nowhere).labels.tolist() == [4, 0, 3]
    cache.unlink()
    paths[1].write_bytes(b"")
    with pytest.raises(UserError, match=r"train-000001\.tar: truncated.* \(empty file\)"):
        index_shards(paths, 10, cache)
    assert not cache.exists()


def test_truncated_and_compressed_shards_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    whole = tar_of({**sample("a", 1), **sample("b", 1), **sample("c", 1)})
    end = 6 * 1024 + 512  # six members of a header and a block, and a block of zeros
    cut = [whole[:size] for size in [*range(0, end, 100), end - 1]]
    for content in (*cut, gzip.compress(whole), b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"000000\.tar: truncated.*expected .*tar") as caught:
            walk_shard(path, 10)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole[:end])
    assert len(walk_shard(path, 10)) == 3


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"a.input.jpg": b"x", "a.output.cls": b"1"},
            r"expected members whose names end in \.jpg .*found \.input\.jpg, \.output\.cls;",
        ),
        ({"a.jpg": b"x", "a.json": b"{}"}, r"expected members .*found \.json; write"),
        ({"a.jpg": b"x"}, r"a\.cls: missing; expected an image and a label"),
        ({"a.cls": b"1"}, r"a\.jpg: missing; expected an image and a label"),
        ({"a.jpg": b"x", "a.cls": b"10"}, r"a\.cls: expected a label of 0 to 9, found b'10'"),
        ({"a.jpg": b"x", "a.cls": b"dog"}, r"a\.cls: expected a label of 0 to 9, found b'dog'"),
        ({"a.jpg": b"", "a.cls": b"1"}, r"a\.jpg: empty"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"1"}, r"a\.png: second image"),
    ],
)
def test_a_wrong_member_is_named(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    path.write_bytes(tar_of(members))
    with pytest.raises(UserError, match=rf"train-000000\.tar: {message}"):
        walk_shard(path, 10)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"val-000000\.tar: missing; expected shards numbered from 000000$"),
        (["val-000000.tar", "val-000002.tar"], r"val-000001\.tar: missing; .* val-000002\.tar$"),
        (
            ["val-000000.tgz"],
            r"val-000000\.tgz: expected an uncompressed tar file, .*000\.tar",
        ),
        (["val-000000.tar", "val-000001.tar.gz"], r"val-000001\.tar\.gz: expected .*-000001\.tar$"),
    ],
)
def test_missing_and_foreign_shards_are_named(
    names: list[str], message: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        find_shards(tmp_path, "val")
