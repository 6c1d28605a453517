import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from steadyspike.data import shards as module
from steadyspike.data.shards import ShardStore, build_index, find_shards, read_index, walk_shard
from steadyspike.errors import UserError

Members = list[tuple[str, bytes]]


def shard(path: Path, members: Members, **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, label: int) -> Members:
    return [(f"{key}.jpg", f"image {key}".encode()), (f"{key}.cls", str(label).encode())]


def pair(folder: Path) -> tuple[Path, Path]:
    long = "n01440764/" + "x" * 150  # needs a header of its own
    first = [*sample("a.b/n1_2", 4), ("a.b/n1_2.json", b"{}"), *sample(long, 0)]
    second = [("k.cls", b"9\n"), ("k.JPEG", b"image k")]
    return (
        shard(folder / "train-000000.tar", first, format=tarfile.GNU_FORMAT),
        shard(folder / "train-000001.tar", second, format=tarfile.PAX_FORMAT),
    )


def test_every_image_is_one_read(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    assert find_shards(tmp_path, "train") == paths
    index = build_index(paths, 10)
    store = ShardStore(paths, index)
    assert index.labels.tolist() == [4, 0, 9]
    assert store.read(0) == b"image a.b/n1_2"
    assert store.read(1) == b"image n01440764/" + b"x" * 150
    assert store.read(np.int64(2)) == b"image k"  # type: ignore[arg-type]
    assert store.name(2) == f"{paths[1]}: k.JPEG"
    paths[1].unlink()
    with pytest.raises(UserError, match=r"train-000001\.tar: cannot be read"):
        store.read(2)


def test_the_index_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache = pair(tmp_path / "shards"), tmp_path / "index.npz"
    first = read_index(paths, 10, cache)
    with monkeypatch.context() as patched:
        patched.setattr(module, "walk_shard", None)
        again = read_index(paths, 10, cache)
    for field in ("shards", "offsets", "sizes", "names", "labels"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
    shard(paths[1], [*sample("k", 3), *sample("l" * 2000, 5)])
    assert read_index(paths, 10, cache).labels.tolist() == [4, 0, 3, 5]
    cache.write_bytes(cache.read_bytes()[:-30])
    assert read_index(paths, 10, cache).labels.tolist() == [4, 0, 3, 5]
    assert read_index(paths, 10, tmp_path / "no.tar" / "x").labels.tolist() == [4, 0, 3, 5]
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert read_index(paths, 10, blocked / "index.npz").labels.tolist() == [4, 0, 3, 5]


def test_nothing_is_kept_of_broken_shards(tmp_path: Path) -> None:
    paths, cache = pair(tmp_path), tmp_path / "index.npz"
    paths[1].write_bytes(paths[1].read_bytes()[:700])
    with pytest.raises(UserError, match=r"train-000001\.tar"):
        read_index(paths, 10, cache)
    assert not cache.exists()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "train-0.tar", [m for k in "abc" for m in sample(k, 1)])
    whole = path.read_bytes()
    end = 6 * 1024 + 512  # a header and a block each, and one of the two zero blocks at the end
    for size in [*range(0, end, 100), end - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"train-0\.tar: ") as told:
            walk_shard(path, 10)
        assert "\n" not in str(told.value)
    path.write_bytes(whole[:end])
    assert len(walk_shard(path, 10)) == 3


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], r"a\.cls: missing; expected an image and a label"),
        ([("a.cls", b"1")], r"a\.jpg: missing; expected an image and a label"),
        ([("a.jpg", b"x"), ("a.cls", b"10")], r"a\.cls: expected a label of 0 to 9, found b'10'"),
        ([("a.jpg", b"x"), ("a.cls", b"-1")], r"a\.cls: expected a label of 0 to 9"),
        ([("a.jpg", b"x"), ("a.cls", b"")], r"a\.cls: expected a label of 0 to 9, found b''"),
        ([("a.jpg", b""), ("a.cls", b"1")], r"a\.jpg: empty"),
        ([*sample("a", 1), *sample("a", 2)], r"a\.jpg: twice"),
        ([("a.jpg", b"x"), ("a.png", b"x"), ("a.cls", b"1")], r"a\.png: twice"),
    ],
)
def test_a_wrong_shard_is_named(members: Members, message: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "train-0.tar", members)
    with pytest.raises(UserError, match=rf"train-0\.tar: {message}"):
        walk_shard(path, 10)


def test_compressed_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    with pytest.raises(UserError, match="expected an uncompressed tar file"):
        walk_shard(path, 10)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match="expected an uncompressed tar file"):
        walk_shard(path, 10)


def test_links_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert walk_shard(path, 10) == []


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val-000000\.tar: missing; expected shards"):
        find_shards(tmp_path, "val")
    for number in (0, 1, 3):
        shard(tmp_path / f"val-{number:06d}.tar", sample("a", 1))
    with pytest.raises(UserError, match=r"val-000002\.tar: missing; found .* val-000003\.tar"):
        find_shards(tmp_path, "val")


def test_an_index_that_unpacks_to_more_than_it_takes_up_is_built_anew(tmp_path: Path) -> None:
    paths, cache = pair(tmp_path / "shards"), tmp_path / "index.npz"
    first = read_index(paths, 10, cache).labels.tolist()
    with np.load(cache) as known:
        arrays = {name: known[name] for name in known.files}
    labels = np.zeros(1 << 20, np.int64)
    np.savez_compressed(cache, **{**arrays, "labels": labels})
    assert read_index(paths, 10, cache).labels.tolist() == first
    with np.load(cache) as known:
        assert known["labels"].tolist() == first
