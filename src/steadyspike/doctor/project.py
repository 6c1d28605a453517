"""The folder one stands in: its commit, its disk, its DVC state. Needs no torch."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from steadyspike import __version__
from steadyspike.doctor.finding import Finding, first_line, size

#: Below this a run's weights, its checkpoint and DVC's copies of them may not fit.
LITTLE_DISK = 1 << 30
PULL = "dvc pull data.dvc"


class GitError(Exception):
    """Git is missing, or refuses; its reason."""


def git(*arguments: str) -> str:
    """What git prints here."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise GitError("git is not installed") from None
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise GitError(told[0].removeprefix("fatal: "))
    return done.stdout.rstrip()


def version() -> list[Finding]:
    """Versions of this package and of Python, and the commit."""
    facts: dict[str, Any] = {"version": __version__, "python": platform.python_version()}
    facts |= {"commit": None, "changed": None}
    found = f"{__version__} on Python {facts['python']}"
    try:
        facts["commit"] = git("rev-parse", "--short", "HEAD")
        facts["changed"] = len(git("status", "--porcelain", "--untracked-files=no").splitlines())
    except GitError as error:
        advice = ""
        if "dubious ownership" in str(error):
            advice = f"git config --global --add safe.directory {Path.cwd()}"
        found += f", commit unknown ({error})"
        return [Finding("steadyspike", "note" if advice else "ok", found, advice, facts)]
    found += f", commit {facts['commit']}"
    if facts["changed"]:
        found += f", changed files: {facts['changed']}"
    return [Finding("steadyspike", "ok", found, facts=facts)]


def fetched_root() -> Path:
    """As `steadyspike.data.dataset.fetched_root`, which loads torch."""
    return Path(os.environ.get("STEADYSPIKE_DATA") or "datasets")


def disks() -> list[Finding]:
    """The checkout, and where runs and data sets lie, if they lie elsewhere or may not be written.

    Training writes to ``runs`` alone.
    """
    findings = [_disk("checkout", Path())]
    for topic, folder in (("runs", Path("runs")), ("datasets", fetched_root())):
        found = _disk(topic, folder, needed=topic == "runs")
        if not found.facts["writable"] or found.facts["device"] != findings[0].facts["device"]:
            findings.append(found)
    return findings


def _disk(topic: str, folder: Path, needed: bool = False) -> Finding:
    """Room and permission to write in ``folder``, or where it would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free, found_at, me = shutil.disk_usage(place).free, place.stat(), os.geteuid()
    writable = os.access(place, os.W_OK | os.X_OK)
    facts = {
        "path": str(place),
        "device": found_at.st_dev,
        "free": free,
        "writable": writable,
        "owned": found_at.st_uid == me,
    }
    if not writable:
        found = f"{place} cannot be written by user {me}; its owner is {found_at.st_uid}"
        advice = "give it to this user, run as its owner, or mount it writable"
        return Finding(topic, "problem" if needed else "note", found, advice, facts)
    found = f"{place}: {size(free)} free"
    if free < LITTLE_DISK:
        advice = "make room: a run keeps weights and a checkpoint, and DVC a copy"
        return Finding(topic, "note", found, advice, facts)
    if found_at.st_uid != me:
        found += f", owned by user {found_at.st_uid}, you are {me}"
    return Finding(topic, "ok", found, facts=facts)


def dvc() -> list[Finding]:
    """Whether this is a DVC checkout, whether dvc runs, and the state of dvc.lock."""
    if not Path(".dvc").is_dir():
        advice = "run this in the checkout; `steadyspike train` works without DVC"
        return [Finding("DVC", "note", "this folder is no DVC checkout", advice)]
    facts: dict[str, Any] = {"version": None, "lock": None}
    try:
        import dvc.repo  # type: ignore[import-untyped]  # noqa: F401

        facts["version"] = importlib.metadata.version("dvc")
    except Exception as error:
        found = f"dvc cannot be imported: {first_line(error)}"
        advice = "make setup; `steadyspike train` works without DVC"
        return [Finding("DVC", "note", found, advice, facts)]
    found, advice = f"{facts['version']}, dvc.lock ", ""
    try:
        facts["lock"] = _lock_state()
        found += facts["lock"]
    except GitError as error:
        found += f"not compared ({error})"
    if facts["lock"] not in (None, "as committed"):
        advice = "`git diff dvc.lock` shows what gave other results than the commit's"
    return [Finding("DVC", "note" if advice else "ok", found, advice, facts)]


def _lock_state() -> str:
    if not Path("dvc.lock").is_file():
        return "missing"
    if not git("ls-files", "dvc.lock"):
        return "not committed"
    return "changed" if git("status", "--porcelain", "dvc.lock") else "as committed"


def pulled() -> list[Finding]:
    """Whether the embedded data lie where data.dvc says, by the number and size of its files."""
    described = Path("data.dvc")
    if not described.is_file():
        return []
    from steadyspike.train.params import read_yaml

    (out,) = read_yaml(described)["outs"]
    folder, expected = Path(out["path"]), (out["nfiles"], out["size"])
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    here = (len(files), sum(files))
    facts = {"path": str(folder), "files": len(files), "size": sum(files)}
    if not files:
        return [Finding("data.dvc", "note", f"{folder}/ is not pulled", PULL, facts)]
    if here != expected:
        found = f"{folder}/: {here[0]} files of {here[1]} bytes, expected {expected[0]} of "
        found += f"{expected[1]}"
        return [Finding("data.dvc", "note", found, f"{PULL} --force", facts)]
    found = f"{folder}/ is pulled, {size(sum(files))}"
    return [Finding("data.dvc", "ok", found, facts=facts)]
