"""A small project in a folder of its own, on which real processes run the command."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
NAME = "small"
#: Changes to the repository's defaults: trains in seconds, with every source of randomness.
SMALL: dict[str, Any] = {
    "dataset": {"augmentation": "crop_flip"},
    "model": {"widths": [4, "P", 8], "dropout": 0.1},
    "training": {"epochs": 4, "batch": 10, "steps": 2, "chunk": 2},
    "evaluation": {"batch": 20, "steps": 2},
}
IMAGES = {"train": 240, "test": 200}
#: Of a run's files, the only ones that may differ from run to run.
VARYING = {"environment.json", "timing.json"}
STOPPED = f"steadyspike: {NAME} stopped; the same command goes on from runs/{NAME}/checkpoint.pt"


class Failure(Exception):
    """A claim did not hold; the message says how."""


@dataclass(frozen=True)
class Project:
    """A folder with params.yaml and data/, and the code that runs there."""

    root: Path
    source: Path

    @property
    def run_folder(self) -> Path:
        return self.root / "runs" / NAME

    @property
    def checkpoint(self) -> Path:
        return self.run_folder / "checkpoint.pt"

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """Start ``steadyspike ARGUMENTS`` here, with these environment variables."""
        environment = {**os.environ, "PYTHONPATH": str(self.source), **variables}
        # Without compiled files every start would take seconds longer.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.Popen(
            [sys.executable, "-m", "steadyspike", *arguments],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run ``steadyspike ARGUMENTS`` to its end; the exit status and standard error."""
        return ended(self.start(*arguments, **variables))

    def finish(self, *arguments: str, **variables: str) -> None:
        """As `run`; raises Failure if the exit status is not 0."""
        status, err = self.run(*arguments, **variables)
        if status:
            raise Failure(f"{' '.join(arguments)} ended with {status}: {err}")

    def fresh(self, root: Path) -> "Project":
        """The same project, nothing run yet, in another folder."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("runs", "reports"))
        return replace(self, root=root)

    def copy(self, root: Path) -> "Project":
        """The project with all its files, in another folder."""
        shutil.copytree(self.root, root)
        return replace(self, root=root)

    def set_experiment(self, name: str = NAME, **sections: Mapping[str, Any]) -> None:
        """Let params.yaml have one experiment, with these values over the defaults."""
        path = self.root / "params.yaml"
        document = yaml.safe_load(path.read_text())
        document["experiments"] = {name: sections}
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def results(self) -> dict[str, bytes]:
        """Every file in runs/ and reports/ that must be the same bytes in every run."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for part in ("runs", "reports")
            for path in (self.root / part).rglob("*")
            if path.is_file() and path.name not in VARYING
        }

    def must_equal(self, expected: Mapping[str, bytes]) -> None:
        """Raise Failure unless `results` are ``expected``, with no file more or less."""
        got = self.results()
        names = sorted(n for n in expected.keys() | got.keys() if expected.get(n) != got.get(n))
        if names:
            raise Failure(f"{self.root}: not as in the undisturbed run: {', '.join(names)}")


def make_project(work: Path, name: str = "project", **overrides: Mapping[str, Any]) -> Project:
    """A project in ``work`` with the repository's defaults changed by `SMALL` and ``overrides``."""
    from steadyspike.train.params import merge, read_yaml

    source = work / "src"
    if not source.exists():  # a copy: the repository may be edited during a long measurement
        shutil.copytree(REPOSITORY / "src", source)
    project = Project(work / name, source)
    write_data(project.root / "data")
    defaults = merge(merge(read_yaml(REPOSITORY / "params.yaml")["defaults"], SMALL), overrides)
    (project.root / "params.yaml").write_text(yaml.safe_dump({"defaults": defaults}))
    project.set_experiment()
    return project


def write_data(folder: Path) -> None:
    """The first images of each split of the repository's data, as IDX files with a manifest."""
    from steadyspike.data.fashion_mnist import FILES, read_idx, write_idx
    from steadyspike.data.manifest import file_sum, manifest_of_files, write_manifest

    for split, count in IMAGES.items():
        for name in FILES[split]:
            write_idx(folder / f"{name}.gz", read_idx(REPOSITORY / "data" / f"{name}.gz")[:count])
    sums = {path.name: file_sum(path) for path in sorted(folder.glob("*.gz"))}
    write_manifest(
        folder / "manifest.json", manifest_of_files(sums, name="embedded", counts=IMAGES)
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end; the exit status as a shell gives it (128 + signal), standard error."""
    _, err = process.communicate()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode, err


def wait_for_write(process: "subprocess.Popen[str]", folder: Path, number: int = 1) -> bool:
    """Wait until ``number`` files have begun to be written below ``folder``.

    A file that is being written exists for milliseconds under a temporary name. Returns False if
    the process ended before.
    """

    def temporaries() -> set[tuple[Path, int]]:
        found = set()
        for path in folder.rglob(".*.tmp"):
            try:
                found.add((path, path.stat().st_ino))
            except FileNotFoundError:  # renamed in the meantime
                continue
        return found

    seen = temporaries()  # a kill leaves one behind
    while process.poll() is None:
        now = temporaries()
        number -= len(now - seen)
        if number <= 0:
            return True
        seen = now
        time.sleep(0.0002)
    return False


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint exists and ends with the SHA-256 of the bytes before."""
    if not checkpoint.exists():
        return False
    raw = checkpoint.read_bytes()
    return len(raw) > 32 and hashlib.sha256(raw[:-32]).digest() == raw[-32:]


@dataclass
class Attempts:
    """How often something was tried and how often it held."""

    tried: int = 0
    held: int = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Count an attempt, which holds unless the body raises Failure; that is printed."""
        self.tried += 1
        try:
            yield
        except Failure as failure:
            report(failure)
        else:
            self.held += 1


def report(failure: Failure) -> None:
    """Print a failure on standard error, so that it can be looked into."""
    print(f"reliability: {failure}", file=sys.stderr, flush=True)
