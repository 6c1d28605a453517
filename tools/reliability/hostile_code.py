"""Files that would run code if they were read without care."""

import io
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_checkpoint
from hostile import SPRUNG


class Trap:
    """Creates a file when a pickle that holds it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def attacks(inside: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    import numpy as np
    import torch

    from steadyspike.data.clips import ClipStore
    from steadyspike.data.restricted_unpickler import read_plain_pickle
    from steadyspike.deploy.released import load_released
    from steadyspike.evaluate.weights import load_weights
    from steadyspike.models import VGGSNN
    from steadyspike.train.config import load_experiments

    trap = Trap(inside / SPRUNG)
    path = inside / "file"
    for name, content in _pickles(inside / SPRUNG):
        yield f"a CIFAR pickle with {name}", partial(read_plain_pickle, content, path)
    released, own = VGGSNN(1, 1, widths=(1,)), torch.nn.Linear(1, 1)

    def laid(content: bytes, read: Callable[[], object]) -> Callable[[], object]:
        def attempt() -> None:
            path.write_bytes(content)
            read()

        return attempt

    zipped = io.BytesIO()
    torch.save({"net": trap}, zipped)
    yield (
        "a released checkpoint with code",
        laid(zipped.getvalue(), lambda: load_released(path, released)),
    )
    yield (
        "a released checkpoint that is a pickle",
        laid(pickle.dumps({"net": trap}), lambda: load_released(path, released)),
    )
    yield (
        "a checkpoint of ours with code",
        partial(fuzz_checkpoint.resume(inside), zipped.getvalue()),
    )
    yield (
        "weights that are a pickle",
        laid(pickle.dumps(trap), lambda: load_weights(path, own, "train it")),
    )
    store = ClipStore(inside, "clips", 1)
    store.folder.mkdir()
    array = io.BytesIO()
    np.save(array, np.array([trap], dtype=object), allow_pickle=True)
    for part in ("frames", "labels"):
        (store.folder / f"train_{part}.npy").write_bytes(array.getvalue())
    yield "frames that are pickled objects", lambda: store.split("train")
    for tag in (
        "python/object/apply:os.system",
        "python/object/new:pathlib.Path",
        "python/name:os",
    ):
        text = f"experiments: {{a: !!{tag} ['touch {inside / SPRUNG}']}}"
        yield f"YAML with !!{tag}", laid(text.encode(), lambda: load_experiments(path))


def _pickles(sprung: Path) -> Iterator[tuple[str, bytes]]:
    touch = f"touch {sprung}".encode()
    yield "os.system", b"cposix\nsystem\n(S'" + touch + b"'\ntR."
    yield "eval", b"cbuiltins\neval\n(S'open(\"" + str(sprung).encode() + b'", "w")\'\ntR.'
    yield "an instance", b"(S'" + touch + b"'\niposix\nsystem\n."
    yield "an object", b"(cposix\nsystem\nS'" + touch + b"'\no."
    yield (
        "a name from the stack",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93S'" + touch + b"'\n\x85R.",
    )
    yield "an extension", b"\x80\x02\x82\x01."
    yield "a method of an array", b"cnumpy\nndarray.tofile\n(S'" + str(sprung).encode() + b"'\ntR."
