"""A checkpoint of another experiment is refused, and the line names what differs."""

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from project import CHECKPOINT, NAME, Project, contents, differences, fail
from resumes import interrupted_in_epoch, training
from rows import Row

COMMAND = ".venv/bin/python tools/reliability changes"
PAIRS = 10
#: Keys that a run may go on with: they move work about.
FREE = {"device", "training.chunk", "training.cuda_graph"}
#: For keys whose values are names.
OTHER_NAMES: dict[str, Any] = {
    "name": "renamed",
    "dataset.augmentation": "flip",
    "model.norm": "per_step",
    "model.reset": "zero",
    "model.name": "resnet19",
    "model.inference_threshold": "fixed",
    "model.head": "linear",
    "model.head_widths": [16],
    "training.precision": "float64",
}


def row(project: Project, work: Path, numbers: random.Random, few: bool) -> Row:
    """Every key of the experiment changed by itself, and some in pairs."""
    folders = (work / f"refused-{number}" for number in itertools.count())
    found = interrupted_in_epoch(lambda: project.fresh(next(folders)), training(), numbers)
    changes = list(changed_keys(project))
    if few:
        changes = numbers.sample(changes, 2)
    else:
        changes += [a | b for a, b in (numbers.sample(changes, 2) for _ in range(PAIRS))]
    held = 0
    for number, change in enumerate(changes):
        if found is not None:
            held += refused(found[0].copy(work / f"changed-{number}"), change)
    keys = {key for change in changes for key in change}
    return Row(
        "Resumed after the experiment has changed: refused in one line that names the keys that "
        "differ, those and no others, exit status 2; every file is as it was",
        held,
        len(changes),
        f"{len(keys)} keys of params.yaml, {len(changes)} changes of one or several",
        COMMAND,
    )


def changed_keys(project: Project) -> Iterator[dict[str, Any]]:
    """Each key that decides the trajectory, with a value that this experiment can have."""
    for key, value in decisive(project).items():
        if key == "model.name":
            yield {key: OTHER_NAMES[key], "model.widths": [4, 8], "model.blocks": [1, 1]}
        elif key != "dataset.name":  # refused for its data, which nobody has fetched
            yield {key: OTHER_NAMES[key] if key in OTHER_NAMES else other(value)}


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 2 if value >= 1 else value / 2
        case list():
            return [*value, value[0] + 1] if value[1:] else [value[0] + 1]
    raise NotImplementedError(f"another value than {value!r}")


def decisive(project: Project, name: str = NAME) -> dict[str, Any]:
    """The experiment's dotted keys, but for those that are free to change."""
    from steadyspike.train.config import load_experiment

    experiment = load_experiment(project.root / "params.yaml", name)
    return {key: value for key, value in flat(experiment.model_dump()).items() if key not in FREE}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def nested(change: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections of params.yaml."""
    sections: dict[str, Any] = {}
    for key, value in change.items():
        section, dot, name = key.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
        else:
            sections[key] = value
    return sections


def refused(project: Project, change: Mapping[str, Any]) -> bool:
    """Whether training refuses this change as it should."""
    overrides = nested(change)
    name = overrides.pop("name", NAME)
    document = yaml.safe_load((project.root / "params.yaml").read_text())
    document["experiments"] = {name: overrides}
    (project.root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    if name != NAME:
        project.run_folder.rename(project.run_folder.with_name(name))
    before = contents(project.root / "runs")
    status, err = project.run("train", name)
    changed = [
        path
        for path in differences(before, contents(project.root / "runs"))
        if not path.endswith("environment.json")
    ]
    lines = err.splitlines()
    place = f"steadyspike: runs/{name}/{CHECKPOINT}: "
    one_line = len(lines) == 1 and lines[0].startswith(place)
    told = {key for key in decisive(project, name) if f" {key} is " in err}
    sound = status == 2 and one_line and not changed and told == change.keys()
    if not sound:
        fail(f"{change} of the experiment: ended with {status}; {changed=}; {err}")
    return sound
