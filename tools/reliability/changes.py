"""Resume training with other settings: the same results, or a new beginning that names them."""

import io
import itertools
import random
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from page import Row
from project import (
    NAME,
    Attempts,
    Failure,
    Project,
    ended,
    make_project,
    wait_for_write,
)
from stops import TRAIN

ROUNDING = 1e-9
#: Other summation orders differ by rounding alone in float64; in float32 rounding grows.
FLOAT64: dict[str, Any] = {
    "training": {"epochs": 2, "steps": 4, "chunk": 4, "precision": "float64"},
    "evaluation": {"steps": 4},
}
PROCESSES = ((1, 2), (2, 1), (2, 4), (4, 1))
CHUNKS = ((4, 1), (1, 4), (4, 2), (2, 1), (1, 2), (2, 4))
WORKERS = ((0, 1), (1, 0), (1, 2), (2, 3), (3, 1), (2, 0))
#: A small stand-in for ImageNet, whose images are decoded by other processes.
CLASSES = ("n01440764", "n01443537", "n01484850", "n01491361")
IMAGES = {"train": 48, "val": 16}
#: What decides results, by dotted key: each changed by itself, and two together.
DECISIVE: tuple[dict[str, Any], ...] = (
    {"name": "renamed"},
    {"dataset.augmentation": "flip"},
    {"model.widths": [4, "P", 9]},
    {"model.norm": "per_step"},
    {"model.stabilize_threshold": False},
    {"model.reset": "zero"},
    {"model.tau": 1.5},
    {"model.dropout": 0.2},
    {"training.epochs": 5},
    {"training.batch": 9},
    {"training.steps": 3},
    {"training.learning_rate": 0.2},
    {"training.momentum": 0.8},
    {"training.mse_weight": 0.1},
    {"training.precision": "float64"},
    {"evaluation.batch": 21},
    {"model.tau": 1.5, "training.batch": 9},
)


def measure(work: Path, few: bool) -> Iterator[Row]:
    """Rows: other numbers of processes, chunks and workers, other experiments."""
    numbers = random.Random(64)
    exact = make_project(work, "float64", **FLOAT64)
    whole = exact.fresh(work / "undisturbed")
    whole.finish(*TRAIN)
    for claim, name, pairs, begin in (
        ("by another number of processes", "processes", PROCESSES, with_processes),
        ("with another chunk K (`training.chunk`; T is 4)", "chunk", CHUNKS, with_chunk),
    ):
        attempts, greatest = Attempts(), 0.0
        for number, (first, second) in enumerate(pairs[:1] if few else pairs * 2):
            with attempts.attempt():
                command = begin(exact, first)
                run = stopped_within_an_epoch(exact, work / f"{name}-{number}", command, numbers)
                run.finish(*begin(run, second))
                greatest = max(greatest, must_be_close(whole, run))
        yield Row(
            f"Stopped within an epoch and resumed {claim}: every final weight within "
            f"{ROUNDING:.0e} of the undisturbed run's, in float64 (relative for weights over 1), "
            "and the same history.csv",
            attempts.held,
            attempts.tried,
            f"{', '.join(f'{a} to {b}' for a, b in pairs)}; greatest difference {greatest:.1e}",
        )
    yield workers(work, numbers, WORKERS[2:3] if few else WORKERS)
    yield begun_anew(make_project(work), work, numbers, DECISIVE[-1:] if few else DECISIVE)


def with_processes(project: Project, count: int) -> tuple[str, ...]:
    """The command that trains by so many processes."""
    return ("launch", "--nproc-per-node", str(count), *TRAIN) if count > 1 else TRAIN


def with_chunk(project: Project, chunk: int) -> tuple[str, ...]:
    """The command that trains with that chunk, which is written to params.yaml."""
    project.set_experiment(training={"chunk": chunk})
    return TRAIN


def stopped_within_an_epoch(
    project: Project,
    root: Path,
    command: tuple[str, ...],
    numbers: random.Random,
    **variables: str,
) -> Project:
    """A copy of the project whose training was stopped between two batches of an epoch."""
    import torch

    for attempt in itertools.count():
        run = project.fresh(root.with_name(f"{root.name}-{attempt}"))
        process = run.start(*command, **variables)
        wait_for_write(process, run.run_folder, numbers.randint(2, 20))
        process.send_signal(signal.SIGTERM)
        status, err = ended(process)
        if status != 143 or attempt == 4:
            raise Failure(f"{' '.join(command)}: ended with {status} on SIGTERM: {err}")
        saved = io.BytesIO(run.checkpoint.read_bytes()[:-32])  # without the SHA-256 at the end
        if torch.load(saved, weights_only=True)["state"]["batch"] > 0:
            break
    return run


