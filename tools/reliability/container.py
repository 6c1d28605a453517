"""The image and its containers, on this machine's engine, if there is one."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from elsewhere import REPOSITORY

#: Of this harness alone: whatever else runs on the engine is left in peace.
PROJECT = IMAGE = "steadyspike-reliability"
BASE = "steadyspike-base"  # what docker/base.sh makes where no image can be pulled
USER = 1000
CLUSTER = "compose.yaml:docker/cluster.yaml"
PROBE = "docker/test/probe.sh"


def engine_obstacle() -> str:
    """Why nothing can be run in a container here; empty where it can."""
    if shutil.which("docker") is None:
        return "no Docker engine is installed (docker/engine.sh installs one)"
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        return "no Docker engine answers (docker/engine.sh starts one)"
    for plugin in ("compose", "buildx"):
        if subprocess.run(["docker", plugin, "version"], capture_output=True).returncode:
            return f"Docker's plugin {plugin} is missing"
    return ""


@cache
def build(root: Path) -> str:
    """Builds the image of a checkout, which then belongs to `USER`; why it cannot, if so."""
    base = os.environ.get("BASE_IMAGE", BASE)
    commands = [[str(root / "docker/build.sh"), IMAGE]]
    if base == BASE:
        commands.insert(0, [str(root / "docker/base.sh"), base])
    for command in commands:
        done = subprocess.run(
            command, env=os.environ | {"BASE_IMAGE": base}, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no word of it"]
            return f"{Path(command[0]).name} failed: {said[-1]}"
    if os.geteuid() == 0:
        subprocess.run(["chown", "--recursive", f"{USER}:{USER}", str(root)], check=True)
    return ""


def compose(
    root: Path, *arguments: str, files: str = CLUSTER, **more: str
) -> "subprocess.CompletedProcess[str]":
    """``docker compose ARGUMENTS`` in a checkout, as its owner."""
    owner = root.stat()
    own = {"STEADYSPIKE_IMAGE": IMAGE, "COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": files}
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ
    }
    return subprocess.run(
        ["docker", "compose", "--ansi", "never", "--profile", "*", *arguments],
        cwd=root,
        env={**kept, **own, "UID": str(owner.st_uid), "GID": str(owner.st_gid), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def train(root: Path) -> "subprocess.CompletedProcess[str]":
    """``docker compose up train``, to its end; nothing of it is left but the checkout."""
    try:
        up = ("up", "--no-log-prefix", "--exit-code-from", "train", "train")
        return compose(root, *up, files="compose.yaml")
    finally:
        compose(root, "down", "--timeout", "5")


def services(root: Path) -> dict[str, dict[str, Any]]:
    """Every service, of a cluster's too, as Compose understands its files."""
    told = compose(root, "config", "--format", "json")
    described: dict[str, dict[str, Any]] = json.loads(told.stdout)["services"]
    return described


def probed(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """What each service may do, asked from within: ``no``, or ``yes`` and what."""
    probe = (REPOSITORY / PROBE).read_text()
    for name in services(root):
        done = compose(
            root, "run", "--rm", "--no-deps", "--entrypoint", "sh", name, "-c", probe, FIRST="x"
        )
        lines = [line.split(" ", 2) for line in done.stdout.splitlines()]
        answers = {words[0]: " ".join(words[1:]).strip() for words in lines if len(words) > 1}
        yield name, answers or {"error": done.stderr.strip()[-500:]}
    compose(root, "down", "--timeout", "5")
