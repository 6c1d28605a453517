"""What the experiments of a params.yaml need, against what is here. Loads torch."""

from pathlib import Path

from steadyspike.doctor.finding import Finding, State
from steadyspike.doctor.project import fetched_root
from steadyspike.errors import UserError
from steadyspike.train.config import Experiment, load_experiments

#: The one data set that comes with the repository, so small that all of it is checked here.
EMBEDDED = "embedded"
CHECKED, UNCHECKED, MISSING = "here, checked", "here, not checked yet", "missing"


def experiments(path: Path, gpus: int) -> list[Finding]:
    """Whether ``path`` holds valid experiments whose device is here."""
    try:
        known = list(load_experiments(path).values())
    except UserError as error:
        advice = "" if path.exists() else "run this in the checkout, or name one with --params"
        return [Finding("experiments", "problem", str(error), advice, {"names": []})]
    devices = sorted({experiment.device for experiment in known})
    facts = {"names": [experiment.name for experiment in known], "devices": devices}
    found = f"{len(known)} in {path}, device {' and '.join(devices) or 'none'}"
    wanting = [experiment.name for experiment in known if experiment.device == "cuda"]
    if wanting and not gpus:
        found = f"device: cuda in {', '.join(wanting)} of {path}, and torch finds no GPU"
        advice = "device: cpu trains the same, slowly; or add a GPU as said above"
        return [Finding("experiments", "problem", found, advice, facts)]
    return [Finding("experiments", "ok", found, facts=facts)]


def _known(path: Path) -> list[Experiment]:
    """The experiments of ``path``; none where `experiments` tells what is wrong with it."""
    try:
        return list(load_experiments(path).values())
    except UserError:
        return []


def shared_memory_needed(path: Path) -> int | None:
    """Bytes of the batches that worker processes hold at once, at the greatest batch in ``path``.

    Only images that do not fit in memory are read by worker processes.
    """
    from steadyspike.data.resized_crop import SIDE
    from steadyspike.data.streaming import READ_AHEAD, worker_count

    known = _known(path)
    batches = [e.training.batch for e in known] + [e.evaluation.batch for e in known]
    if not batches:
        return None
    return worker_count() * READ_AHEAD * max(batches) * 3 * SIDE * SIDE


def data_sets(path: Path) -> list[Finding]:
    """Each data set that is here or that ``path`` names, and one finding for all others."""
    from steadyspike import data

    wanted = {experiment.dataset.name for experiment in _known(path)}
    findings: list[Finding] = []
    others: list[str] = []
    for name in sorted({*data.NAMES} | wanted):
        found, advice = _data_set(name, fetched_root())
        if found == MISSING and name not in wanted:
            others.append(name)
            continue
        usable = found in (CHECKED, UNCHECKED)
        problem = name in wanted and not usable
        state: State = "problem" if problem else "ok" if found == CHECKED else "note"
        facts = {"usable": usable, "checked": found == CHECKED, "wanted": name in wanted}
        findings.append(Finding(f"data {name}", state, found, advice, facts))
    if others:
        found = f"not fetched: {', '.join(others)}"
        advice = "steadyspike fetch NAME, before an experiment needs one"
        findings.append(Finding("other data", "ok", found, advice, {"names": others}))
    return findings


def _data_set(name: str, root: Path) -> tuple[str, str]:
    """What is here of a data set, and what to do about what is not."""
    from steadyspike import data

    if name not in data.NAMES:
        return "no such data set", f"expected one of {', '.join(data.NAMES)}"
    if name == EMBEDDED:
        try:
            data.manifest_of(name)
        except UserError as error:
            return str(error), ""
        return CHECKED, ""
    # `fetch` writes the manifest last, once every file has been checked.
    if (root / f"{name}.manifest.json").is_file():
        return CHECKED, ""
    fetch = f"steadyspike fetch {name}"
    return (UNCHECKED, fetch) if (root / name).is_dir() else (MISSING, fetch)
