"""DVS128 Gesture (Amir et al., CVPR 2017): 29 people, 11 gestures, 1,176 and 288 samples."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadyspike.console import notify
from steadyspike.data.aedat import read_aedat3
from steadyspike.data.clips import SPLITS, EventDataset, write_clips
from steadyspike.data.download import unpack
from steadyspike.data.events import integrate
from steadyspike.errors import UserError

NAME = "dvs_gesture"
STEPS = 20
CLASSES = (
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
)
# Output k of a network trained by the released code stands for our class RELEASED_CLASSES[k]: its
# reader numbers the folders "0" to "10" in the order of their names as text.
RELEASED_CLASSES = (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)

URL = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
ARCHIVE = "DvsGesture.tar.gz"
MD5 = "8a5c71fb11e24e5ca5b11866ca6c00a1"  # as SpikingJelly and tonic list it
LABEL_COLUMNS = ["class", "startTime_usec", "endTime_usec"]


@dataclass(frozen=True)
class Label:
    """One gesture in a recording: its class, 0 to 10, from ``start`` to before ``end`` (µs)."""

    label: int
    start: int
    end: int
    line: int  # in the label file


def read_labels(path: Path) -> list[Label]:
    """Reads a recording's ``class,startTime_usec,endTime_usec``; the file's classes are 1 to 11.

    Intervals may overlap, as some published ones do. Raises UserError that names file and line.
    """
    try:
        rows = list(csv.reader(path.read_text().splitlines()))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; expected the labels of a recording") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not rows or [word.strip() for word in rows[0]] != LABEL_COLUMNS:
        raise UserError(f"{path}: line 1: expected the header {','.join(LABEL_COLUMNS)}")
    labels = []
    for line, row in enumerate(rows[1:], start=2):
        words = [word.strip() for word in row]
        if not any(words):
            continue
        if len(words) != 3 or not all(word.isascii() and word.isdigit() for word in words):
            raise UserError(f"{path}: line {line}: expected three whole numbers, found {row}")
        number, start, end = map(int, words)
        if not 1 <= number <= len(CLASSES):
            raise UserError(f"{path}: line {line}: expected a class of 1 to 11, found {number}")
        if start >= end:
            raise UserError(f"{path}: line {line}: expected a start before the end {end}")
        labels.append(Label(number - 1, start, end, line))
    if not labels:
        raise UserError(f"{path}: expected at least one label")
    return labels


@dataclass(frozen=True)
class Sample:
    """A gesture, its recording, and the name by which the released reader sorts it."""

    recording: Path
    label: Label
    name: str


def read_split(folder: Path, split: str) -> list[Sample]:
    """The samples of ``trials_to_<split>.txt`` in the released reader's order.

    That is by class and then by name, ``<recording>_<how many of that class before>``, both
    sorted as text. It decides the batches at inference, which matter to live thresholds.
    """
    path = folder / f"trials_to_{split}.txt"
    try:
        names = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not names:
        raise UserError(f"{path}: expected the name of a recording on each line")
    samples = []
    for name in names:
        recording = folder / name
        if recording.suffix != ".aedat" or not recording.is_file():
            raise UserError(f"{path}: expected the name of an .aedat file beside it, found {name}")
        seen: dict[int, int] = {}
        for label in read_labels(folder / f"{recording.stem}_labels.csv"):
            before = seen[label.label] = seen.get(label.label, -1) + 1
            samples.append(Sample(recording, label, f"{recording.stem}_{before}.npz"))
    return sorted(samples, key=lambda sample: (str(sample.label.label), sample.name))


def _clips(
    split: str, samples: list[Sample], counts: dict[str, int]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yields position and frames of every sample, reading each recording once; counts events."""
    recordings: dict[Path, list[int]] = {}
    for position, sample in enumerate(samples):
        recordings.setdefault(sample.recording, []).append(position)
    notify(f"{NAME}: {split}, {len(recordings)} recordings")
    for recording, positions in recordings.items():
        events = read_aedat3(recording)
        counts["events"] += len(events)
        counts["invalid_events"] += events.invalid
        for position in positions:
            label = samples[position].label
            clip = events.between(label.start, label.end)
            if not len(clip):
                raise UserError(
                    f"{recording.stem}_labels.csv: line {label.line}: expected an interval"
                    f" with events of {recording}, which lie at {events.t.min()} to"
                    f" {events.t.max()} µs"
                )
            yield position, integrate(clip, STEPS)


def convert(folder: Path, out: Path) -> dict[str, Any]:
    """Integrates the archive's recordings to the clips of both splits; returns event counts."""
    unpack(folder / ARCHIVE, out)
    counts = {"events": 0, "invalid_events": 0}
    for split in SPLITS:
        samples = read_split(out / "DvsGesture", split)
        labels = [sample.label.label for sample in samples]
        write_clips(out, split, STEPS, labels, _clips(split, samples, counts))
    return counts


DATASET = EventDataset(NAME, STEPS, CLASSES, {ARCHIVE: (MD5, URL)}, convert)
SOURCES = {NAME: DATASET.source()}
