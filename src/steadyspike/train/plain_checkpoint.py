"""Looks a PyTorch checkpoint through before PyTorch reads it.

``torch.load(weights_only=True)`` runs nothing that a file names, but believes the sizes that it
tells: members that unpack to any size, tensors that are larger than their bytes, a byte array of
any length. Here a checkpoint holds what its bytes hold.
"""

import math
import os
import zipfile
import zlib
from typing import Any, BinaryIO

from steadyspike.data.restricted_unpickler import PlainUnpickler, Recorded

_TENSOR = "torch._utils._rebuild_tensor_v2"
_ITEM_BYTES = {
    **{"torch.DoubleStorage": 8, "torch.LongStorage": 8},
    **{"torch.FloatStorage": 4, "torch.IntStorage": 4},
    **{"torch.HalfStorage": 2, "torch.BFloat16Storage": 2, "torch.ShortStorage": 2},
    **{"torch.BoolStorage": 1, "torch.ByteStorage": 1, "torch.CharStorage": 1},
}
_NAMES = (_TENSOR, "torch._utils._rebuild_parameter", "collections.OrderedDict", *_ITEM_BYTES)
_PICKLE = "data.pkl"
MOST_MEMBERS = 100_000
LARGEST_PICKLE = 1 << 24  # bytes
MOST_DIMENSIONS = 16


def check_checkpoint(file: BinaryIO) -> None:
    """Raises ValueError for anything but a zip file of plain values and dense tensors."""
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, size)
            content = archive.read(members[_PICKLE]) if _PICKLE in members else b""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"no whole zip file as torch.save writes it: {error}") from error
    sizes = {name: info.file_size for name, info in members.items()}
    machine = PlainUnpickler(_NAMES)
    machine.load(content)
    for call in machine.calls:
        if call.name == "":
            _check_storage(call, sizes)
        elif call.name == _TENSOR:
            _check_tensor(call)


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """By name below the one folder that holds all."""
    listed = archive.infolist()
    folders = {info.filename.partition("/")[0] for info in listed}
    members = {info.filename.partition("/")[2]: info for info in listed}
    if len(folders) != 1 or len(members) != len(listed) or len(listed) > MOST_MEMBERS:
        raise ValueError("expected each member once, all in one folder")
    if any(info.compress_type or info.file_size != info.compress_size for info in listed):
        raise ValueError("expected members that are not compressed")
    if sum(info.file_size for info in listed) > size:
        raise ValueError("its members are larger than the file")
    if _PICKLE in members and members[_PICKLE].file_size > LARGEST_PICKLE:
        raise ValueError(f"expected a {_PICKLE} of at most {LARGEST_PICKLE} bytes")
    return members


def _check_storage(call: Recorded, sizes: dict[str, int]) -> None:
    """A storage has exactly the bytes of its member."""
    match call.arguments[0]:
        case ("storage", Recorded() as kind, str() as key, str(), int() as count):
            item = _ITEM_BYTES.get(kind.name, 0)
            if kind.arguments == () and item and sizes.get(f"data/{key}") == item * count:
                return
    raise ValueError("expected storages of the sizes of their members")


def _check_tensor(call: Recorded) -> None:
    """A tensor has no more elements than its storage: none is there several times."""
    match call.arguments:
        case (Recorded(name="") as storage, int(), tuple() as shape, tuple() as strides, *_):
            known: Any = storage.arguments[0]
            if (
                len(shape) == len(strides) <= MOST_DIMENSIONS
                and all(type(size) is int and size >= 0 for size in (*shape, *strides))
                and math.prod(shape) <= known[4]
            ):
                return
    raise ValueError("expected tensors that are not larger than their storages")
