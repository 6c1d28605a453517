"""`steadyspike launch`: machines that meet, one that is killed, one that never comes."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from tiny import (
    OUTPUTS,
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
    for name in OUTPUTS:
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
    make_project(tmp_path)
    endpoint = f"{host}:{free_port()}"
    options = ("--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}")
    result = command(tmp_path, "launch", *options, f"--rdzv-conf={conf}", "train", "tiny")
    refused(result, endpoint, message, status=1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_other_machines_are_awaited(tmp_path: Path, number: signal.Signals) -> None:
    """Of an address that drops every packet: torch waits outside Python."""
    make_project(tmp_path)
    options = ("--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=192.0.2.1:29400")
    process = start(tmp_path, "launch", *options, "train", "tiny")
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


MISTAKES = {
    "--nproc-per-node=gpu": "--nproc-per-node gpu: torch finds no GPU here",
    "--nproc-per-node=0": "--nproc-per-node: expected how many processes .* got '0'",
    "--nproc-per-node=two": "--nproc-per-node: expected",
    "--nnodes=two": "--nnodes: expected how many machines",
    "--nnodes=0": "--nnodes: expected",
    "--nnodes=2:1": "--nnodes: expected",
    "--nnodes=1:2:3": "--nnodes: expected",
    "--node-rank=1": "--node-rank: expected 0 to 0, got 1",
    "--node-rank=x": "launch: argument --node-rank.*: invalid int value: 'x'",
    "--master-port=99999": "--master-port: expected 0 to 65535",
    "--master-port=http": "launch: argument --master-port.*: invalid int",
    "--max-restarts=-1": "--max-restarts: expected 0 to",
    "--rdzv-endpoint=localhost:99999": "--rdzv-endpoint: expected HOST:PORT, got 'localhost:99999'",
    "--rdzv-endpoint=:29400": "--rdzv-endpoint: expected HOST:PORT",
    "--rdzv-conf=nonsense": "launch: torchrun: ",
    "--nosuch=1": "launch: ",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_an_option_that_is_none(option: str, tmp_path: Path) -> None:
    if torch.cuda.is_available() and option == "--nproc-per-node=gpu":
        pytest.skip("this machine has a GPU")
    make_project(tmp_path)
    refused(in_process(tmp_path, "launch", option, "train", "tiny"), MISTAKES[option])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_a_port_that_another_program_holds(backend: str, tmp_path: Path) -> None:
    make_project(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        options = {
            "static": ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"],
            "c10d": [
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint=localhost:{port}",
                "--rdzv-conf=read_timeout=3,join_timeout=3",
            ],
        }[backend]
        result = command(tmp_path, "launch", *options, "train", "tiny")
    assert "Traceback" not in result.stderr
    assert result.returncode in (1, 2)
    (line,) = result.stderr.splitlines()
    assert port in line


def test_what_every_process_would_refuse_is_refused_once(tmp_path: Path) -> None:
    make_project(tmp_path)
    result = in_process(tmp_path, "launch", "--nproc-per-node=2", "train", "nosuch")
    refused(result, r"params\.yaml: experiments\.nosuch")
    refused(in_process(tmp_path, "launch", "--nproc-per-node=2"), "launch: .*required")


def test_only_training_is_launched(tmp_path: Path) -> None:
    refused(in_process(tmp_path, "launch", "evaluate", "tiny"), "expected the command train")
    assert in_process(tmp_path, "launch", "--help").stdout.startswith("usage: steadyspike launch")
