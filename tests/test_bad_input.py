"""A user's mistakes through the command line: one line, the right status, and nothing lost."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tiny import (
    OUTPUTS,
    command,
    contents,
    environment,
    in_process,
    make_project,
    refused,
    start,
    trained,
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose experiment `tiny` was stopped after its first epoch; read-only."""
    root = tmp_path_factory.mktemp("stopped")
    make_project(root)
    with start(root, "train", "tiny") as process:
        assert process.stderr is not None
        assert "epoch 1/8" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    return root


class Mistake(NamedTuple):
    """A change of a project with a trained (or ``stopped``) `tiny`, and the error that follows."""

    make: Callable[[Path], object]
    arguments: tuple[str, ...]
    message: str
    status: int = 2
    stopped: bool = False


def params(old: str, new: str) -> Callable[[Path], None]:
    """Replace a text in params.yaml."""

    def edit(root: Path) -> None:
        text = (root / "params.yaml").read_text()
        assert old in text
        (root / "params.yaml").write_text(text.replace(old, new))

    return edit


def cut(*names: str, size: int = 100) -> Callable[[Path], None]:
    """Cut off the last ``size`` bytes of files."""

    def truncate(root: Path) -> None:
        for name in names:
            os.truncate(root / name, (root / name).stat().st_size - size)

    return truncate


def flip_a_bit(name: str) -> Callable[[Path], None]:
    def flip(root: Path) -> None:
        raw = bytearray((root / name).read_bytes())
        raw[-9] ^= 4
        (root / name).write_bytes(raw)

    return flip


TRAIN = ("train", "tiny")
EVALUATE = ("evaluate", "tiny")
MODEL = "runs/tiny/model.safetensors"
CHECKPOINT = "runs/tiny/checkpoint.pt"
PREVIOUS = "runs/tiny/checkpoint-before.pt"

