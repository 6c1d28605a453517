"""Images that other processes read and decode, by however many: the same bits.

Run as a program in a project's folder it is `steadyspike train` for its few images: the data set
that is streamed, ImageNet, is one of 1,281,167, and the command accepts no other number.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from project import NAME, Project, differences, fail, make_project
from resumes import finish, interrupted_in_epoch, training
from rows import Row

COMMAND = ".venv/bin/python tools/reliability changes"
CLASSES = ("n01440764", "n01443537", "n01484850", "n01491361")
IMAGES = {"train": 48, "val": 16}
FOLDER = "datasets"
CHANGES = ((0, 1), (1, 0), (1, 2), (2, 3), (3, 1), (2, 0))


def row(work: Path, numbers: random.Random, few: bool) -> Row:
    """Training begins with one number of workers and goes on with another."""
    project = make_project(
        work,
        "streamed",
        dataset={"name": "imagenet", "augmentation": "flip"},
        model={"widths": [4, "P", 4, "P", 8]},
        training={"epochs": 2, "batch": 4},
        evaluation={"batch": 8},
    )
    write_images(project.root / FOLDER)
    project = replace(project, program=(str(Path(__file__)),))
    folders = (work / f"streamed-{number}" for number in itertools.count())

    def fresh(workers: int) -> Project:
        copy = project.copy(next(folders))
        return replace(copy, more={"STEADYSPIKE_WORKERS": str(workers)})

    changes: Sequence[tuple[int, int]] = CHANGES[2:3] if few else CHANGES
    whole = fresh(1)
    if not finish(whole, training(every="5m")):
        return Row(CLAIM, 0, len(changes), "", COMMAND)
    expected = whole.outcome("runs")
    held = 0
    for before, after in changes:
        found = interrupted_in_epoch(lambda: fresh(before), training(), numbers)  # noqa: B023
        if found is None:
            continue
        resumed = replace(found[0], more={"STEADYSPIKE_WORKERS": str(after)})
        if not finish(resumed, training()):
            continue
        different = differences(expected, resumed.outcome("runs"))
        held += not different
        if different:
            fail(f"{before} workers, then {after}: not as undisturbed: {', '.join(different)}")
    told = ", ".join(f"{before} to {after}" for before, after in changes)
    figures = (
        f"{told}; the undisturbed run with 1; {sum(IMAGES.values())} images of ImageNet's form"
    )
    return Row(CLAIM, held, len(changes), figures, COMMAND)


CLAIM = (
    "Resumed in mid-epoch with another number of processes that decode images "
    "(`STEADYSPIKE_WORKERS`): the run's files have the undisturbed run's bytes"
)


def write_images(folder: Path) -> None:
    """JPEG files of noise in each class's own colour, of all sizes, where ImageNet's would lie."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for number in range(count):
            label = number % len(CLASSES)
            height, width = random.integers(230, 300, 2)
            noise = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
            noise[..., label % 3] += 40 * (1 + label // 3)
            path = folder / "imagenet" / split / CLASSES[label] / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(path)


def main() -> int:
    """`steadyspike train` of the experiment in params.yaml, in this folder."""
    from steadyspike.pins import keep_freed_memory, pin_cpu

    command = argparse.ArgumentParser()
    command.add_argument("train")
    command.add_argument("experiment")
    command.add_argument("--checkpoint-every", required=True)
    options = command.parse_args()
    pin_cpu()
    keep_freed_memory()
    from steadyspike.data import imagenet
    from steadyspike.train.config import load_experiment
    from steadyspike.train.determinism import make_deterministic
    from steadyspike.train.run import train_run
    from steadyspike.train.signals import Stopped

    make_deterministic()
    dataset = imagenet.load(Path(FOLDER), imagenet.Expected(len(CLASSES), IMAGES))
    experiment = load_experiment(Path("params.yaml"), options.experiment)
    seconds = {"0s": 0.0, "5m": 300.0}[options.checkpoint_every]
    try:
        train_run(experiment, dataset, Path("runs", NAME), checkpoint_every=seconds)
    except Stopped as stopped:
        return stopped.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
