import errno
import sys
from pathlib import Path

import pytest

from steadyspike.data.download import download, temporary_folder, unpack
from steadyspike.data.manifest import bytes_sum, check_sum, file_sum
from steadyspike.errors import UserError
from tiny import contents

from .conftest import Site
from .formats import tar_of

CONTENT = bytes(range(256)) * 2000


def check(path: Path) -> None:
    check_sum(path, file_sum(path), bytes_sum(CONTENT), "run again")


@pytest.fixture
def path(site: Site, tmp_path: Path) -> Path:
    """Where to put the file ``f`` that the site offers."""
    (site.folder / "f").write_bytes(CONTENT)
    return tmp_path / "got" / "f"


@pytest.mark.parametrize("terminal", [False, True])
def test_downloads_and_checks(
    terminal: bool,
    site: Site,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "100")
    download(site.url + "f", path, check)
    assert contents(path.parent) == {"f": CONTENT}
    captured = capsys.readouterr()
    if terminal:
        assert "512.0/512.0 kB" in captured.err
    else:
        assert captured.err.splitlines() == [f"downloading {site.url}f (512,000 bytes)"]
    assert captured.out == ""


def test_an_interrupted_download_resumes(site: Site, path: Path) -> None:
    with pytest.raises(UserError, match="broke off after 256000 of 512000 bytes; run again"):
        download(site.url + "breaks/f", path, check)
    assert not path.exists()
    download(site.url + "f", path, check)
    assert site.ranges == [None, "bytes=256000-"]
    assert contents(path.parent) == {"f": CONTENT}


def part(path: Path, content: bytes) -> None:
    """Left by an earlier download."""
    path.parent.mkdir()
    (path.parent / "f.part").write_bytes(content)


@pytest.mark.parametrize(("have", "how"), [(100, "no-ranges/"), (len(CONTENT), "")])
def test_a_part_that_the_server_does_not_continue(
    site: Site, path: Path, have: int, how: str
) -> None:
    part(path, CONTENT[:have])
    download(site.url + how + "f", path, check)
    assert contents(path.parent) == {"f": CONTENT}


@pytest.mark.parametrize("content", [b"wrong start", CONTENT + b"more"])
def test_a_wrong_checksum_leaves_only_the_old_file(site: Site, path: Path, content: bytes) -> None:
    part(path, content)
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"f\.part: altered; expected .* was removed$"):
        download(site.url + "f", path, check)
    assert contents(path.parent) == {"f": b"old"}


def test_failures_name_the_url(site: Site, path: Path) -> None:
    with pytest.raises(UserError, match=r"/missing: the server answered 404 Not Found"):
        download(site.url + "missing", path, check)
    with pytest.raises(UserError, match="no connection"):
        download("http://127.0.0.1:1/f", path, check)  # nothing listens there
    assert not path.parent.exists()  # no folder is left of a refused download
    path.parent.mkdir()
    path.write_text("")
    with pytest.raises(UserError, match=r"f/g\.part: cannot be written"):
        download(site.url + "f", path / "g", check)


def test_a_full_disk_keeps_the_part(site: Site, path: Path) -> None:
    path.parent.mkdir()
    (path.parent / "f.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"f\.part: no space left on device; run again to resume"):
        download(site.url + "f", path, check)


def test_an_archive_is_unpacked_to_a_folder_that_goes_away(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / ".unpacked"
    archive.write_bytes(tar_of({"set/a.bin": CONTENT, "set/deep/b": b"", "c": b"see"}))
    folder.mkdir()
    (folder / "half").write_bytes(b"left by a killed process")
    with temporary_folder(folder) as temporary:
        unpack(archive, temporary)
        assert contents(temporary) == {"set/a.bin": CONTENT, "set/deep/b": b"", "c": b"see"}
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
