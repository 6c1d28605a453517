"""DVS128 Gesture (Amir et al., CVPR 2017): 29 people, 11 gestures, 1,176 and 288 samples."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadyspike.console import notify
from steadyspike.data.aedat import read_aedat3
from steadyspike.data.archive import check_md5, extracted
from steadyspike.data.clips import SPLITS, Clip, ClipStore, write_clips
from steadyspike.data.dataset import Dataset, Source, fetched_root
from steadyspike.data.events import integrate
from steadyspike.errors import UserError
from steadyspike.files import read_at_most

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

# Counts are counts: `to_frames` multiplies by 255 / 255.
MEAN, STD = (0.0, 0.0), (1 / 255, 1 / 255)

URL = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
ARCHIVE = "DvsGesture.tar.gz"
MD5 = "8a5c71fb11e24e5ca5b11866ca6c00a1"  # as SpikingJelly and tonic list it
ARCHIVE_LIMIT = 16 << 30  # bytes that it unpacks to, at most
LARGEST_TEXT = 1 << 20  # bytes of a file of labels or names
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

    Intervals may overlap: some published ones do. Raises UserError that names file and line.
    """
    try:
        rows = list(csv.reader(read_at_most(path, LARGEST_TEXT).decode().splitlines()))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; expected the labels of a recording") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not rows or [word.strip() for word in rows[0]] != LABEL_COLUMNS:
        raise UserError(f"{path}: line 1: expected the header {','.join(LABEL_COLUMNS)}")
    labels = []
    for line, row in enumerate(rows[1:], start=2):
        words = [word.strip() for word in row]
        if not any(words):
            continue
        # Sixteen digits of microseconds are 300 years.
        if len(words) != 3 or not all(w.isascii() and w.isdigit() and len(w) <= 16 for w in words):
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
class _Sample:
    recording: Path
    label: Label
    name: str


def read_split(folder: Path, split: str) -> list[_Sample]:
    """The samples of ``trials_to_<split>.txt`` in the released reader's order.

    That is by class and then by name, ``<recording>_<how many of that class before>``, both in
    the order of text. A batch at inference depends on it where thresholds do.
    """
    path = folder / f"trials_to_{split}.txt"
    try:
        names = read_at_most(path, LARGEST_TEXT).decode().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path}: expected the name of a recording on each line, each once")
    samples = []
    for name in names:
        recording = folder / name
        if recording.name != name or recording.suffix != ".aedat" or not recording.is_file():
            raise UserError(f"{path}: expected the name of an .aedat file beside it, found {name}")
        seen: dict[int, int] = {}
        for label in read_labels(folder / f"{recording.stem}_labels.csv"):
            before = seen[label.label] = seen.get(label.label, -1) + 1
            samples.append(_Sample(recording, label, f"{recording.stem}_{before}.npz"))
    return sorted(samples, key=lambda sample: (str(sample.label.label), sample.name))


def _clips(splits: dict[str, list[_Sample]], seen: dict[str, int]) -> Iterator[Clip]:
    """Every sample's frames, each recording read once; ``seen`` adds up its events."""
    for split, samples in splits.items():
        recordings: dict[Path, list[int]] = {}
        for place, sample in enumerate(samples):
            recordings.setdefault(sample.recording, []).append(place)
        notify(f"{NAME}: {len(recordings)} recordings to {split} on")
        for recording, places in recordings.items():
            events = read_aedat3(recording)
            seen["events"] += len(events)
            seen["invalid_events"] += events.invalid
            for place in places:
                label = samples[place].label
                clip = events.between(label.start, label.end)
                if not len(clip):
                    raise UserError(
                        f"{recording.stem}_labels.csv: line {label.line}: expected an interval"
                        f" with events of {recording}, which lie at {events.t.min()} to"
                        f" {events.t.max()} µs"
                    )
                yield split, place, integrate(clip, STEPS)


def fetch(root: Path | None, *, md5: str = MD5) -> Path:
    """Checks the archive, which a person has to download, and integrates it to frames, once.

    Raises UserError that says what to download and where to put it.
    """
    store = _store(root)
    if store.complete():
        store.verified()
        return store.path
    archive = store.folder / ARCHIVE
    if not archive.is_file():
        raise UserError(
            f"{archive}: missing; download {ARCHIVE} (MD5 {md5}) with a browser from {URL}, put it"
            f" there and run `steadyspike fetch {NAME}` again: it checks the sum, extracts the"
            " archive and integrates the recordings to frames"
        )
    source = check_md5(archive, md5, f"download it again from {URL}")
    seen = {"events": 0, "invalid_events": 0}
    store.begin()
    with extracted(archive, ARCHIVE_LIMIT) as folder:
        splits = {split: read_split(folder / "DvsGesture", split) for split in SPLITS}
        labels = {split: [s.label.label for s in samples] for split, samples in splits.items()}
        write_clips(store.folder, STEPS, labels, _clips(splits, seen))
    store.finish({ARCHIVE: source}, **seen)
    return store.path


def load(root: Path | None) -> Dataset:
    """The clips (M, 20, 2, 128, 128), mapped from the file."""
    return Dataset(NAME, CLASSES, MEAN, STD, **_store(root).opened())


def manifest(root: Path | None) -> dict[str, Any]:
    """The sums of the frames and of the archive that they were made of, all frames read."""
    return _store(root).verified()


def _store(root: Path | None) -> ClipStore:
    return ClipStore(fetched_root(root), NAME, STEPS)


SOURCES = {NAME: Source(load, fetch, manifest)}
