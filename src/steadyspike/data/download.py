"""One file over TLS: resumed where it stopped, checked, and only then given its name."""

import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from steadyspike.console import notify
from steadyspike.data.manifest import FileSum, check_sum, file_sum
from steadyspike.errors import UserError
from steadyspike.files import is_disk_full, replace_durably

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 16
SLACK = 1 << 20  # bytes that a file may exceed its expected size before the transfer is stopped


def download(
    url: str,
    path: Path,
    expected: FileSum,
    *,
    measure: Callable[[Path], FileSum] = file_sum,
    allow_loopback: bool = False,
) -> None:
    """Downloads ``url`` to ``path``, which appears only when its sum is the expected one.

    ``measure`` says what the sum is of: the file (`file_sum`), or what a compressed file holds,
    where the same content travels in different wrappers. A transfer that breaks off leaves
    ``path`` with ``.part`` appended, and the next call goes on from there by HTTP Range; a file
    whose sum is wrong is removed. ``allow_loopback`` admits plain http to 127.0.0.1.

    Raises UserError for a URL that is not https, also after a redirect; for a network, server
    or disk failure; and for a wrong sum.
    """
    _check_url(url, allow_loopback)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, expected.size + SLACK, allow_loopback)
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"{part}: no space left on device; run again to resume") from error
        raise UserError(f"{part}: cannot be written: {error.strerror or error}") from error
    try:
        found = measure(part)
        check_sum(part, found, expected, f"expected the file from {url}; it was removed")
    except UserError:
        part.unlink(missing_ok=True)
        raise
    replace_durably(part, path)


def _check_url(url: str, allow_loopback: bool) -> None:
    parts = urlsplit(url)
    loopback = allow_loopback and parts.scheme == "http" and parts.hostname == "127.0.0.1"
    if not (loopback or (parts.scheme == "https" and parts.hostname)):
        raise UserError(f"{url}: expected an https URL")


class _SameRules(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the first request could have gone."""

    def __init__(self, allow_loopback: bool) -> None:
        self.allow_loopback = allow_loopback

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_url(newurl, self.allow_loopback)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _transfer(url: str, part: Path, limit: int, allow_loopback: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        opener = urllib.request.build_opener(_SameRules(allow_loopback))
        response: HTTPResponse = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies past what is here
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            _transfer(url, part, limit, allow_loopback)
            return
        raise UserError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: no connection ({reason}); run again later") from error
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise UserError(f"{url}: the server resumed at the wrong byte; run again to start over")
        start = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        with part.open("ab" if resumed else "wb") as file, _progress(url, start, total) as advance:
            done = start
            for piece in _pieces(response, url):
                done += len(piece)
                if done > limit:
                    break
                file.write(piece)
                advance(len(piece))
    if done > limit:
        part.unlink()
        raise UserError(f"{url}: larger than the {limit - SLACK} bytes expected; it was removed")
    if total is not None and done < total:
        raise UserError(f"{url}: broke off after {done} of {total} bytes; run again to resume")


def _pieces(response: HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            piece = response.read(CHUNK)
        except (http.client.HTTPException, OSError) as error:
            raise UserError(f"{url}: broke off ({error}); run again to resume") from error
        if not piece:
            return
        yield piece


@contextmanager
def _progress(url: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar where standard error is a terminal, otherwise one plain line."""
    if not sys.stderr.isatty():
        amount = "" if total is None else f" ({total - start:,} bytes)"
        notify(f"downloading {url}{amount}")
        yield lambda _: None
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(url.rsplit("/", 1)[-1], total=total, completed=start)
        yield lambda count: bar.advance(task, count)
