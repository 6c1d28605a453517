"""What `steadyspike doctor` says of the checkout: versions, files, experiments and their data."""

import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from steadyspike import __version__, variables
from steadyspike.commit import DESCRIBE
from steadyspike.doctor.finding import Finding
from steadyspike.errors import UserError
from steadyspike.files import is_stray
from steadyspike.variables import data_root


def versions() -> Iterator[Finding]:
    """This package, Python, DVC, the commit, and whether results differ from the committed ones."""
    found = f"{__version__}, Python {platform.python_version()}"
    try:
        found += f", DVC {metadata.version('dvc')}"
    except metadata.PackageNotFoundError:
        found += ", no DVC (`steadyspike train` works without it)"
    try:
        commit = subprocess.run(DESCRIBE, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        yield Finding("steadyspike", f"{found}, commit unknown: git is not installed")
        return
    if commit.returncode:
        said = commit.stderr.strip().splitlines()
        # Git's own remedy, if it gives one, is its last line.
        advice = said[-1].strip() if len(said) > 1 else "run this in the checkout"
        if Path("dvc.yaml").exists() and not Path(".git").exists():
            # A downloaded ZIP: all works but `dvc exp`.
            advice = ""
        yield Finding("steadyspike", f"{found}, commit unknown: {said[0]}", advice)
        return
    found += f", commit {commit.stdout.strip()}"
    same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "dvc.lock"], timeout=20)
    advice = "`git diff dvc.lock` shows which results differ from the commit's"
    yield Finding("steadyspike", found, advice if same.returncode else "")


def experiments(params: Path) -> Iterator[Finding]:
    """Whether ``params`` holds valid experiments, and their devices and data sets are here."""
    import torch

    from steadyspike.train.config import load_experiments
    from steadyspike.train.network import slow_precision

    try:
        known = list(load_experiments(params).values())
    except UserError as error:
        found, _, advice = str(error).partition("; ")
        if params.exists():
            found, advice = str(error), ""
        yield Finding("experiments", found, advice, problem=True)
        return
    yield Finding("experiments", f"{len(known)} in {params}")
    on_gpu = [experiment.name for experiment in known if experiment.device == "cuda"]
    if on_gpu and not torch.cuda.is_available():
        found = f"{', '.join(on_gpu)}: cuda in {params}, but torch finds no GPU"
        yield Finding("device", found, "device: cpu works too, slowly", problem=True)
    for note in filter(None, map(slow_precision, known)):
        yield Finding("precision", note, "training.precision: float32")
    needed = {(experiment.dataset.name, experiment.dataset.path) for experiment in known}
    for name, path in sorted(needed, key=str):
        yield _data_set(name, data_root() / name if path is None else Path(path), params)
    yield Finding("data", _fetched())


def _data_set(name: str, folder: Path, params: Path) -> Finding:
    """Whether a data set that an experiment needs is in ``folder``."""
    from steadyspike import data

    topic, manifest = f"data {name}", folder.with_name(f"{folder.name}.manifest.json")
    own = "path" in data.SOURCES[name].required
    if own:
        topic = f"data {folder}"
    if name == "embedded":
        try:
            data.fetch(name)  # small enough to check every file
        except UserError as error:
            return Finding(topic, str(error), "tools/data.sh", problem=True)
    elif not manifest.is_file():  # `fetch` writes it once every file has been checked
        # An interrupted or refused download is not the data set.
        there = any(not path.name.endswith(".part") for path in _files(folder))
        found = "here, not checked" if there else "missing"
        advice = f"steadyspike fetch {name}" + (f" --params {params}" if own else "")
        return Finding(topic, found, advice, problem=not there)
    return Finding(topic, "here, checked")


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below, but no stray ones; none if there is no such folder."""
    return (path for path in folder.rglob("*") if path.is_file() and not is_stray(path.name))


def data_here() -> Iterator[Finding]:
    """What is here of the embedded data and of fetched ones. Loads no torch."""
    from steadyspike.data.manifest import verify_folder

    embedded = "here"
    if not Path("data/manifest.json").is_file():
        embedded = "missing (dvc pull data.dvc)"
    else:
        try:
            verify_folder(Path("data"), "dvc pull --force data.dvc")
        except UserError as error:
            embedded = f"changed ({error})"
    yield Finding("data", f"embedded images {embedded}; {_fetched()}")


def _fetched() -> str:
    """The data sets that have been fetched and checked."""
    names = sorted(path.name.split(".")[0] for path in data_root().glob("*.manifest.json"))
    return f"{data_root()}/ holds {', '.join(names) or 'nothing yet (steadyspike fetch NAME)'}"


def environment() -> Iterator[Finding]:
    """A variable of this package whose value is not understood."""
    try:
        variables.check()
        variables.torchrun()
    except UserError as error:
        yield Finding("environment", str(error), "unset it, or correct it", problem=True)


def line_ends() -> Iterator[Finding]:
    """Whether the checkout has the line ends of Windows, with which no script starts."""
    changed = [
        str(path)
        for pattern in ("Makefile", "*.dvc", "*.yaml", "*.lock", "tools/*.sh", "docker/*.sh")
        for path in sorted(Path().glob(pattern))
        if path.is_file() and b"\r\n" in path.read_bytes()  # .dvc is a folder
    ]
    if changed:
        found = f"line ends of Windows in {changed[0]} and {len(changed) - 1} more files"
        advice = "clone again: git clone -c core.autocrlf=false"
        yield Finding("checkout", found, advice, problem=True)
