import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from steadyspike.data.idx import encode_idx, read_idx, write_idx
from steadyspike.errors import UserError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + bytes(range(24))

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_the_encoding_is_the_formats(tmp_path: Path) -> None:
    assert encode_idx(ARRAY) == CONTENT
    (tmp_path / "plain").write_bytes(CONTENT)
    assert np.array_equal(read_idx(tmp_path / "plain"), ARRAY)


@same_folder
@given(array=arrays(np.uint8, array_shapes(max_dims=4, min_side=0, max_side=7)))
def test_reads_what_it_wrote(tmp_path: Path, array: np.ndarray) -> None:
    write_idx(tmp_path / "a.gz", array)
    back = read_idx(tmp_path / "a.gz")
    assert back.dtype == np.uint8
    assert back.shape == array.shape
    assert np.array_equal(back, array)
    assert back.flags.writeable
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == encode_idx(array)


def test_the_gzip_header_tells_nothing(tmp_path: Path) -> None:
    write_idx(tmp_path / "one.gz", ARRAY)
    os.utime(tmp_path / "one.gz", (0, 0))
    write_idx(tmp_path / "two.gz", np.asfortranarray(ARRAY))
    one, two = ((tmp_path / name).read_bytes() for name in ("one.gz", "two.gz"))
    assert one == two
    assert one[:10] == bytes.fromhex("1f8b080000000000 02ff")


@same_folder
@given(keep=st.integers(0, len(CONTENT) - 1))
def test_every_truncation_is_refused(tmp_path: Path, keep: int) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(CONTENT[:keep])
    with pytest.raises(UserError, match=r"plain: truncated; expected"):
        read_idx(plain)
    write_idx(tmp_path / "whole.gz", ARRAY)
    raw = (tmp_path / "whole.gz").read_bytes()
    packed = tmp_path / "cut.gz"
    packed.write_bytes(raw[: keep * len(raw) // len(CONTENT)])
    with pytest.raises(UserError, match=r"cut\.gz: (truncated|not gzip)"):
        read_idx(packed)


@same_folder
@given(position=st.integers(10, 10_000), flip=st.integers(1, 255))
def test_no_altered_byte_past_the_gzip_header_goes_unseen(
    tmp_path: Path, position: int, flip: int
) -> None:
    path = tmp_path / "a.gz"
    write_idx(path, ARRAY)
    raw = bytearray(path.read_bytes())
    raw[position if position < len(raw) else 10 + position % (len(raw) - 10)] ^= flip
    path.write_bytes(raw)
    try:
        read = read_idx(path)
    except UserError as error:
        message = str(error)
    else:  # the bits that pad the stream to a byte mean nothing
        assert np.array_equal(read, ARRAY)
        return
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d" + CONTENT[3:], "not an IDX file of unsigned bytes; expected the bytes 00 00"),
        (b"\1\0\x08" + CONTENT[3:], "not an IDX file"),
        (b"\0\0\x08\0", "not an IDX file"),
        (CONTENT + b"\0", r"trailing bytes; expected 24 bytes \(2x3x4\)"),
        (b"\0\0\x08\3" + b"\xff" * 12 + b"abc", "too large; expected at most 67,108,864 bytes"),
        (b"\0\0\x08\3" + b"\0\0\0\x09" * 3 + b"abc", "truncated; expected 729"),
        (b"\0\0\x08\xff" + b"\0" * 1020, "altered; its sizes"),
        (b"", "truncated"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_idx_file_is_refused(
    tmp_path: Path, content: bytes, message: str, packed: bool
) -> None:
    path = tmp_path / ("f.gz" if packed else "f")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=f"{path.name}: {message}"):
        read_idx(path)


def test_more_refusals(tmp_path: Path) -> None:
    page = tmp_path / "page.gz"
    page.write_text("<html>")
    with pytest.raises(UserError, match=r"page\.gz: not gzip; expected the bytes 1f 8b"):
        read_idx(page)
    page.write_bytes(gzip.compress(CONTENT) + b"tail")
    with pytest.raises(UserError, match=r"page\.gz: altered; expected one gzip stream"):
        read_idx(page)
    page.write_bytes(gzip.compress(CONTENT) + gzip.compress(b"more"))
    with pytest.raises(UserError, match=r"page\.gz: trailing bytes"):
        read_idx(page)
    with pytest.raises(UserError, match=r"gone: cannot be read: No such file"):
        read_idx(tmp_path / "gone")
    with pytest.raises(ValueError, match="uint8"):
        encode_idx(ARRAY.astype(np.int32))  # type: ignore[arg-type]
