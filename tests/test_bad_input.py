"""Mistakes through the real command line: one line, the right status, and nothing lost."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tiny import command, contents, environment, make_project, refused, start, trained

OUTPUTS = ("model.safetensors", "best.safetensors", "history.csv", "digests.json")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose experiment `tiny` was stopped after its first epoch; not to change."""
    root = tmp_path_factory.mktemp("stopped")
    make_project(root)
    with start(root, "train", "tiny") as process:
        assert process.stderr is not None
        assert "epoch 1/8" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    return root


@dataclass(frozen=True)
class Mistake:
    """What is done to a project, the command that must then be refused, and what it must tell.

    The project's `tiny` has been trained, or with `stopped` is half-way.
    """

    make: Callable[[Path], object]
    arguments: tuple[str, ...]
    told: str
    status: int = 2
    stopped: bool = False


def params(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: replace(root / "params.yaml", old, new)


def cut(name: str, size: int) -> Callable[[Path], object]:
    """The last `size` bytes of a file are lost."""
    return lambda root: os.truncate(root / name, (root / name).stat().st_size - size)


def alter(name: str) -> Callable[[Path], object]:
    """One bit of a file is another."""

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
    # params.yaml
    "T of 0": Mistake(
        params("  steps: 2", "  steps: 0"),
        TRAIN,
        r"params\.yaml: experiments\.tiny: training\.steps: should be greater .* to 1, got 0",
    ),
    "unknown norm": Mistake(
        params("  norm: osr", "  norm: orc"),
        TRAIN,
        r"params\.yaml: experiments\.tiny: model\.norm: should be 'osr', .*, got 'orc'",
    ),
    "unknown norm, for the report": Mistake(
        params("  norm: osr", "  norm: orc"), ("report",), r"params\.yaml: .*model\.norm"
    ),
    "unknown key": Mistake(
        params("  momentum:", "  momemtum:"),
        TRAIN,
        r"params\.yaml: .*training\.momemtum: unknown key \(did you mean momentum\?\)",
    ),
    "wrong type": Mistake(
        params("  tau: 2.0", "  tau: two"),
        EVALUATE,
        r"params\.yaml: .*model\.tau: should be a valid number, got 'two'",
    ),
    "chunk over steps": Mistake(
        params("  chunk: 2", "  chunk: 3"), TRAIN, r"training\.chunk: at most training\.steps"
    ),
    "no experiments": Mistake(
        params("experiments:", "experiment:"), TRAIN, "expected the keys 'defaults' and 'exper"
    ),
    "no YAML": Mistake(
        params("defaults:", "defaults: ["), ("verify",), r"params\.yaml: invalid YAML: line \d+: "
    ),
    "a key twice": Mistake(
        params("  tiny: {}", "  tiny: {}\n  tiny: {}"), TRAIN, "the key 'tiny' is given twice"
    ),
    "a line break in a key": Mistake(
        params("  tiny: {}", '  tiny: {"a\\nb": 1}'), TRAIN, r"experiments\.tiny: a b: unknown key"
    ),
    "a folder in a name": Mistake(
        params("  tiny: {}", "  ../tiny: {}"), TRAIN, r"experiments\.\.\./tiny: expected a name of"
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
        cut("data/train-images-idx3-ubyte.gz", 100),
        TRAIN,
        r"data/train-images-idx3-ubyte\.gz: truncated; expected \d+ bytes, found \d+; get it with",
    ),
    "altered data": Mistake(
        alter("data/t10k-labels-idx1-ubyte.gz"),
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
    "another experiment's checkpoint": Mistake(
        params("  learning_rate: 0.1", "  learning_rate: 0.2"),
        TRAIN,
        r"runs/tiny/checkpoint\.pt: belongs to another experiment: "
        r"training\.learning_rate is 0\.2 and was 0\.1; remove the file",
        stopped=True,
    ),
    "truncated checkpoint": Mistake(
        lambda root: [cut(path, 1000)(root) for path in (CHECKPOINT, PREVIOUS)],
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
        cut(MODEL, 100), EVALUATE, r"runs/tiny/model\.safetensors: damaged safetensors file"
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
        r"runs/tiny/model\.safetensors: weights of another network: .* is \(2,.*expected \(3,",
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


@dataclass(frozen=True)
class Outcome:
    result: "subprocess.CompletedProcess[str]"
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def outcomes(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every mistake made in a project of its own, as many at once as there are cores."""

    def make(mistake: Mistake) -> Outcome:
        root = tmp_path_factory.mktemp("mistake")
        shutil.copytree(stopped if mistake.stopped else trained(), root, dirs_exist_ok=True)
        mistake.make(root)
        before = contents(root)
        return Outcome(command(root, *mistake.arguments), before, contents(root))

    trained()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(MISTAKES, pool.map(make, MISTAKES.values()), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.slow
def test_a_mistake_is_told_and_costs_nothing(name: str, outcomes: dict[str, Outcome]) -> None:
    mistake, outcome = MISTAKES[name], outcomes[name]
    refused(outcome.result, mistake.told, status=mistake.status)
    # environment.json is written as soon as training begins
    assert outcome.after.keys() - outcome.before.keys() <= {"runs/slower/environment.json"}
    assert {file: outcome.after.get(file) for file in outcome.before} == outcome.before


@pytest.mark.parametrize(
    "err", ["", "error\n", "steadyspike: a\nsteadyspike: b\n", "Traceback\nsteadyspike: a\n"]
)
def test_what_counts_as_one_line(err: str) -> None:
    with pytest.raises(AssertionError):
        refused(subprocess.CompletedProcess([], 2, "", err))


# No room for a checkpoint


def refused_after_epochs(result: "subprocess.CompletedProcess[str]", told: str) -> None:
    """Lines for finished epochs may come before the one that tells."""
    *epochs, last = result.stderr.splitlines()
    assert all(line.startswith("tiny  epoch ") for line in epochs)
    refused(subprocess.CompletedProcess([], result.returncode, result.stdout, last), told)


@pytest.fixture
def small_disk(stopped: Path, tmp_path: Path) -> Iterator[Path]:
    """The stopped project's runs/ on a disk of its own, with no room for one checkpoint more."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    kept = contents(tmp_path / "runs")
    pages = sum(-(-len(raw) // 4096) for raw in kept.values()) + 5  # and some for folders
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", str(tmp_path / "runs")]
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk")
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        for name, raw in kept.items():
            (tmp_path / "runs" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "runs" / name).write_bytes(raw)
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path / "runs")], check=True)


@pytest.mark.slow
def test_a_full_disk_costs_nothing(small_disk: Path) -> None:
    runs = small_disk / "runs"
    before = (small_disk / CHECKPOINT).read_bytes()
    refused_after_epochs(
        command(small_disk, *TRAIN),
        r"runs/tiny/checkpoint\.pt: no space left on device; the file was not written",
    )
    assert (small_disk / CHECKPOINT).read_bytes() == before
    assert {path.name for path in (runs / "tiny").rglob("*.*")} == {
        "checkpoint.pt",
        "checkpoint-before.pt",
        "environment.json",
    }
    subprocess.run(["mount", "-o", "remount,size=16m", str(runs)], check=True)
    result = command(small_disk, *TRAIN)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/8" not in result.stderr
    for name in OUTPUTS:
        whole = trained() / "runs" / "tiny" / name
        assert (runs / "tiny" / name).read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_costs_nothing(stopped: Path, tmp_path: Path) -> None:
    """As a full disk, where none can be mounted: no file may grow as large as a checkpoint."""
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
    refused_after_epochs(result, r"runs/tiny/checkpoint\.pt: .*File too large")
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list((tmp_path / "runs" / "tiny").glob(".*"))


@pytest.mark.slow
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
        refused(command(tmp_path, *TRAIN, "--runs", "locked/runs"), r"locked/runs\S*: ")
        refused(command(tmp_path, "report", "--out", "locked/reports"), r"locked/reports\S*: ")
    finally:
        subprocess.run(["umount", str(locked)], capture_output=True)
        locked.chmod(0o755)
