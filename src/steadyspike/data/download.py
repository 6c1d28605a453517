"""Downloads that resume after an interruption, and temporary folders for unpacking."""

import http.client
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from steadyspike.console import notify
from steadyspike.errors import UserError
from steadyspike.files import is_disk_full, replace_durably

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 16


def download(url: str, path: Path, check: Callable[[Path], None]) -> None:
    """Downloads ``url`` to ``path``, which appears only after ``check`` has accepted the file.

    An interrupted transfer leaves ``path`` with ``.part`` appended; the next call resumes it with
    an HTTP Range request. A file for which ``check`` raises UserError is removed.

    Raises UserError for a network, server or disk failure, and what ``check`` raises.
    """
    part = path.with_name(path.name + ".part")
    try:
        with _folder(path.parent):
            _transfer(url, part)
            try:
                check(part)
            except UserError as error:
                part.unlink()
                raise UserError(f"{error}; the download of {url} was removed") from error
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"{part}: no space left on device; run again to resume") from error
        raise UserError(f"{part}: cannot be written: {error.strerror or error}") from error
    replace_durably(part, path)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Makes a folder; if the body raises, what is empty of it is removed again."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def _transfer(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the server has no more bytes than `part`
            return
        raise UserError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: no connection ({reason}); run again later") from error
    resumed = response.status == 206  # else the server sends the whole file
    done = have if resumed else 0
    length = response.headers.get("Content-Length")
    total = None if length is None else done + int(length)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    quiet = not sys.stderr.isatty()
    if quiet:
        notify(f"downloading {url}" + ("" if length is None else f" ({int(length):,} bytes)"))
    bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
    with response, part.open("ab" if resumed else "wb") as file, bar:
        task = bar.add_task(url.rsplit("/", 1)[-1], total=total, completed=done)
        while piece := _read(response, url):
            file.write(piece)
            done += len(piece)
            bar.update(task, completed=done)
    if total is not None and done < total:
        raise UserError(f"{url}: broke off after {done} of {total} bytes; run again to resume")


def _read(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise UserError(f"{url}: broke off ({error}); run again to resume") from error


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Makes a folder that is removed at the end; one left by a killed process is replaced.

    Raises UserError if the disk is full.
    """
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(parents=True)
        yield path
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"{path}: no space left on device; it was removed") from error
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar file, whose checksum the caller has verified."""
    from torchvision.datasets.utils import extract_archive  # takes seconds to import

    extract_archive(archive, folder)
