"""Archives that would write elsewhere, make links or devices, or fill disk and memory."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fuzz_seeds as seeds
from formats import tar_of, zip_of

LIMIT = 1 << 20  # bytes that may come out
BOMB = 512 << 20
PATHS = ("../victim", "a/../../victim", "/tmp/steadyspike-victim", "a\\..\\..\\victim", "..")
KINDS = {
    "a symbolic link": tarfile.SYMTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
    "a pipe": tarfile.FIFOTYPE,
}


def attacks(inside: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    for name, content in _tars():
        yield f"tar with {name}", _given(inside / "a.tar.gz", content)
    for name, content in _zips():
        yield f"zip with {name}", _given(inside / "a.zip", content)


def _given(path: Path, content: bytes) -> Callable[[], object]:
    from steadyspike.data.archive import extract

    path.write_bytes(content)
    return partial(extract, path, path.parent / "out", LIMIT)


def _tars() -> Iterator[tuple[str, bytes]]:
    for path in PATHS:
        yield f"the path {path}", tar_of({"fine": b"1", path: b"2"})
    for name, kind in KINDS.items():
        link = tarfile.TarInfo("odd")
        link.type, link.linkname = kind, "../victim"
        through = tarfile.TarInfo("odd/file")
        yield name, _tar_with(link, through)
    yield "a file through a link to a folder", _tar_with(_link("odd", ".."), _file("odd/victim"))
    yield (
        "a bomb",
        _packed(tar_of({"fine": b"1"})[:1024] + _header("big", tarfile.REGTYPE, BOMB)),
    )
    yield "a name that is a bomb", _packed(_header("././@LongLink", tarfile.GNUTYPE_LONGNAME, BOMB))
    yield "a header that is a bomb", _packed(_header("pax", tarfile.XHDTYPE, BOMB))
    yield "a thousand headers for one", _header("pax", tarfile.XHDTYPE, 0) * 2000
    yield "the same path twice", _tar_with(_file("a"), _file("a"))
    yield "its end cut off", seeds.tar()[1][:-30]


def _zips() -> Iterator[tuple[str, bytes]]:
    for path in PATHS:
        yield f"the path {path}", zip_of({"fine": b"1", path: b"2"})
    for name, mode in (("a symbolic link", 0o120777), ("a device", 0o020666)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            info = zipfile.ZipInfo("odd")
            info.external_attr = mode << 16
            archive.writestr(info, "../victim")
        yield name, out.getvalue()
    bomb = zip_of({"big": bytes(BOMB)})
    yield "a bomb", bomb
    short = (10).to_bytes(4, "little")
    yield "a bomb that lies about its size", bomb.replace(BOMB.to_bytes(4, "little"), short)
    yield "LZMA, whose memory the file decides", zip_of({"a": b"1"}, zipfile.ZIP_LZMA)


def _tar_with(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return out.getvalue()


def _link(name: str, to: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, to
    return link


def _file(name: str) -> tarfile.TarInfo:
    file = tarfile.TarInfo(name)
    file.size = 3
    return file


def _header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _packed(start: bytes) -> bytes:
    """In gzip, with zeros after it for a member of that many."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(start)
        for _ in range(BOMB >> 20):
            file.write(bytes(1 << 20))
    return out.getvalue()
