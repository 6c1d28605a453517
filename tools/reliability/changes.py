"""Training goes on in a changed world: the same trajectory, or a refusal that names the change."""

import itertools
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import logs
import refusals
import streamed
from project import NAME, Project, differences, fail, make_project
from resumes import ROUNDING, Start, distance, finish, interrupted_in_epoch, training
from rows import Row

COMMAND = ".venv/bin/python tools/reliability changes"
SEED = 64
EXACT: dict[str, dict[str, Any]] = {
    "training": {"epochs": 2, "steps": 4, "chunk": 4, "precision": "float64"},
    "evaluation": {"steps": 4},
}
RANKS = ((1, 2), (2, 1), (2, 4), (4, 1))
CHUNKS = ((4, 1), (1, 4), (4, 2), (2, 1), (1, 2), (2, 4))
#: Each in another part of what training runs; a comment changes the code and not what it does.
CHANGED_CODE = ("train/trainer.py", "neuron.py", "data/loading.py")


@dataclass(frozen=True)
class Change:
    """What training begins as, and what it goes on as."""

    name: str
    before: Start
    after: Start


def measure(work: Path, few: bool) -> Iterator[Row]:
    """The rows of this part."""
    numbers = random.Random(SEED)
    exact = make_project(work, "exact", **EXACT)
    whole = trained(exact, work / "exact-whole")
    tries = 1 if few else 2
    changes = [
        Change(f"{a} to {b}", training(ranks=a), training(ranks=b))
        for a, b in (RANKS[:1] if few else RANKS)
        for _ in range(tries)
    ]
    yield to_rounding(
        "Resumed in mid-epoch by another number of processes", exact, whole, changes, numbers
    )
    chunks = [
        Change(f"{a} to {b}", with_chunk(a), with_chunk(b))
        for a, b in (CHUNKS[:1] if few else CHUNKS)
        for _ in range(1 if few else 2)
    ]
    yield to_rounding(
        "Resumed in mid-epoch with another chunk K (`training.chunk`; T is 4)",
        exact,
        whole,
        chunks,
        numbers,
    )
    project = make_project(work, training={"epochs": 2})
    whole = trained(project, work / "whole")
    yield logs.row(project, whole, numbers, few)
    yield streamed.row(work, numbers, few)
    yield of_other_code(project, whole, work, numbers, CHANGED_CODE[: 1 if few else None])
    yield refusals.row(project, work, numbers, few)


def trained(project: Project, root: Path) -> Project:
    """The same project, trained without a break."""
    project = project.fresh(root)
    if not finish(project, training(every="5m")):
        raise RuntimeError(f"the undisturbed run in {root} failed")
    return project


def fresh_copies(project: Project, name: str) -> Callable[[], Project]:
    """Makes one new project after the other."""
    count = itertools.count()
    return lambda: project.fresh(project.root.parent / f"{name}-{next(count)}")


def with_chunk(chunk: int) -> Start:
    """Training with this K in params.yaml."""

    def start(project: Project) -> Any:
        project.change(training={"chunk": chunk})
        return training()(project)

    return start


def to_rounding(
    claim: str,
    project: Project,
    whole: Project,
    changes: Sequence[Change],
    numbers: random.Random,
) -> Row:
    """Each change once; how far the final weights are from the undisturbed run's."""
    held, greatest = 0, 0.0
    for number, change in enumerate(changes):
        name = f"{claim.split()[-1].strip('`()')}-{number}"
        found = interrupted_in_epoch(fresh_copies(project, name), change.before, numbers)
        if found is None or not finish(found[0], change.after):
            continue
        got = found[0].run_folder
        apart = distance(whole.run_folder / "model.safetensors", got / "model.safetensors")
        same = (got / "history.csv").read_text() == (whole.run_folder / "history.csv").read_text()
        greatest = max(greatest, apart)
        held += apart <= ROUNDING and same
        if apart > ROUNDING or not same:
            fail(f"{claim}, {change.name}, from {found[1]}: {apart:.2g} apart; {same=} history")
    names = list(dict.fromkeys(change.name for change in changes))
    return Row(
        f"{claim}: every final weight within {ROUNDING:.0e} of the undisturbed run's, in float64 "
        "(relative for those over 1), and the same history",
        held,
        len(changes),
        f"{', '.join(names)}; at most {greatest:.1e} apart",
        COMMAND,
    )


def of_other_code(
    project: Project, whole: Project, work: Path, numbers: random.Random, files: Sequence[str]
) -> Row:
    """Begun by another version of the code, finished by the present one."""
    held = 0
    for number, name in enumerate(files):
        other = changed_code(project.source, work / f"other-code-{number}", name)
        older = replace(project, source=other)
        found = interrupted_in_epoch(fresh_copies(older, f"code-{number}"), training(), numbers)
        if found is None:
            continue
        resumed = replace(found[0], source=project.source)
        if not finish(resumed, training()):
            continue
        status, err = resumed.run("evaluate", NAME)
        codes = [code_sha256(older), code_sha256(resumed)]
        recorded = _recorded(resumed) if status == 0 else {}
        same = not differences(_weights(whole), _weights(resumed))
        held += recorded.get("code") == codes and codes[0] != codes[1] and same
        if recorded.get("code") != codes or not same:
            fail(f"code changed in {name}: {same=} weights; {codes} recorded as {recorded}; {err}")
    return Row(
        "Resumed after the code has changed: allowed, and both versions' hashes are in "
        "metrics.json, in order; where the change was a comment, the same bytes of weights",
        held,
        len(files),
        f"changed: {', '.join(files)}",
        COMMAND,
    )


def changed_code(source: Path, folder: Path, name: str) -> Path:
    """A copy of the code with one more comment in one file."""
    shutil.copytree(source, folder / "src")
    with (folder / "src" / "steadyspike" / name).open("a") as file:
        file.write("# Another version.\n")
    return folder / "src"


def code_sha256(project: Project) -> str:
    """What the project's code says of itself."""
    return project.python("from steadyspike.train import provenance as p; print(p.code_sha256())")


def _recorded(project: Project) -> Mapping[str, Any]:
    import json

    metrics = json.loads((project.run_folder / "metrics.json").read_text())
    provenance: Mapping[str, Any] = metrics.get("provenance", {})
    return provenance


def _weights(project: Project) -> dict[str, bytes]:
    names = ("model.safetensors", "best.safetensors", "history.csv")
    return {name: (project.run_folder / name).read_bytes() for name in names}
