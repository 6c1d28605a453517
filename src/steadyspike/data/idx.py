"""The IDX format of the MNIST family: two zero bytes, type, rank, big-endian sizes, then values."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from steadyspike.errors import UserError
from steadyspike.files import write_atomically

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
LARGEST = 1 << 26  # bytes of values; the largest file of the family here has 47,040,000


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """The one IDX encoding of a uint8 array of rank 1 to 255."""
    if array.dtype != np.uint8 or not 1 <= array.ndim <= 255:
        raise ValueError(
            f"IDX holds uint8 of rank 1 to 255, not {array.dtype} of rank {array.ndim}"
        )
    header = struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes, gzip or plain, to a writable array of its own shape.

    Raises UserError that names the file for anything but exactly one such array.
    """
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            if magic == GZIP_MAGIC:
                with gzip.GzipFile(fileobj=raw) as plain:
                    return _read(plain, path)
            if path.suffix == ".gz":
                raise UserError(
                    f"{path}: not gzip; expected the bytes 1f 8b, found {magic.hex(' ')}"
                )
            return _read(raw, path)
    except EOFError as error:
        raise UserError(f"{path}: truncated; the gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: altered; expected one gzip stream ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _read(stream: IO[bytes] | gzip.GzipFile, path: Path) -> NDArray[np.uint8]:
    head = stream.read(4)
    if len(head) < 4:
        raise UserError(f"{path}: truncated; expected an IDX header of at least 4 bytes")
    zeros, kind, rank = struct.unpack(">HBB", head)
    if zeros != 0 or kind != UNSIGNED_BYTE or rank == 0:
        raise UserError(
            f"{path}: not an IDX file of unsigned bytes; expected the bytes 00 00 08 and a rank"
            f" of at least 1, found {head.hex(' ')}"
        )
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise UserError(f"{path}: truncated; expected {rank} sizes in the IDX header")
    shape = struct.unpack(f">{rank}I", sizes)
    expected = math.prod(shape)
    what = "x".join(map(str, shape))
    if expected > LARGEST:
        raise UserError(f"{path}: too large; expected at most {LARGEST:,} bytes, not {what}")
    values = bytearray()
    # One byte past the end is asked for, which also makes gzip check its own sum.
    while piece := stream.read(min(CHUNK, expected + 1 - len(values))):
        values += piece
    if len(values) < expected:
        raise UserError(f"{path}: truncated; expected {expected} bytes ({what}), got {len(values)}")
    if len(values) > expected:
        raise UserError(f"{path}: trailing bytes; expected {expected} bytes ({what})")
    try:
        return np.frombuffer(values, dtype=np.uint8).reshape(shape)
    except ValueError as error:  # numpy's own limits on rank and size
        raise UserError(f"{path}: altered; its sizes {what} are no array's ({error})") from error


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes a uint8 array as gzip-compressed IDX, atomically, the same bytes every time.

    The gzip header carries no time, file name or system. The compressed bytes are those of
    zlib at level 9; another implementation (zlib-ng) may choose others for the same content.
    """
    write_atomically(path, compress(encode_idx(array)))


def compress(content: bytes) -> bytes:
    """One gzip stream with an empty header; the ``gzip`` module's header differs by version."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(content) + deflate.flush()
    header = GZIP_MAGIC + struct.pack("<BBIBB", 8, 0, 0, 2, 255)
    return header + body + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
