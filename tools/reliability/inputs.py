"""Fuzz the readers of files: each input is read, or refused by a UserError, in bounded memory.

Run as a program it fuzzes one reader, guided by the code that its inputs reach:
``python inputs.py READER PROJECT [OPTION ...]``. PROJECT/seeds holds the inputs to begin with; the
options are libFuzzer's, for example ``-runs=1000``.
"""

import contextlib
import hashlib
import importlib.util
import io
import re
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from page import Row
from project import NAME, Failure, Project, make_project, report
from stops import stop

MEMORY = 1024  # MiB, of the process with all its libraries
SECONDS = 25  # for one input
FEW = 500
INSTALL = (
    "not tried: atheris is not installed: `.venv/bin/uv pip install --require-hashes "
    "--requirement requirements-fuzz.lock` (Python 3.11 to 3.13, Linux, x86-64)"
)
#: Packages in which the fuzzer sees what code an input reaches.
INSTRUMENTED = ["steadyspike", "yaml", "csv", "json"]
CHECKSUM = 32  # bytes of SHA-256 at the end of a checkpoint
Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        files: what it reads.
        seeds: valid inputs, of a project that was trained and one that was stopped.
        prepare: imports what is needed and returns what reads an input, for the project in the
            folder that it is given.
        tries: how many inputs are tried.
    """

    files: str
    seeds: Callable[[Project, Project], list[bytes]]
    prepare: Callable[[Path], Read]
    tries: int


def _params(root: Path) -> Read:
    from steadyspike.train.config import load_experiment

    return _read_file(root / "params.yaml", lambda path: load_experiment(path, NAME))


def _aedat2(root: Path) -> Read:
    from steadyspike.data.aedat import read_aedat2

    return _read_file(root / "a.aedat", read_aedat2)


def _aedat3(root: Path) -> Read:
    from steadyspike.data.aedat import read_aedat3

    return _read_file(root / "a.aedat", read_aedat3)


def _weights(root: Path) -> Read:
    from torch import nn

    from steadyspike.evaluate.weights import load_weights

    model = nn.Linear(1, 1)
    return _read_file(root / "a.safetensors", lambda path: load_weights(path, model, "train it"))


def _checkpoint(root: Path) -> Read:
    """Inputs are the pickle in a checkpoint; the sums around it are made right."""
    from steadyspike.train.checkpoint import newest_checkpoint
    from steadyspike.train.config import load_experiment

    experiment = load_experiment(root / "params.yaml", NAME)
    path = root / "runs" / NAME / "checkpoint.pt"
    whole = path.read_bytes()[:-CHECKSUM]

    def read(pickled: bytes) -> object:
        content = _replace_pickle(whole, pickled)
        path.write_bytes(content + hashlib.sha256(content).digest())
        return newest_checkpoint(path, experiment)

    return read


def _history(root: Path) -> Read:
    from steadyspike.train.history import read_history

    return _read_file(root / "history.csv", lambda path: read_history(path, "train it"))


def _metrics(root: Path) -> Read:
    from steadyspike.evaluate.metrics import read_metrics

    return _read_file(root / "metrics.json", read_metrics)


def _layers(root: Path) -> Read:
    from steadyspike.evaluate.metrics import read_layers

    return _read_file(root / "layers.json", read_layers)


def _read_file(path: Path, read: Callable[[Path], object]) -> Read:
    def written_and_read(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return written_and_read


def _pickle(whole: bytes) -> bytes:
    """The pickle in a file written by torch.save."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return archive.read(name)