MISTAKES = {
    # params.yaml; more in train/test_config.py and train/test_params.py
    "unknown norm": Mistake(
        params("  norm: osr", "  norm: orc"),
        TRAIN,
        r"params\.yaml: experiments\.tiny: model\.norm: should be 'osr', .*, got 'orc'",
    ),
    "unknown norm, for the report": Mistake(
        params("  norm: osr", "  norm: orc"), ("report",), r"params\.yaml: .*model\.norm"
    ),
    "no YAML": Mistake(
        params("defaults:", "defaults: ["), ("verify",), r"params\.yaml: invalid YAML: line \d+: "
    ),
    "a line break in a key": Mistake(
        params("  tiny: {}", '  tiny: {"a\\nb": 1}'), TRAIN, r"experiments\.tiny: a b: unknown key"
    ),
    "unknown experiment": Mistake(
        lambda _: None,
        ("train", "tinny"),
        r"params\.yaml: experiments\.tinny: no such experiment, expected one of: tiny, slower",
    ),
    "no params.yaml": Mistake(
        lambda _: None, (*TRAIN, "--params", "no.yaml"), r"no\.yaml: not found"
    ),
    "a folder for params.yaml": Mistake(
        lambda _: None, (*EVALUATE, "--params", "data"), "data: cannot be read"
    ),
    # data
    "truncated data": Mistake(
        cut("data/train-images-idx3-ubyte.gz"),
        TRAIN,
        r"data/train-images-idx3-ubyte\.gz: truncated; expected \d+ bytes, found \d+; get it with",
    ),
    "altered data": Mistake(
        flip_a_bit("data/t10k-labels-idx1-ubyte.gz"),
        ("fetch", "embedded", "--manifest", "runs/data.json"),
        r"data/t10k-labels-idx1-ubyte\.gz: altered; expected SHA-256 \w+, found \w+; get it with",
    ),
    "missing data": Mistake(
        lambda root: shutil.rmtree(root / "data"),
        ("fetch", "embedded", "--manifest", "runs/data.json"),
        "data: no such folder; get it with `dvc pull",
    ),
    "unknown data set": Mistake(
        params("name: embedded", "name: mnist"),
        TRAIN,
        r"params\.yaml: experiments\.tiny: dataset\.name: expected one of .*, got 'mnist'",
    ),
    # checkpoints
    "truncated checkpoint": Mistake(
        cut(CHECKPOINT, PREVIOUS, size=1000),
        TRAIN,
        r"runs/tiny/checkpoint\.pt: truncated or altered checkpoint; remove the file",
        stopped=True,
    ),
    # weights
    "no weights": Mistake(
        lambda root: (root / MODEL).unlink(),
        EVALUATE,
        r"model\.safetensors: not found: train it with `steadyspike train tiny`",
    ),
    "truncated weights": Mistake(
        cut(MODEL), EVALUATE, r"runs/tiny/model\.safetensors: damaged safetensors file"
    ),
    "weights of another experiment": Mistake(
        params("- 2\n", "- 3\n"),
        EVALUATE,
        r"runs/tiny/digests\.json: fingerprint: trained with other parameters than tiny.*"
        r"train it with `steadyspike train tiny`",
    ),
    "weights of another network": Mistake(
        params("- 2\n", "- 3\n"),
        (*EVALUATE, "--batch", "5"),
        r"model\.safetensors: weights of another network or .*: .* is \(2,.*expected \(3,",
    ),
    # places and room
    "too little memory": Mistake(
        params("- 2\n", "- 1000000\n"),
        ("train", "slower"),
        r"not enough memory: lower model\.widths",
    ),
    # training
    "a loss that is no number": Mistake(
        params("learning_rate: 0.01", "learning_rate: 1.0e+30"),
        ("train", "slower"),
        r"slower: the loss of epoch 1, batch \d+ is not finite: a lower training\.learning_rate",
        status=1,
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_line_and_changes_nothing(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mistake = MISTAKES[name]
    project = request.getfixturevalue("stopped") if mistake.stopped else trained()
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    mistake.make(tmp_path)
    before = contents(tmp_path)
    refused(in_process(tmp_path, *mistake.arguments), mistake.message, status=mistake.status)
    after = contents(tmp_path)
    # environment.json is written as soon as training begins
    assert after.keys() - before.keys() <= {"runs/slower/environment.json"}
    assert {file: after.get(file) for file in before} == before


@pytest.mark.slow
def test_no_room_for_a_checkpoint_costs_nothing(stopped: Path, tmp_path: Path) -> None:
    """No file may grow as large as a checkpoint; ENOSPC has a test in test_files.py."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / CHECKPOINT).read_bytes()
    limit = (len(before) // 2, resource.RLIM_INFINITY)
    result = subprocess.run(
        [sys.executable, "-m", "steadyspike", *TRAIN],
        cwd=tmp_path,
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    *epochs, result.stderr = result.stderr.splitlines()
    assert all(line.startswith("tiny  epoch ") for line in epochs)
    refused(result, r"runs/tiny/checkpoint\.pt: .*File too large")
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert {path.name for path in (tmp_path / "runs" / "tiny").glob("*.*")} == {
        *("checkpoint.pt", "checkpoint-before.pt", "environment.json")
    }
    result = command(tmp_path, *TRAIN)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/8" not in result.stderr
    for name in OUTPUTS:
        ours, whole = (root / "runs" / "tiny" / name for root in (tmp_path, trained()))
        assert ours.read_bytes() == whole.read_bytes()


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    shutil.copytree(trained(), tmp_path, dirs_exist_ok=True)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):  # root may write anywhere but on a disk that is read only
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", str(locked)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("root may write everywhere, and mount is not allowed here")
    try:
        refused(in_process(tmp_path, *TRAIN, "--runs", "locked/runs"), r"locked/runs\S*: ")
        refused(in_process(tmp_path, "report", "--out", "locked/reports"), r"locked/reports\S*: ")
    finally:
        subprocess.run(["umount", str(locked)], capture_output=True)
        locked.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 2.0])
def test_ctrl_c_during_start_up_prints_nothing(tmp_path: Path, seconds: float) -> None:
    make_project(tmp_path)
    process = start(tmp_path, "train", "tiny")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert (out, "Traceback" in err) == ("", False), err
