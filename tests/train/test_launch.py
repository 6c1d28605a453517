"""`steadyspike launch`: machines that meet, one that is killed, one that never comes."""

import os
import signal
import time
from pathlib import Path

import pytest

from tiny import (
    command,
    contents,
    free_port,
    in_process,
    make_project,
    refused,
    start,
    start_machines,
    trained,
    trained_by_two,
    wait_for,
)


@pytest.mark.slow
def test_a_worker_killed_in_mid_epoch(tmp_path: Path) -> None:
    """Every machine starts again from the last checkpoint, and the bytes are the same."""
    make_project(tmp_path)
    agents = start_machines(tmp_path, 2, "train", "tiny")
    checkpoint = tmp_path / "runs" / "tiny" / "checkpoint.pt"
    give_up = time.monotonic() + 120
    while not checkpoint.exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    threads = Path(f"/proc/{agents[1].pid}/task").glob("*/children")
    (worker,) = (int(pid) for thread in threads for pid in thread.read_text().split())
    os.kill(worker, signal.SIGKILL)
    wait_for(agents)
    for name in ("model.safetensors", "best.safetensors", "history.csv", "digests.json"):
        ours, theirs = (root / "runs" / "tiny" / name for root in (tmp_path, trained_by_two()))
        assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.mark.slow
def test_two_train_what_one_does() -> None:
    """In single precision to rounding; one process writes, and nothing is left over."""
    assert contents(trained()).keys() == contents(trained_by_two()).keys()
    ours, theirs = (
        [
            [float(number) for number in line.split(",")[:7]]
            for line in (root / "runs/tiny/history.csv").read_text().splitlines()[1:3]
        ]
        for root in (trained(), trained_by_two())
    )
    for a, b in zip(ours, theirs, strict=True):  # later, rounding has flipped spikes
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "conf", "message"),
    [
        ("localhost", "join_timeout=1", "2 machines did not meet"),
        ("steadyspike.invalid", "join_timeout=1,read_timeout=1", "is that its name"),
    ],
)
def test_machines_that_never_meet(tmp_path: Path, host: str, conf: str, message: str) -> None:
    endpoint = f"{host}:{free_port()}"
    options = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}")
    result = command(tmp_path, "launch", *options, f"--rdzv-conf={conf}", "train", "tiny")
    refused(result, endpoint, message, status=1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_other_machines_are_awaited(tmp_path: Path, number: signal.Signals) -> None:
    """Of an address that drops every packet: torch waits outside Python."""
    endpoint = "--rdzv-endpoint=192.0.2.1:29400"
    process = start(tmp_path, "launch", "--nnodes=2", "--rdzv-backend=c10d", endpoint, "train", "x")
    time.sleep(8)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (-number, "")


@pytest.mark.slow
def test_a_mistake_of_the_user_ends_all_processes(tmp_path: Path) -> None:
    make_project(tmp_path)
    result = command(tmp_path, "launch", "--nproc-per-node=1", "train", "nosuch")
    assert result.returncode == 2
    assert "steadyspike: params.yaml: experiments.nosuch" in result.stderr
    assert "Traceback" not in result.stderr


def test_only_training_is_launched(tmp_path: Path) -> None:
    refused(in_process(tmp_path, "launch", "evaluate", "tiny"), "expected the command train")
    assert in_process(tmp_path, "launch", "--help").stdout.startswith("usage: steadyspike launch")
