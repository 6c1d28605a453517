"""The container's shell scripts, run with stand-ins for what a machine has or lacks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ENGINE = REPOSITORY / "docker/engine.sh"
ENTRYPOINT = REPOSITORY / "docker/entrypoint.sh"
TRAIN = REPOSITORY / "tools/train.sh"

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that comes first in PATH; what `pretend` writes there is found instead."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def pretend(machine: Path, command: str, script: str) -> None:
    path = machine / command
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(
    machine: Path, *command: str | Path, only: bool = False, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    path = str(machine) if only else f"{machine}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": path, "HOME": str(machine), "CI": "true"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_engine_that_runs_is_used_as_it_is(machine: Path) -> None:
    pretend(machine, "docker", f'echo "$*" >> {machine}/asked; echo 99.1')
    for forbidden in ("apt-get", "dockerd", "setsid"):
        pretend(machine, forbidden, f"touch {machine}/touched")
    result = run(machine, "bash", ENGINE)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "engine: Docker 99.1, Compose 99.1\n"
    assert not (machine / "touched").exists()


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ({"uname": "echo Darwin"}, "this is no Linux"),
        ({"uname": "echo Linux", "id": "echo 1000"}, "only root can"),
        ({"uname": "echo Linux", "id": "echo 0"}, "there is no apt-get"),
    ],
)
def test_without_an_engine_one_line_tells_why_none_can_be_had(
    machine: Path, commands: dict[str, str], words: str
) -> None:
    pretend(machine, "docker", "exit 1")
    for command, script in commands.items():
        pretend(machine, command, script)
    result = run(machine, shutil.which("bash") or "bash", ENGINE, only=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        f"engine: no Docker engine answers here, and none can be installed: {words}"
    )


def test_an_engine_without_compose_is_told(machine: Path) -> None:
    pretend(machine, "docker", '[ "$1" = info ]')
    pretend(machine, "uname", "echo Linux")
    pretend(machine, "id", "echo 1000")
    result = run(machine, shutil.which("bash") or "bash", ENGINE, only=True)
    assert result.returncode == 2
    assert "Docker's plugins compose and buildx are missing" in result.stderr


def test_the_container_runs_its_command_whatever_the_doctor_says(
    machine: Path, tmp_path: Path
) -> None:
    pretend(machine, "steadyspike", 'echo "doctor: $*"; exit 1')
    result = run(machine, ENTRYPOINT, "sh", "-c", 'echo "$0 ran"; exit 7', "it", cwd=tmp_path)
    assert result.returncode == 7
    assert result.stdout == "doctor: doctor --brief\nit ran\n"
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}  # the probe is gone


@pytest.mark.parametrize(
    ("runs_as", "words"),
    [
        ("owner", "this checkout is read-only"),
        ("stranger", "this checkout belongs to user 4321, and user 1234 runs here"),
    ],
)
def test_a_checkout_that_may_not_be_written_is_told_before_anything_runs(
    machine: Path, tmp_path: Path, runs_as: str, words: str
) -> None:
    pretend(machine, "steadyspike", "exit 0")
    pretend(machine, "mktemp", "exit 1")  # as it does there; root would write everywhere
    pretend(machine, "stat", 'case "$2" in %u) echo 4321 ;; %g) echo 8765 ;; esac')
    pretend(machine, "id", f"echo {4321 if runs_as == 'owner' else 1234}")
    result = run(machine, ENTRYPOINT, "touch", "ran", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"container: {words}")
    assert not (tmp_path / "ran").exists()
    if runs_as == "stranger":  # the way out that it names is one that a shell can take
        fix = line.split("by: ")[1]
        subprocess.run(["sh", "-c", fix], cwd=tmp_path, check=True)
        assert (tmp_path / ".env").read_text() == "UID=4321\nGID=8765\n"


def test_training_an_unknown_pipeline_is_told_before_anything_runs(
    machine: Path, tmp_path: Path
) -> None:
    pretend(machine, "dvc", f"touch {machine}/touched")
    result = run(machine, TRAIN, "pipelines/mnist", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        "train: PIPELINE=pipelines/mnist: expected a folder with a dvc.yaml, "
        "for example pipelines/cifar10\n"
    )
    assert not (machine / "touched").exists()
