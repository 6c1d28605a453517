"""Writes files whole or not at all: a temporary file beside the target, fsync, rename.

Reads them with errors that name the file.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steadyspike.errors import UserError

#: Names, in lower case, of what Windows, and archives of macOS, leave. The others begin with a dot.
STRAY_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")


def is_stray(name: str) -> bool:
    """Whether a file of this name is an operating system's or editor's: .DS_Store, ._*, a backup.

    `.dvcignore` names the same ones.
    """
    return name.startswith(".") or name.endswith("~") or name.lower() in STRAY_NAMES


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, also one of a library, reports a full disk or quota."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error)  # safetensors raises its own class


def replace_durably(temporary: Path, path: Path) -> None:
    """Rename a finished file to ``path``; contents and name are on the disk afterwards."""
    with temporary.open("rb") as finished:
        os.fsync(finished.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename is an entry of the folder
    finally:
        os.close(folder)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` to write to; at the end it becomes ``path``.

    If the body raises, ``path`` is unchanged and the temporary removed. The temporary's name is
    fixed, so the next write replaces what a killed process left; a file may have one writer only.
    A missing folder is created.

    Raises UserError if the disk is full or the place cannot be written. ``torch.save`` hides the
    reason of a failed write: serialize to bytes instead.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        yield temporary
        replace_durably(temporary, path)
    except Exception as error:
        if is_disk_full(error):
            raise UserError(f"{path}: no space left on device; the file was not written") from error
        own = (str(path), str(temporary), str(path.parent))
        # A failed write, unlike a failed open, names no file.
        if isinstance(error, OSError) and (error.filename is None or str(error.filename) in own):
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Raises an OSError of the body as a UserError: ``path`` cannot be read."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_at_most(path: Path, limit: int) -> bytes:
    """The contents of a file of at most ``limit`` bytes.

    Raises UserError for a larger one, without reading the rest; OSError as ``open`` does.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path}: too large; expected at most {limit:,} bytes")
    return content


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file by `atomic_path`; text as UTF-8 with its line ends unchanged."""
    raw = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)


def found_in(folder: Path, most: int = 6) -> str:
    """What lies in a folder, in words: the first of its names."""
    names = sorted(entry.name for entry in folder.iterdir() if not is_stray(entry.name))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"found {', '.join(names[:most]) or 'nothing'}{more}"
