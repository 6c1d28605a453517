"""What a tar file unpacks to, for Python's own module to read, within limits."""

import gzip
import io
from pathlib import Path
from typing import BinaryIO, cast

GZIP_MAGIC = b"\x1f\x8b"
LARGEST_READ = 1 << 16  # bytes
HEADERS = 1 << 29  # bytes of headers and padding, at most, beside what members hold


class Unpacked(io.RawIOBase):
    """A tar file, plain or in gzip, for the module to read.

    Raises ValueError for more than ``limit`` bytes beside the members' headers, and where the
    module would take more than LARGEST_READ into memory at once: a header may promise any size.
    """

    def __init__(self, archive: Path, limit: int) -> None:
        self._raw = archive.open("rb")
        packed = self._raw.read(2) == GZIP_MAGIC
        self._raw.seek(0)
        self._file: BinaryIO = (
            cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if packed else self._raw
        )
        self._most = limit + HEADERS

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_READ:
            raise ValueError(f"a header of {size} bytes")
        if self._file.tell() > self._most:
            raise ValueError(f"more than {self._most} bytes")
        return self._file.read(size)

    def seek(self, to: int, whence: int = 0) -> int:
        if whence == io.SEEK_SET and to > self._most:
            raise ValueError(f"more than {self._most} bytes")
        return self._file.seek(to, whence)

    def notify(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._raw.close()
        super().close()
