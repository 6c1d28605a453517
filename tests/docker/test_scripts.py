"""The shell scripts, with stand-ins for the commands that a machine has or lacks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ENGINE = REPOSITORY / "docker/engine.sh"
ENTRYPOINT = REPOSITORY / "docker/entrypoint.sh"
SCRIPTS = [*REPOSITORY.glob("docker/*.sh"), *REPOSITORY.glob("tools/*.sh")]

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")


def stand_in(folder: Path, command: str, script: str) -> None:
    """A command that is found before the machine's own."""
    path = folder / "bin" / command
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(
    folder: Path, *command: str | Path, only: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run in ``folder`` with its stand-ins; ``only``: and no other commands."""
    bin_ = str(folder / "bin")
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": bin_ if only else f"{bin_}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_syntax_of_every_script(script: Path) -> None:
    shell = "sh" if script.read_text().startswith("#!/bin/sh") else "bash"
    assert subprocess.run([shell, "-n", script]).returncode == 0


def test_a_running_engine_is_used_as_it_is(tmp_path: Path) -> None:
    stand_in(tmp_path, "docker", "echo 99.1")
    for forbidden in ("apt-get", "dockerd", "setsid"):
        stand_in(tmp_path, forbidden, f"touch {tmp_path}/touched")
    result = run(tmp_path, "bash", ENGINE)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "engine: Docker 99.1, Compose 99.1\n"
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ({"uname": "echo Darwin"}, "no Docker engine answers, and this is not Linux"),
        ({"id": "echo 1000"}, "no Docker engine answers, and only root can install it"),
        ({"id": "echo 0"}, "no Docker engine answers, and there is no apt-get to install it with"),
        (
            {"docker": '[ "$1" = info ]', "id": "echo 1000"},
            "Docker's plugins compose and buildx are missing, and only root can install it",
        ),
    ],
)
def test_an_engine_that_cannot_be_installed(
    tmp_path: Path, commands: dict[str, str], words: str
) -> None:
    for command, script in ({"docker": "exit 1", "uname": "echo Linux"} | commands).items():
        stand_in(tmp_path, command, script)
    result = run(tmp_path, shutil.which("bash") or "bash", ENGINE, only=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"engine: {words}; install Docker Engine with its plugins")


def test_the_container_runs_its_command_whatever_doctor_says(tmp_path: Path) -> None:
    stand_in(tmp_path, "steadyspike", 'echo "doctor: $*"; exit 1')
    result = run(tmp_path, ENTRYPOINT, "sh", "-c", 'echo "$0 ran"; exit 7', "it")
    assert result.returncode == 7
    assert result.stdout == "doctor: doctor --brief\nit ran\n"
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}  # the file written to try is gone


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("4321", "this checkout is read-only"),
        ("1234", "this checkout belongs to user 4321, but user 1234 runs here"),
    ],
)
def test_a_checkout_that_cannot_be_written_is_refused(
    tmp_path: Path, user: str, words: str
) -> None:
    stand_in(tmp_path, "steadyspike", "exit 0")
    stand_in(tmp_path, "mktemp", "exit 1")  # as it does there; root could write anyway
    stand_in(tmp_path, "stat", 'case "$2" in %u) echo 4321 ;; %g) echo 8765 ;; esac')
    stand_in(tmp_path, "id", f"echo {user}")
    result = run(tmp_path, ENTRYPOINT, "touch", "ran")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"container: {words}")
    assert not (tmp_path / "ran").exists()
    if user != "4321":  # the remedy that it names works in a shell
        subprocess.run(["sh", "-c", line.split("run outside: ")[1]], cwd=tmp_path, check=True)
        assert (tmp_path / ".env").read_text() == "UID=4321\nGID=8765\n"


def test_an_unknown_pipeline_is_refused_before_anything_runs(tmp_path: Path) -> None:
    stand_in(tmp_path, "dvc", f"touch {tmp_path}/touched")
    result = run(tmp_path, REPOSITORY / "tools/train.sh", "pipelines/mnist")
    assert result.returncode == 2
    assert result.stderr == (
        "train: PIPELINE=pipelines/mnist: expected a folder with a params.yaml, "
        "for example pipelines/cifar10\n"
    )
    assert not (tmp_path / "touched").exists()
