"""The files that describe the image and its services."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


def services(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((REPOSITORY / name).read_text())["services"])


COMPOSE = services("compose.yaml")


def test_only_train_starts_by_default() -> None:
    assert [name for name, service in COMPOSE.items() if "profiles" not in service] == ["train"]


@pytest.mark.parametrize("name", COMPOSE)
def test_a_service_holds_no_privilege_and_has_time_for_a_checkpoint(name: str) -> None:
    service = COMPOSE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "${UID:-1000}:${GID:-1000}"
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["init"] is True
    assert service["stop_grace_period"] == "3m"
    if name in ("worker", "machine"):  # a second signal would interrupt its checkpoint
        assert service["environment"]["TINI_KILL_PROCESS_GROUP"] == 0
        assert service["stop_signal"] == "SIGTERM"
        assert service["restart"].startswith("on-failure:")


def test_an_override_changes_every_service_that_computes() -> None:
    for override in ("docker/gpu.yaml", "docker/data.yaml"):
        assert set(services(override)) == set(COMPOSE) - {"report", "data"}


@pytest.mark.parametrize(
    "files", [["compose.yaml"], ["compose.yaml", "docker/gpu.yaml", "docker/data.yaml"]]
)
def test_compose_understands_the_files(files: list[str], tmp_path: Path) -> None:
    compose = ["docker", "compose", "--profile", "*"]
    if not shutil.which("docker") or subprocess.run([*compose, "version"]).returncode:
        pytest.skip("Docker Compose is not installed")
    more = {"COMPOSE_FILE": ":".join(files), "STEADYSPIKE_DATA": str(tmp_path)}
    done = subprocess.run(
        [*compose, "config", "--format", "json"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(Path.home()), **more},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)["services"]) == set(COMPOSE)


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed for this platform")
    done = subprocess.run(
        [hadolint, REPOSITORY / "docker/Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_build_context_holds_what_a_run_reads_and_nothing_private() -> None:
    kept = {
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert all(list(REPOSITORY.glob(name)) for name in kept)
    assert kept >= {"src", "data.dvc", ".dvc/embedded", ".dvc/config", "dvc.yaml", "params.yaml"}
    assert not kept & {".git", ".venv", ".env", "datasets", "runs", "."}
