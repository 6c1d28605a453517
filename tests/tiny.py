"""Experiments small enough to train in a test, in memory or as a project folder on the disk."""

import atexit
import functools
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from steadyspike.cli import main
from steadyspike.data import Dataset
from steadyspike.data.dataset import Split
from steadyspike.data.fashion_mnist import CLASSES, FILES, MEAN, STD, write_idx
from steadyspike.data.manifest import file_sum, manifest_of_files, write_manifest
from steadyspike.errors import UserError
from steadyspike.train.checkpoint import newest_checkpoint
from steadyspike.train.config import Experiment
from steadyspike.train.params import merge, read_yaml
from steadyspike.train.trainer import Trainer

REPOSITORY = Path(__file__).parents[1]
#: The files of a finished run that are the same bytes every time.
OUTPUTS = ("model.safetensors", "best.safetensors", "history.csv", "digests.json")
DEFAULTS: dict[str, Any] = merge(
    read_yaml(REPOSITORY / "params.yaml")["defaults"],
    {
        "dataset": {"augmentation": "crop_flip"},  # and dropout: randomness must be repeated too
        "model": {"widths": [4, "P", 4], "dropout": 0.2},
        "training": {"epochs": 2, "batch": 16},
        "evaluation": {"batch": 10},
    },
)


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """``{"training.steps": 2}`` as ``{"training": {"steps": 2}}``."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def tiny_experiment(name: str = "tiny", **dotted: Any) -> Experiment:
    """`DEFAULTS` changed by dotted keys, given as ``**{"training.steps": 2}``."""
    return Experiment.model_validate({"name": name, **merge(DEFAULTS, nested(dotted))})


def images_and_labels(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright bar whose position is the class, so that it can be learned."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % len(CLASSES)).astype(np.uint8)
    images = random.integers(0, 120, (count, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        start = int(label) * side // len(CLASSES)
        image[start : start + 2] = 255
    return images, labels


def tiny_dataset(train: int = 40, test: int = 23, side: int = 12) -> Dataset:
    """In memory, of images ``side`` wide; no batch size in `DEFAULTS` divides its splits."""
    splits = []
    for seed, count in enumerate((train, test)):
        images, labels = images_and_labels(count, side, seed)
        splits.append(Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()))
    return Dataset("embedded", CLASSES, MEAN, STD, *splits)


def batches(trainer: Trainer) -> Iterator[int]:
    """Train to the end; gives the images of each batch once it is trained."""
    while not trainer.finished:
        yield from trainer.run_epoch()
        trainer.finish_epoch()


def finish(trainer: Trainer) -> Trainer:
    """Train to the end; returns the same trainer."""
    for _ in batches(trainer):
        pass
    return trainer


def train_epoch(trainer: Trainer) -> None:
    """Train the rest of the epoch in progress, and end it."""
    for _ in trainer.run_epoch():
        pass
    trainer.finish_epoch()


def saved_state(checkpoint: Path, experiment: Experiment) -> dict[str, Any] | None:
    """The state in the newest whole checkpoint, if there is one."""
    found = newest_checkpoint(checkpoint, experiment)
    return None if found is None else found[1]


def write_data(root: Path, train: int = 60, test: int = 30) -> None:
    """``data/`` as the repository embeds it, IDX files, manifest and all."""
    folder = root / "data"
    for seed, (split, count) in enumerate((("train", train), ("test", test))):
        for name, array in zip(FILES[split], images_and_labels(count, 28, seed), strict=True):
            write_idx(folder / f"{name}.gz", array)
    sums = {path.name: file_sum(path) for path in sorted(folder.glob("*.gz"))}
    counts = {"train": train, "test": test}
    write_manifest(
        folder / "manifest.json", manifest_of_files(sums, name="embedded", counts=counts)
    )


def copy_dvc_project(folder: Path) -> None:
    """The repository's DVC projects with the embedded images, not restored, and the scripts."""
    own = shutil.ignore_patterns("cache", "tmp", "config.local")  # of this working tree
    for name in (".dvc", "pipelines/.dvc"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=own)
    for name in (".dvcignore", "pipelines/.dvcignore", "data.dvc"):
        shutil.copy(REPOSITORY / name, folder / name)
    shutil.copytree(REPOSITORY / "tools", folder / "tools")


