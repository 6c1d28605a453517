import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steadyspike.errors import UserError
from steadyspike.files import atomic_path, is_disk_full, read_at_most, write_atomically


def test_writes_bytes_and_text_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    write_atomically(path, b"\0\r\n")
    assert path.read_bytes() == b"\0\r\n"
    write_atomically(path, "ö\n")
    assert path.read_bytes() == "ö\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_new_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "atomic", "")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "not found", "other"), KeyboardInterrupt()]
)
def test_a_body_that_raises_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_device_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(UserError, match=r"f: no space left on device"), atomic_path(path):
        Path("/dev/full").write_bytes(b"x")  # the kernel's own ENOSPC
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EDQUOT, "f: no space left on device"), (errno.EIO, "f: cannot be written: ")],
)
def test_an_error_at_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=message):
        write_atomically(tmp_path / "f", "new")
    assert list(tmp_path.iterdir()) == []


def test_libraries_that_wrap_the_error_are_understood() -> None:
    assert is_disk_full(RuntimeError("IoError(No space left on device (os error 28))"))
    assert not is_disk_full(PermissionError(errno.EACCES, "Permission denied"))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/f: cannot be written"):
        write_atomically(tmp_path / "file" / "f", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: cannot be written"):
        write_atomically(tmp_path / "folder", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_write_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from steadyspike.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    killed = subprocess.run([sys.executable, "-c", program, str(path)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_at_most(path, 5) == b"12345"
    with pytest.raises(UserError, match="f: too large; expected at most 4 bytes"):
        read_at_most(path, 4)
    with pytest.raises(FileNotFoundError):
        read_at_most(tmp_path / "none", 4)
    (tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="endless: too large"):
        read_at_most(tmp_path / "endless", 1 << 20)
