import errno
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from steadyspike.data.download import download, temporary_folder, unpack
from steadyspike.data.manifest import bytes_sum, check_sum, file_sum
from steadyspike.errors import UserError

from .formats import tar_of

CONTENT = bytes(range(256)) * 2000


def check(path: Path) -> None:
    check_sum(path, file_sum(path), bytes_sum(CONTENT), "run again")


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the path of the URL says how."""

    server: "Server"

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        behaviour = self.path.strip("/")
        if behaviour == "missing":
            self.send_error(404)
            return
        start = 0
        if wanted and behaviour != "no-ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        self.wfile.write(body[: len(body) // 2] if behaviour == "breaks" else body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def url(self, behaviour: str = "file") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{behaviour}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_downloads_and_checks(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server.url(), tmp_path / "a" / "f", check)
    assert (tmp_path / "a" / "f").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f"]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"downloading {server.url()} (512,000 bytes)"]
    assert captured.out == ""


def test_a_terminal_shows_a_bar(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    download(server.url(), tmp_path / "f", check)
    assert "512.0/512.0 kB" in capsys.readouterr().err


def test_an_interrupted_download_resumes(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(UserError, match="broke off after 256000 of 512000 bytes; run again"):
        download(server.url("breaks"), path, check)
    assert not path.exists()
    download(server.url(), path, check)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=256000-"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("have", "behaviour"), [(100, "no-ranges"), (len(CONTENT), "file")])
def test_a_part_that_the_server_does_not_continue(
    server: Server, tmp_path: Path, have: int, behaviour: str
) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT[:have])
    download(server.url(behaviour), tmp_path / "f", check)
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"wrong start", CONTENT + b"more"])
def test_a_wrong_checksum_leaves_only_the_old_file(
    server: Server, tmp_path: Path, part: bytes
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f.part").write_bytes(part)
    with pytest.raises(UserError, match=r"f\.part: altered; expected .* was removed$"):
        download(server.url(), tmp_path / "f", check)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_failures_name_the_url(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/missing: the server answered 404 Not Found"):
        download(server.url("missing"), tmp_path / "f", check)
    with pytest.raises(UserError, match="no connection"):
        download("http://127.0.0.1:1/f", tmp_path / "f", check)  # nothing listens there
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/f\.part: cannot be written"):
        download(server.url(), tmp_path / "file" / "f", check)


def test_a_full_disk_keeps_the_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"f\.part: no space left on device; run again to resume"):
        download(server.url(), tmp_path / "f", check)


def test_an_archive_is_unpacked_to_a_folder_that_goes_away(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / ".unpacked"
    archive.write_bytes(tar_of({"set/a.bin": CONTENT, "set/deep/b": b"", "c": b"see"}))
    folder.mkdir()
    (folder / "half").write_bytes(b"left by a killed process")
    with temporary_folder(folder) as temporary:
        unpack(archive, temporary)
        files = {path.relative_to(folder) for path in temporary.rglob("*") if path.is_file()}
        assert files == {Path("set/a.bin"), Path("set/deep/b"), Path("c")}
        assert (temporary / "set" / "a.bin").read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [archive]


def test_errors_remove_the_temporary_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"x: no space left on device; it was removed"),
        temporary_folder(tmp_path / "x"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyError), temporary_folder(tmp_path / "x"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
