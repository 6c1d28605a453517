"""Small files that stand for more memory or time than there is."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fuzz_checkpoint
import fuzz_seeds as seeds
from formats import AEDAT3, python2_pickle
from fuzz_edits import checkpoint_of, pickle_of

MANY = 1 << 29  # bytes
SIDES = (13_000, 60_000)  # pixels of an image


def attacks(inside: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    path = inside / "file"

    def laid(content: bytes, read: Callable[[Path], object]) -> Callable[[], object]:
        def attempt() -> None:
            path.write_bytes(content)
            read(path)

        return attempt

    for family in (_of_data, _of_checkpoints, _of_text):
        for name, content, read in family(inside):
            yield name, laid(content, read)


Given = tuple[str, bytes, Callable[[Path], object]]


def _of_data(inside: Path) -> Iterator[Given]:
    import numpy as np

    from steadyspike.data.aedat import read_aedat3
    from steadyspike.data.cifar import CIFAR10, _batch
    from steadyspike.data.clips import ClipStore
    from steadyspike.data.idx import read_idx
    from steadyspike.data.restricted_unpickler import read_plain_pickle
    from steadyspike.data.streaming import decode

    def batch(path: Path) -> object:
        return _batch(CIFAR10, read_plain_pickle(path.read_bytes(), path), path)

    index = MANY.to_bytes(4, "little")
    yield "a pickle with a memo of 2^29 places", b"\x80\x02}r" + index + b".", batch
    text = b"\x80\x02}X\xff\xff\xff\x7f"
    yield "a pickle with a text of 2 GiB", text + b".", batch
    deep = b"}" + b")" + b"\x85" * 900_000 + b"K\1s."
    yield "a pickle with a key of tuples 900,000 deep", deep, batch
    doubled = b"})" + b"2\x86" * 60 + b"K\1s."
    yield "a pickle with a key of 2^60 tuples", doubled, batch
    image = np.zeros((1, 3072), np.uint8)
    label = (
        b"}(U\4data"
        + _array(image)
        + b"U\6labels]\x8b\x00\x00\x10\x00"
        + b"\x7f" * (1 << 20)
        + b"au."
    )
    yield "a pickle with a number of 2^23 bits", label, batch
    header = struct.pack(">HBB3I", 0, 8, 3, 2**16, 2**8, 2**8)
    yield "an IDX file that unpacks to 512 MiB", gzip.compress(header + bytes(MANY), 1), read_idx
    yield "an IDX file that promises 2^96 bytes", header[:4] + b"\xff" * 12, read_idx
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**31 - 1, 2**31 - 1, 1)
    yield "a recording that promises 2^31 events", AEDAT3 + packet, read_aedat3
    for side in SIDES:
        yield (
            f"an image of {side} x {side} pixels",
            _png(side),
            lambda path: decode(path.read_bytes(), "a.png", None),
        )
    store = ClipStore(inside, "clips", 1)
    store.folder.mkdir()
    promising = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        promising, {"descr": "<i8", "fortran_order": False, "shape": (2**36,)}
    )

    def split(path: Path) -> object:
        for part in ("frames", "labels"):
            (store.folder / f"train_{part}.npy").write_bytes(path.read_bytes())
        return store.split("train")

    yield "an array that promises 512 GiB", promising.getvalue(), split


def _array(array: object) -> bytes:
    import pickle

    return python2_pickle(array).removeprefix(pickle.PROTO + b"\2").removesuffix(pickle.STOP)


def _png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    pack = zlib.compressobj(1)
    row = bytes(side // 8 + 1)
    rows = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _of_checkpoints(inside: Path) -> Iterator[Given]:
    import torch

    from steadyspike.deploy import import_released
    from steadyspike.deploy.released import load_released
    from steadyspike.evaluate.weights import load_weights
    from steadyspike.models import VGGSNN

    model, own = VGGSNN(1, 1, widths=(1,)), torch.nn.Linear(1, 1)

    def load(path: Path) -> None:
        load_released(path, model)

    pickled, storages = pickle_of(seeds.released()[0])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", pickled)
        archive.writestr("c/data/0", bytes(MANY))
    yield "a checkpoint that unpacks to 512 MiB", out.getvalue(), load
    nine, most = b"K\x09t", b"J\xff\xff\xff\x7ft"  # how many elements a storage has
    assert nine in pickled
    lying = checkpoint_of(pickled.replace(nine, most, 1), storages)
    yield "a checkpoint with a tensor larger than its bytes", lying, load
    spread = io.BytesIO()
    torch.save({"net": {"classifier.0.weight": torch.ones(1, 1).expand(10**6, 10**6)}}, spread)
    yield "a checkpoint with one element 10^12 times", spread.getvalue(), load
    array = b"\x80\x02}U\3netcbuiltins\nbytearray\nJ\0\0\0\x7f\x85Rs."
    yield "a checkpoint with a byte array of 2 GiB", checkpoint_of(array, {}), load
    resume = fuzz_checkpoint.resume(inside)
    yield (
        "a checkpoint of ours with a byte array of 2 GiB",
        checkpoint_of(array, {}),
        lambda path: resume(path.read_bytes()),
    )
    odd = {
        "features.0.synapse.weight": torch.ones(64, 3, 3, 3),
        "classifier.0.synapse.weight": torch.ones(10**6, 1),
        "classifier.3.synapse.weight": torch.ones(10**6, 1),
        "classifier.6.weight": torch.ones(2, 1),
    }
    told = io.BytesIO()
    torch.save({"net": odd}, told)
    yield (
        "a checkpoint of layers that would need terabytes",
        told.getvalue(),
        lambda path: import_released(path, "vggsnn", inside / "out" / "model"),
    )
    header = {"weight": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    raw = json.dumps(header).encode()
    yield (
        "weights that promise 4 TiB",
        len(raw).to_bytes(8, "little") + raw,
        lambda path: load_weights(path, own, "train it"),
    )


def _of_text(inside: Path) -> Iterator[Given]:
    from steadyspike.data.manifest import read_manifest
    from steadyspike.report import records, sources
    from steadyspike.train.config import load_experiments

    laughs = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    yield (
        "YAML whose aliases stand for 9^11 values",
        f"a0: &a0 x\n{laughs}".encode(),
        load_experiments,
    )
    merged = "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30))
    yield "YAML that merges 2^29 mappings", f"a0: &a0 {{x: 1}}\n{merged}".encode(), load_experiments
    yield "YAML nested 100,000 deep", b"[" * 100_000, load_experiments
    yield "YAML with a number of 300,000 sixtieths", b"a: 1" + b":1" * 300_000, load_experiments
    yield "YAML of 64 MiB", b"#" * (64 << 20), load_experiments
    whole = seeds.membranes()[0].decode()
    for name, value in (
        ("JSON nested 100,000 deep", "[" * 100_000),
        ("JSON with a million mistakes", f"[{'-1,' * 10**6}-1]"),
        ("JSON with a number of a million digits", "9" * 10**6),
    ):
        content = whole.replace("[1, 2]", value, 1).encode()
        yield name, content, sources._read_membranes
    yield "JSON of 64 MiB", b" " * (64 << 20) + b"{}", sources._read_membranes
    yield "a manifest of 64 MiB", b" " * (64 << 20) + b"{}", partial(read_manifest, remedy="get it")
    cell = seeds.memory()[0].replace(b"online", b"x" * 200_000)
    yield (
        "a CSV cell of 200,000 letters",
        cell,
        lambda path: sources._read_rows(path, records.Memory),
    )
