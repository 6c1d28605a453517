"""A small project to train, evaluate and report, in a folder of its own, by real processes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import yaml

REPOSITORY = Path(__file__).parents[2]
NAME = "small"
#: Of the repository's defaults: seconds of training, and everything random that there is.
SMALL: dict[str, Any] = {
    "dataset": {"augmentation": "crop_flip"},
    "model": {"widths": [4, "P", 8], "dropout": 0.1},
    "training": {"epochs": 4, "batch": 10, "steps": 2, "chunk": 2},
    "evaluation": {"batch": 20, "steps": 2},
}
IMAGES = {"train": 240, "test": 200}
CHECKPOINT = "checkpoint.pt"
#: Lie beside a run's results, and tell when and where it ran.
BESIDE = {"environment.json", "timing.json"}


@dataclass(frozen=True)
class Project:
    """A folder with params.yaml and data, and the code that is run in it."""

    root: Path
    source: Path  # a copy of src: others may edit the repository's while this runs
    program: Sequence[str] = ("-m", "steadyspike")  # what Python runs
    more: Mapping[str, str] = field(default_factory=dict)  # of its environment

    @property
    def run_folder(self) -> Path:
        return self.root / "runs" / NAME

    @property
    def checkpoint(self) -> Path:
        return self.run_folder / CHECKPOINT

    def start(
        self,
        *arguments: str,
        err: IO[Any] | int = subprocess.PIPE,
        dump: Path | None = None,
        through: Sequence[str] = (),
    ) -> "subprocess.Popen[str]":
        """``steadyspike ARGUMENTS`` here; on SIGUSR1 it writes its stack to the file ``dump``.

        ``through`` is a command that becomes the one that is given to it.
        """
        # Inherited: one that comes before it is waited for ends nothing.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        return subprocess.Popen(
            [*through, sys.executable, *self.program, *arguments],
            cwd=self.root,
            env=self.environment(dump),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """As `start`, to its end: the exit status as a shell has it, and standard error."""
        process = self.start(*arguments)
        _, err = process.communicate()
        return shell_status(process), err

    def python(self, code: str) -> str:
        """What a line of Python prints that imports the project's code."""
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def environment(self, dump: Path | None = None) -> dict[str, str]:
        own = {**os.environ, "PYTHONPATH": str(self.source)}
        # A user's own Python keeps what it has compiled; without, every start would take 3 s more.
        own.pop("PYTHONDONTWRITEBYTECODE", None)
        own.setdefault("PYTHONPYCACHEPREFIX", str(self.source.parent / "pycache"))
        own |= self.more
        if dump is not None:
            own["PYTHONPATH"] = f"{Path(__file__).parent / 'stack'}:{self.source}"
            own["STACK_DUMP"] = str(dump)
        return own

    def copy(self, root: Path) -> "Project":
        """All files as they are now, in another folder; the same code."""
        shutil.copytree(self.root, root)
        return replace(self, root=root)

    def fresh(self, root: Path) -> "Project":
        """The same project before anything was run in it."""
        root.mkdir(parents=True)
        shutil.copytree(self.root / "data", root / "data")
        shutil.copy(self.root / "params.yaml", root)
        return replace(self, root=root)

    def change(self, **overrides: Any) -> None:
        """Give the experiment these values of ``section`` and ``key``."""
        path = self.root / "params.yaml"
        document = yaml.safe_load(path.read_text())
        document["experiments"][NAME] = overrides
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def outcome(self, *folders: str) -> dict[str, bytes]:
        """Every file below ``folders`` that must be the same in every run, hidden ones too."""
        return {
            name: raw
            for folder in folders or ("runs", "reports")
            for name, raw in contents(self.root / folder).items()
            if Path(name).name not in BESIDE
        }


def make_project(work: Path, name: str = "project", **overrides: Mapping[str, Any]) -> Project:
    """A project in ``work``, its images the first of the embedded ones; sections changed so.

    All that are made in one folder run the same copy of the code.
    """
    from steadyspike.train.params import merge, read_yaml

    source = work / "src"
    if not source.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "src", source, ignore=ignored)
    root = work / name
    write_data(root / "data")
    defaults = merge(merge(read_yaml(REPOSITORY / "params.yaml")["defaults"], SMALL), overrides)
    document = {"defaults": defaults, "experiments": {NAME: {}}}
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return Project(root, source)


def write_data(folder: Path) -> None:
    """The first images of each split of the repository's data, as IDX files with a manifest."""
    from steadyspike.data.fashion_mnist import FILES
    from steadyspike.data.idx import read_idx, write_idx
    from steadyspike.data.manifest import file_sum, manifest_of_files, write_manifest

    for split, count in IMAGES.items():
        for name in FILES[split]:
            write_idx(folder / f"{name}.gz", read_idx(REPOSITORY / "data" / f"{name}.gz")[:count])
    sums = {path.name: file_sum(path) for path in sorted(folder.glob("*.gz"))}
    write_manifest(
        folder / "manifest.json", manifest_of_files(sums, name="embedded", counts=IMAGES)
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path relative to the folder's parent."""
    return {
        str(path.relative_to(folder.parent)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def differences(expected: Mapping[str, bytes], got: Mapping[str, bytes]) -> list[str]:
    """The names that are missing, too many or hold other bytes."""
    return sorted(
        name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)
    )


def shell_status(process: "subprocess.Popen[Any]") -> int:
    """A process's exit status as a shell tells it: 128 and more for a signal."""
    code = process.returncode
    return code if code >= 0 else 128 - code


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is there and ends with the SHA-256 of all before."""
    try:
        raw = checkpoint.read_bytes()
    except FileNotFoundError:
        return False
    return len(raw) > 32 and hashlib.sha256(raw[:-32]).digest() == raw[-32:]


def fail(what: str) -> None:
    """Tell a failure where the figures do not go."""
    print(f"reliability: {what}", file=sys.stderr, flush=True)
