"""`tools/data.sh` restores the embedded images, or says in one line why not and what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import copy_dvc_project

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.skipif(not (BIN / "dvc").exists(), reason="DVC is not installed")


def run(root: Path, *command: str, path: str = f"{BIN}:{os.environ['PATH']}") -> tuple[int, str]:
    """Exit status and standard error; nothing is printed on standard output."""
    more = {"PATH": path, "HOME": str(root), "DVC_SITE_CACHE_DIR": str(root / ".site")}
    done = subprocess.run(
        command or ("tools/data.sh",), cwd=root, env=more, capture_output=True, text=True
    )
    assert done.stdout == "" or command
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with git, and with the images; read-only."""
    root = tmp_path_factory.mktemp("restored")
    copy_dvc_project(root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    assert run(root) == (0, "")
    assert not (root / ".dvc/config.local").exists()
    return root


@pytest.mark.slow
def test_without_git(tmp_path: Path) -> None:
    copy_dvc_project(tmp_path)
    status, said = run(tmp_path)
    assert (status, said.count("\n")) == (0, 1)
    assert said.startswith("data: no git checkout here; ")
    assert (tmp_path / "data/manifest.json").is_file()
    assert run(tmp_path) == (0, "")
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: cp data/LICENSE b, deps: [data]}}")
    for command in (["repro"], ["status"], ["--cd", "pipelines", "status"]):
        assert run(tmp_path, "dvc", *command) == (0, ""), command
    assert (tmp_path / "b").is_file()


@pytest.mark.slow
def test_stray_files_of_the_system_change_nothing(restored: Path, tmp_path: Path) -> None:
    shutil.copytree(restored, tmp_path, dirs_exist_ok=True)
    for name in (".DS_Store", "._manifest.json", "Thumbs.db", "desktop.ini", ".nfs00", "LICENSE~"):
        (tmp_path / "data" / name).write_bytes(b"\0\0\0\1Bud1")
    assert run(tmp_path) == (0, "")
    before = (tmp_path / "data.dvc").read_bytes()
    assert run(tmp_path, "dvc", "commit", "--force", "data.dvc") == (0, "")
    assert (tmp_path / "data.dvc").read_bytes() == before


def damage_the_remote(root: Path) -> None:
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc/cache")
    shutil.rmtree(root / ".dvc/embedded/files/md5/85")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: (root / "data/notes.txt").write_text("a"),
            ("unsaved files", "/data/notes.txt", "dvc pull --force"),
        ),
        (
            lambda root: (root / "data/LICENSE").write_text("a"),
            ("unsaved files", "/data/LICENSE", "dvc pull --force"),
        ),
        (damage_the_remote, ("failed to pull", "steadyspike doctor")),
        (lambda root: (root / ".dvc/config").write_text("[core"), ("config", "doctor")),
        (lambda root: (root / "data.dvc").write_text("outs: 1"), ("data.dvc", "doctor")),
    ],
    ids=["stray", "edited", "no remote", "config", "data.dvc"],
)
def test_what_dvc_refuses_is_said_in_one_line(
    restored: Path, tmp_path: Path, change: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    shutil.copytree(restored, tmp_path, dirs_exist_ok=True)
    change(tmp_path)
    status, said = run(tmp_path)
    assert status == 2
    assert said.count("\n") == 1, said
    assert said.startswith("data: dvc pull data.dvc: ")
    for word in words:
        assert word in said


def test_without_dvc(tmp_path: Path) -> None:
    copy_dvc_project(tmp_path)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for command in ("sh", "dirname"):
        (bin_ / command).symlink_to(shutil.which(command) or "")
    status, said = run(tmp_path, path=str(bin_))
    assert (status, said.count("\n")) == (2, 1)
    assert "make setup" in said
