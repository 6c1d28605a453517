"""`steadyspike launch`: machines that meet, one that is killed, one that never comes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tiny import command, contents, free_port, make_project, refused, start

WEIGHTS = ("model.safetensors", "best.safetensors", "history.csv", "digests.json")


def machines(root: Path, count: int, *arguments: str) -> list["subprocess.Popen[str]"]:
    """So many agents of torchrun with one process each, as on machines that share a folder."""
    port = free_port()
    rendezvous = ("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test")
    return [
        start(root, "launch", f"--nnodes={count}", *rendezvous, "--max-restarts=2", *arguments)
        for _ in range(count)
    ]


def ended(agents: list["subprocess.Popen[str]"]) -> None:
    for agent in agents:
        _, errors = agent.communicate(timeout=240)
        assert agent.returncode == 0, errors


def workers(agent: "subprocess.Popen[str]") -> list[int]:
    """The processes that an agent has started."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text()
    threads = Path(f"/proc/{agent.pid}/task").glob("*/children")
    found = {
        int(pid) for text in (children, *(t.read_text() for t in threads)) for pid in text.split()
    }
    return sorted(found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    make_project(root)
    ended(machines(root, 2, "train", "tiny"))
    return root


@pytest.mark.slow
def test_a_worker_killed_in_mid_epoch(undisturbed: Path, tmp_path: Path) -> None:
    """Everybody starts again from the last checkpoint, and ends with the same bytes."""
    make_project(tmp_path)
    agents = machines(tmp_path, 2, "train", "tiny")
    checkpoint = tmp_path / "runs" / "tiny" / "checkpoint.pt"
    give_up = time.monotonic() + 120
    while not checkpoint.exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    (worker,) = workers(agents[1])
    os.kill(worker, signal.SIGKILL)
    ended(agents)
    for name in WEIGHTS:
        theirs, ours = (root / "runs" / "tiny" / name for root in (tmp_path, undisturbed))
        assert theirs.read_bytes() == ours.read_bytes(), name


@pytest.mark.slow
def test_two_train_what_one_does(undisturbed: Path, tmp_path: Path) -> None:
    """In single precision to rounding; one wrote, and nothing is left over."""
    make_project(tmp_path)
    assert command(tmp_path, "train", "tiny").returncode == 0
    assert contents(tmp_path).keys() == contents(undisturbed).keys()
    ours, theirs = (
        [
            [float(number) for number in line.split(",")[:7]]
            for line in (root / "runs/tiny/history.csv").read_text().splitlines()[1:]
        ]
        for root in (tmp_path, undisturbed)
    )
    for a, b in zip(ours[:2], theirs[:2], strict=True):  # later, rounding has flipped spikes
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.slow
def test_a_machine_that_never_comes(tmp_path: Path) -> None:
    make_project(tmp_path)
    endpoint = f"localhost:{free_port()}"
    result = command(
        tmp_path,
        "launch",
        "--nnodes=2",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={endpoint}",
        "--rdzv-conf=join_timeout=1",
        "train",
        "tiny",
    )
    refused(result, endpoint, "2 machines did not meet", status=1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_first_machine_that_nobody_knows(tmp_path: Path) -> None:
    endpoint = "steadyspike.invalid:29400"
    conf = "--rdzv-conf=join_timeout=1,read_timeout=1"
    options = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", conf)
    refused(command(tmp_path, "launch", *options, "train", "tiny"), endpoint, status=1)


@pytest.mark.slow
def test_a_mistake_is_told_as_ever(tmp_path: Path) -> None:
    make_project(tmp_path)
    result = command(tmp_path, "launch", "--nproc-per-node=1", "train", "nosuch")
    assert result.returncode == 2
    assert "steadyspike: params.yaml: experiments.nosuch" in result.stderr
    assert "Traceback" not in result.stderr


def test_help() -> None:
    result = command(Path.cwd(), "launch", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: steadyspike launch")


def test_only_train(tmp_path: Path) -> None:
    refused(command(tmp_path, "launch", "evaluate", "tiny"), "expected the command train")
