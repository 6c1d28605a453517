"""`tools/setup.sh` says why no virtual environment can be made; nothing is installed here."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import REPOSITORY, needs_mounting

SETUP = REPOSITORY / "tools/setup.sh"
#: A Python that cannot make a virtual environment.
BROKEN = 'case "$*" in -m*) echo "No space left" >&2; exit 1 ;; esac'


def refused(folder: Path, python: str, *wrapper: str, into: str = ".venv") -> str:
    done = subprocess.run(
        [*wrapper, SETUP, python, into, "requirements.lock"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: ")
    return line


def stand_in(folder: Path, script: str) -> str:
    """A Python of which only what `script` does is known."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_old_python(tmp_path: Path) -> None:
    assert "expected Python 3.11 or newer" in refused(tmp_path, stand_in(tmp_path, "exit 1"))


def test_a_python_without_venv(tmp_path: Path) -> None:
    lacking = 'case "$*" in *version*) ;; *) echo "ensurepip is not available" >&2; exit 1 ;; esac'
    assert "install python3-venv" in refused(tmp_path, stand_in(tmp_path, lacking))
    line = refused(tmp_path, stand_in(tmp_path, BROKEN))
    assert line.endswith("virtual environment: No space left")


def test_a_folder_below_one_that_is_not_there_yet(tmp_path: Path) -> None:
    """As build/audit in a fresh clone: it is made, and only then this Python fails."""
    line = refused(tmp_path, stand_in(tmp_path, BROKEN), into="build/audit")
    assert "cannot make a virtual environment" in line
    assert (tmp_path / "build/audit").is_dir()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """On a read-only disk: root may write everywhere else."""
    line = mounted(tmp_path, 'mount -t tmpfs -o ro t "$1" && cd "$1" && shift && exec "$@"')
    assert "cannot write" in line
    assert "python3-venv" not in line


def test_a_disk_mounted_noexec(tmp_path: Path) -> None:
    line = mounted(tmp_path, 'mount -t tmpfs -o noexec t "$1" && cd "$1" && shift && exec "$@"')
    assert "mounted noexec" in line


def mounted(folder: Path, mount: str) -> str:
    """The refusal in a folder on a file system of its own."""
    needs_mounting()
    place = folder / "mounted"
    place.mkdir()
    return refused(folder, sys.executable, "unshare", "-m", "sh", "-c", mount, "sh", str(place))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_installation_too(tmp_path: Path, number: signal.Signals) -> None:
    """Else it would write into the environment that the same command makes anew."""
    install = tmp_path / "install"
    install.write_text('#!/bin/sh\n[ "$2" = pip ] || exit 0\necho $$ > pid\nexec sleep 60\n')
    install.chmod(0o755)
    make = f'case "$*" in *venv*) mkdir .venv/bin; cp {install} .venv/bin/python ;; esac'
    command = [SETUP, stand_in(tmp_path, make), ".venv", "requirements.lock"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        pid = tmp_path / "pid"
        while not pid.exists() or not pid.read_text():
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(10) == (130 if number == signal.SIGINT else 143)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid.read_text().strip()}/cwd").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
