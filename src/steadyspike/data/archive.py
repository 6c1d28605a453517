"""Archives: checked by the MD5 that their publishers give, and extracted without trust."""

import hashlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from steadyspike.data.manifest import FileSum
from steadyspike.data.unpacked import LARGEST_READ, Unpacked
from steadyspike.errors import UserError
from steadyspike.files import is_disk_full

CHUNK = LARGEST_READ
LIMIT = 64 << 30  # bytes, and
MEMBERS = 1 << 20  # files and folders: more than any data set's archive holds
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that Python lacks
    ValueError,  # sizes that are no numbers
    RecursionError,  # a header for a header for a header
)


@dataclass(frozen=True)
class ArchiveSum:
    """A file's published MD5, which vouches against accidents alone, beside its SHA-256."""

    md5: str
    content: FileSum


def check_md5(path: Path, md5: str, remedy: str) -> ArchiveSum:
    """Both sums of a file. Raises UserError with the remedy for one whose MD5 is another."""
    old, new, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                old.update(piece)
                new.update(piece)
                size += len(piece)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if old.hexdigest() != md5:
        raise UserError(
            f"{path}: truncated or altered; expected MD5 {md5}, found {old.hexdigest()}; {remedy}"
        )
    return ArchiveSum(md5, FileSum(new.hexdigest(), size))


def extract(archive: Path, folder: Path, limit: int = LIMIT) -> None:
    """Puts what a zip or tar file holds into ``folder``, over files of the same names.

    Every file appears whole, and none before all of the archive was read. Errors as `extracted`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with extracted(archive, limit, folder) as temporary:
        for path in sorted(temporary.rglob("*")):
            target = folder / path.relative_to(temporary)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.replace(target)


@contextmanager
def extracted(archive: Path, limit: int = LIMIT, parent: Path | None = None) -> Iterator[Path]:
    """Yields a folder in ``parent``, or beside a zip or tar file, with what the file holds.

    Only plain files and folders come out, only below that folder, and at most ``limit`` bytes.
    The folder is removed at the end; what a killed process left behind is removed first.

    Raises UserError for a link, a device, a path that leads elsewhere or comes twice, too many
    bytes, a truncated or altered archive and a full disk.
    """
    folder = (parent or archive.parent) / f".{archive.name}.extracted"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        _extract(archive, folder, limit)
        yield folder
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"{folder}: no space left on device; it was removed") from error
        if str(error.filename).startswith(str(folder)):
            raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def member_names(archive: Path) -> list[str]:
    """The paths of the files in an archive, none of them extracted; errors as `extracted`."""
    return [member.name for member in _members(archive) if member.is_file]


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def _extract(archive: Path, folder: Path, limit: int) -> None:
    left = limit
    for count, member in enumerate(_members(archive, limit)):
        where = f"{archive}: {member.name!r}"
        path = PurePosixPath(member.name)
        if (
            not path.name
            or path.is_absolute()
            or ".." in path.parts
            or set(member.name) & {"\\", "\0"}
        ):
            raise UserError(f"{where}: expected a path inside the archive's folder")
        if not (member.is_file or member.is_folder):
            raise UserError(f"{where}: expected a plain file or a folder, found a link or device")
        left -= member.size
        if left < 0 or count >= MEMBERS:
            raise UserError(f"{archive}: expected at most {limit} bytes in {MEMBERS} members")
        target = folder.joinpath(*path.parts)
        try:
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if member.is_file:
                with target.open("xb") as file:
                    _copy(member, file, archive)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(f"{where}: expected each path once") from error


def _copy(member: _Member, file: IO[bytes], archive: Path) -> None:
    written = 0
    for piece in _pieces(member, archive):
        written += len(piece)
        if written > member.size:
            break
        file.write(piece)
    if written != member.size:
        raise UserError(
            f"{archive}: truncated or altered; expected {member.size} bytes of {member.name!r}"
        )


def _pieces(member: _Member, archive: Path) -> Iterator[bytes]:
    """A file's content. Errors in reading are the archive's, unlike those in writing."""
    try:
        source = member.open()
        assert source is not None  # a plain file has content
        with source:
            while piece := source.read(CHUNK):
                yield piece
    except (*BROKEN, OSError) as error:
        raise UserError(f"{archive}: truncated or altered ({error})") from error


def _members(archive: Path, limit: int = LIMIT) -> Iterator[_Member]:
    """What an archive lists, to be opened while it is iterated over."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as opened:
                yield from (_zip_member(opened, info, archive) for info in opened.infolist())
        else:
            with (
                Unpacked(archive, limit) as unpacked,
                tarfile.open(fileobj=unpacked, mode="r:") as opened_tar,
            ):
                yield from (_tar_member(opened_tar, info) for info in opened_tar)
                # Up to the end, where compression keeps the sum of all.
                while unpacked.read(CHUNK):
                    pass
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{archive}: truncated or altered ({reason})") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be read: {error.strerror or error}") from error


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path) -> _Member:
    if info.flag_bits & 1:
        raise UserError(f"{archive}: {info.filename!r}: expected no encryption")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{archive}: {info.filename!r}: expected it stored or deflated")
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    is_folder = info.filename.endswith("/")  # info.is_dir() looks for a last letter in any case
    folder = is_folder and kind in (0, stat.S_IFDIR)
    plain = not is_folder and kind in (0, stat.S_IFREG)
    return _Member(info.filename, info.file_size, plain, folder, lambda: opened.open(info))


def _tar_member(opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    def content() -> IO[bytes] | None:
        return opened.extractfile(info)

    return _Member(info.name, max(info.size, 0), info.isreg(), info.isdir(), content)