def must_be_close(expected: Project, got: Project) -> float:
    """The greatest difference of the final weights; raises Failure if it is over `ROUNDING`."""
    from safetensors.torch import load_file

    files = [project.run_folder / "model.safetensors" for project in (got, expected)]
    ours, theirs = (load_file(path) for path in files)
    if ours.keys() != theirs.keys():
        raise Failure(f"{files[0]}: other tensors than in {files[1]}")
    greatest = 0.0
    for name, tensor in theirs.items():
        difference = (ours[name] - tensor).abs() / tensor.abs().clamp(min=1)
        greatest = max(greatest, float(difference.max()))
    histories = [(project.run_folder / "history.csv").read_text() for project in (got, expected)]
    if not greatest <= ROUNDING or histories[0] != histories[1]:
        same = histories[0] == histories[1]
        raise Failure(f"{got.root}: {greatest:.2g} from the undisturbed run; {same=} history")
    return greatest


def workers(work: Path, numbers: random.Random, pairs: Sequence[tuple[int, int]]) -> Row:
    """Resume with another number of processes that decode images."""
    project = make_project(
        work,
        "imagenet",
        dataset={"name": "imagenet", "augmentation": "flip"},
        model={"widths": [4, "P", 4, "P", 8]},
        training={"epochs": 2, "batch": 4},
        evaluation={"batch": 8},
    )
    project = replace(project, source=expecting_few_images(project.source, work / "imagenet-src"))
    write_images(project.root / "datasets" / "imagenet")
    whole = project.fresh(work / "imagenet-undisturbed")
    whole.finish(*TRAIN)
    expected, attempts = whole.results(), Attempts()
    for number, (first, second) in enumerate(pairs):
        with attempts.attempt():
            root = work / f"workers-{number}"
            count = {"STEADYSPIKE_WORKERS": str(first)}
            run = stopped_within_an_epoch(project, root, TRAIN, numbers, **count)
            run.finish(*TRAIN, STEADYSPIKE_WORKERS=str(second))
            run.must_equal(expected)
    return Row(
        "Stopped within an epoch and resumed with another number of processes that decode images "
        "(`STEADYSPIKE_WORKERS`): the run's files have the same bytes as without the stop",
        attempts.held,
        attempts.tried,
        f"{', '.join(f'{a} to {b}' for a, b in pairs)}; {sum(IMAGES.values())} images laid out "
        "as ImageNet's",
    )


def expecting_few_images(source: Path, folder: Path) -> Path:
    """A copy of the code that expects `CLASSES` and `IMAGES` of ImageNet."""
    shutil.copytree(source, folder)
    module = folder / "steadyspike" / "data" / "imagenet.py"
    text, changed = re.subn(
        r"(?m)^ILSVRC2012 = .*",
        f"ILSVRC2012 = Expected({len(CLASSES)}, {IMAGES})",
        module.read_text(),
    )
    assert changed == 1
    module.write_text(text)
    return folder


def write_images(folder: Path) -> None:
    """JPEG files of noise, in a colour of their class and of different sizes."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for number in range(count):
            label = number % len(CLASSES)
            height, width = generator.integers(230, 300, 2)
            noise = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
            noise[..., label % 3] += 40 * (1 + label // 3)
            path = folder / split / CLASSES[label] / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(path)


def begun_anew(
    project: Project, work: Path, numbers: random.Random, changes: Sequence[dict[str, Any]]
) -> Row:
    """Start one stopped run again with each of these changes of its experiment."""
    stopped = stopped_within_an_epoch(project, work / "stopped", TRAIN, numbers)
    attempts = Attempts()
    for number, change in enumerate(changes):
        run = stopped.copy(work / f"changed-{number}")
        undisturbed = project.fresh(work / f"changed-{number}-undisturbed")
        with attempts.attempt():
            must_begin_anew(run, undisturbed, change)
    return Row(
        "Started again after the experiment has changed: a line names exactly the keys that "
        "differ, the old checkpoint is moved aside whole, and the run's files have the same bytes "
        "as without it",
        attempts.held,
        attempts.tried,
        ", ".join(" and ".join(f"`{key}`" for key in change) for change in changes),
    )


def must_begin_anew(stopped: Project, undisturbed: Project, change: Mapping[str, Any]) -> None:
    """Raise Failure unless training the changed experiment moves the old checkpoint aside."""
    sections: dict[str, Any] = {}
    for key, value in change.items():
        section, _, name = key.partition(".")
        if name:
            sections.setdefault(section, {})[name] = value
    name = change.get("name", NAME)
    for project in (stopped, undisturbed):
        project.set_experiment(name, **sections)
    folder = stopped.run_folder.rename(stopped.run_folder.with_name(name))
    aside = {
        f"runs/{name}/stale-{path.name}": path.read_bytes() for path in folder.glob("*checkpoint*")
    }
    status, err = stopped.run("train", name)
    note = err.partition("\n")[0]
    named = set(note.split()) & known_keys(stopped, name)
    if status or not note.startswith("steadyspike: note: ") or named != change.keys():
        raise Failure(f"expected a note of {', '.join(change)} alone, ended with {status}: {err}")
    undisturbed.finish("train", name)
    stopped.must_equal({**undisturbed.results(), **aside})


def known_keys(project: Project, name: str) -> set[str]:
    """The dotted keys that decide an experiment's results."""
    from steadyspike.train.config import load_experiment

    return set(load_experiment(project.root / "params.yaml", name).decisive())