def write_params(root: Path, experiments: Mapping[str, Mapping[str, Any]], **dotted: Any) -> None:
    """params.yaml with `DEFAULTS` changed by dotted keys, and experiments in dotted keys too."""
    document = {
        "defaults": merge(DEFAULTS, nested(dotted)),
        "experiments": {name: nested(overrides) for name, overrides in experiments.items()},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def environment(**more: str) -> dict[str, str]:
    """The environment of a user who has set up this working tree."""
    # Added to the user's, where other packages may lie.
    path = os.pathsep.join(filter(None, (str(REPOSITORY / "src"), os.environ.get("PYTHONPATH"))))
    own = {**os.environ, "PYTHONPATH": path, **more}
    if own.pop("PYTHONDONTWRITEBYTECODE", None):
        # Else every process would compile all of torch anew: 3 s.
        own["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "steadyspike-pycache")
    return own


def start(root: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    """``steadyspike ARGUMENTS`` in ``root``, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "steadyspike", *arguments],
        cwd=root,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(root: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """As `start`, waiting for its end."""
    process = start(root, *arguments, **more)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def in_process(root: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """As `command`, without the seconds in which a new process loads torch.

    Threads and instruction set are those of this process, so weights may differ from `trained`.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(root)
        for name, value in more.items():
            patch.setenv(name, value)
        patch.setattr("steadyspike.commands._prepare", lambda: None)  # refuses a loaded torch
        with pytest.raises(SystemExit) as end:
            main(arguments)
    status = int(end.value.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def python(program: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a new Python process, which must succeed."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**more),
        capture_output=True,
        text=True,
        check=True,
    )


def refused(result: "subprocess.CompletedProcess[str]", *expected: str, status: int = 2) -> None:
    """The command failed with one line on standard error that matches each expression."""
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("steadyspike: ")
    for pattern in expected:
        assert re.search(pattern, lines[0]), f"{pattern!r} is not in {lines[0]!r}"


def one_line(error: UserError, *words: str) -> str:
    """The error's message, which is one line and holds all these words."""
    message = str(error)
    assert "\n" not in message, message
    for word in words:
        assert word in message, message
    return message


def audit_tools() -> Path:
    """The environment that the Makefile makes for `make audit`; skips the test if it cannot be."""
    folder = REPOSITORY / "build/audit"
    if not (folder / "bin/rocrate-validator").exists():
        command = ["tools/setup.sh", sys.executable, folder, "requirements-audit.lock"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the tools of make audit cannot be installed: {done.stderr[-200:]}")
    return folder


def needs_mounting() -> None:
    """Skip the test where no file system can be mounted, as root may."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs to mount a file system")


def load_tool(name: str) -> ModuleType:
    """``tools/NAME.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    """A port of this machine that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outputs(folder: Path) -> dict[str, bytes]:
    """The content of `OUTPUTS` in a run's folder."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    """Edit a JSON file: ``change`` edits its parsed content in place."""
    content = read_json(path)
    change(content)
    path.write_text(json.dumps(content))


@functools.cache
def trained() -> Path:
    """A project whose experiment `tiny` was trained without interruption; read-only."""
    root = Path(tempfile.mkdtemp(prefix="steadyspike-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    make_project(root)
    result = command(root, "train", "tiny")
    assert result.returncode == 0, result.stderr
    return root


def start_machines(root: Path, count: int, *arguments: str) -> list["subprocess.Popen[str]"]:
    """Agents of torchrun with one process each, as on machines that share a folder."""
    endpoint = f"--rdzv-endpoint=localhost:{free_port()}"
    options = ("--rdzv-backend=c10d", endpoint, "--rdzv-id=test", "--max-restarts=2")
    return [start(root, "launch", f"--nnodes={count}", *options, *arguments) for _ in range(count)]


def wait_for(agents: list["subprocess.Popen[str]"]) -> None:
    """Wait until all have ended successfully."""
    for agent in agents:
        _, errors = agent.communicate(timeout=240)
        assert agent.returncode == 0, errors


@functools.cache
def trained_by_two() -> Path:
    """As `trained`, by two processes."""
    root = Path(tempfile.mkdtemp(prefix="steadyspike-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    make_project(root)
    wait_for(start_machines(root, 2, "train", "tiny"))
    return root


def make_project(root: Path) -> None:
    """A project folder with data and params.yaml, not trained."""
    write_data(root, train=200, test=30)
    write_params(
        root,
        {"tiny": {}, "slower": {"training.learning_rate": 0.01}, "wider": {"model.widths": [8]}},
        **{
            "model.widths": [2, "P", 2],
            "training.epochs": 8,
            "training.batch": 10,
            "training.steps": 2,
            "training.chunk": 2,
            "evaluation.steps": 2,
        },
    )