def _replace_pickle(whole: bytes, pickled: bytes) -> bytes:
    """The file with another pickle, its zip checksum right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(out, "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, pickled if name.endswith("/data.pkl") else archive.read(name))
    return out.getvalue()


def _recordings2(*_: Project) -> list[bytes]:
    """Two events of CIFAR10-DVS: big-endian address and time."""
    return [b"#!AER-DAT2.0\r\n# comment\r\n" + struct.pack(">4I", 258, 9, 32512, 9)]


def _recordings3(*_: Project) -> list[bytes]:
    """A packet of one polarity event, of DVS128 Gesture."""
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<II", 655387, 1000)
    return [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + packet]


def _small_weights(*_: Project) -> list[bytes]:
    import safetensors.torch
    from torch import nn

    return [safetensors.torch.save(nn.Linear(1, 1).state_dict())]


def _result(name: str) -> Callable[[Project, Project], list[bytes]]:
    """A file in the folder of the finished run."""
    return lambda whole, _: [(whole.run_folder / name).read_bytes()]


READERS = {
    "params": Reader(
        "params.yaml",
        lambda whole, _: [
            (whole.root / "params.yaml").read_bytes(),
            b"defaults: &d\n  seeds: [0, 1]\nexperiments: {small: {<<: *d, x: 5e-4, y: 1:30}}\n",
        ],
        _params,
        50_000,
    ),
    "aedat2": Reader("AEDAT 2.0 recordings", _recordings2, _aedat2, 100_000),
    "aedat3": Reader("AEDAT 3.1 recordings", _recordings3, _aedat3, 100_000),
    "weights": Reader("weights in safetensors", _small_weights, _weights, 40_000),
    "checkpoint": Reader(
        "checkpoints",
        lambda _, stopped: [_pickle(stopped.checkpoint.read_bytes()[:-CHECKSUM])],
        _checkpoint,
        40_000,
    ),
    "history": Reader("history.csv", _result("history.csv"), _history, 40_000),
    "metrics": Reader("metrics.json", _result("metrics.json"), _metrics, 50_000),
    "layers": Reader("layers.json", _result("layers.json"), _layers, 30_000),
}


def measure(work: Path, few: bool) -> Iterator[Row]:
    """A row for each reader."""
    if importlib.util.find_spec("atheris") is None:
        yield Row("Fuzzing finds no crash and no hang in the readers of files", 0, 1, INSTALL)
        return
    project = make_project(work, model={"widths": [1]}, training={"epochs": 1, "batch": 120})
    whole, stopped = project.fresh(work / "whole"), project.fresh(work / "stopped")
    whole.finish("train", NAME)
    whole.finish("evaluate", NAME)
    stop(stopped, signal.SIGTERM, writes=3)
    memory = Path("/dev/shm")  # each input is written to a file
    for name, reader in READERS.items():
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else work) as folder:
            root = stopped.copy(Path(folder) / name).root
            (root / "seeds").mkdir()
            for number, seed in enumerate(reader.seeds(whole, stopped)):
                (root / "seeds" / str(number)).write_bytes(seed)
            yield fuzzed(name, root, FEW if few else reader.tries)


def fuzzed(name: str, root: Path, tries: int) -> Row:
    """Fuzz one reader in a process of its own."""
    longest = 2 * max(path.stat().st_size for path in (root / "seeds").iterdir())
    options = [f"-runs={tries}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEMORY}", "-seed=6"]
    options += [f"-max_len={longest}", f"-artifact_prefix={root}/found-", "-print_final_stats=1"]
    # By a shell: the peak of memory would begin with this process's.
    command = [sys.executable, __file__, name, str(root), *options]
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", *command],
        capture_output=True,
        text=True,
        errors="replace",
    )
    found = sorted(root.glob("found-*"))  # libFuzzer names it after what went wrong
    for path in found:
        report(Failure(f"{name}: {path.name}: {path.read_bytes()!r}"))
    if done.returncode:
        report(Failure(f"{name}: {done.stderr[-3000:]}"))
    executed, peak = (
        int((re.search(rf"stat::{statistic}:\s*(\d+)", done.stderr) or ["", "0"])[1])
        for statistic in ("number_of_executed_units", "peak_rss_mb")
    )
    sound = done.returncode == 0 and not found and peak <= MEMORY
    return Row(
        f"Fuzzing of {READERS[name].files}: every input is read or refused in words; no crash, no "
        f"hang, at most {MEMORY} MiB",
        min(executed, tries) - (not sound),
        tries,
        f"peak memory {peak} MiB",
    )


def fuzz(name: str, root: Path, options: list[str]) -> None:
    """Fuzz one reader until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from steadyspike.errors import UserError

        read = READERS[name].prepare(root)

    def one(content: bytes) -> None:
        with contextlib.suppress(UserError):
            read(content)

    atheris.Setup([sys.argv[0], *options, str(root / "seeds")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
