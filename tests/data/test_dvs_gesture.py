import gzip
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steadyspike import data
from steadyspike.data.dvs_gesture import CLASSES, DATASET, RELEASED_CLASSES, read_labels
from steadyspike.errors import UserError
from tiny import contents

from .formats import aedat3, packet, tar_of
from .formats import gesture_labels as labels

# Events every 10 µs from 1000 on; x numbers them.
EVENTS = [(1000 + 10 * n, n, 2 * n % 128, n % 2) for n in range(100)]
RECORDING = aedat3(packet(EVENTS[:30]), packet(EVENTS[30:], invalid=[69]))
MEMBERS = {
    "DvsGesture/trials_to_train.txt": b"user02_led.aedat\r\nuser01_lab.aedat\n\n",
    "DvsGesture/trials_to_test.txt": b"user24_lab.aedat\n",
    "DvsGesture/user01_lab.aedat": RECORDING,
    "DvsGesture/user01_lab_labels.csv": labels(
        [(11, 1000, 1400), (8, 1400, 1650), (8, 1600, 1900)]
    ),
    "DvsGesture/user02_led.aedat": RECORDING,
    "DvsGesture/user02_led_labels.csv": labels([(2, 0, 1010), (8, 1980, 5000)]),
    "DvsGesture/user24_lab.aedat": RECORDING,
    "DvsGesture/user24_lab_labels.csv": labels([(1, 1000, 2000)]),
    "DvsGesture/README.txt": b"read me",
}


def archive(root: Path, **changes: bytes | None) -> str:
    """Writes the archive where it belongs, some members changed or left out; returns its MD5."""
    members = dict(MEMBERS)
    for name, content in changes.items():
        full = f"DvsGesture/{name}"
        del members[full]
        if content is not None:
            members[full] = content
    path = root / "dvs_gesture" / "DvsGesture.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(tar_of(members)))
    return hashlib.md5(path.read_bytes()).hexdigest()


def fetch(root: Path, md5: str) -> Path:
    return replace(DATASET, archives={"DvsGesture.tar.gz": (md5, "")}).fetch(root)


def test_recordings_become_clips_in_the_released_order(tmp_path: Path) -> None:
    path = fetch(tmp_path, archive(tmp_path))
    assert path == tmp_path / "dvs_gesture.manifest.json"
    manifest = json.loads(path.read_text())
    assert (manifest["events"], manifest["invalid_events"]) == (3 * 99, 3)
    dataset = data.load("dvs_gesture", tmp_path)
    assert dataset.classes == CLASSES
    assert dataset.num_classes == 11
    # Sorted by class as text, "1" before "10" before "7", and then by recording.
    assert list(RELEASED_CLASSES) == sorted(range(11), key=str)
    assert dataset.train.labels.tolist() == [1, 10, 7, 7, 7]
    assert dataset.test.labels.tolist() == [0]
    assert dataset.train.shape == (20, 2, 128, 128)
    ((_, train, _),) = dataset.train.gather([torch.arange(5)], None, None)
    ((_, test, _),) = dataset.test.gather([torch.arange(1)], None, None)
    # The first event alone: too few for 20 frames, so it is in the last.
    assert train[0].nonzero().tolist() == [[19, 0, 0, 0]]
    # 40 events of 1000 <= t < 1400, two a frame, one of each polarity.
    assert train[1].nonzero().tolist() == [
        [frame, p, 2 * n % 128, n]
        for frame in range(20)
        for p, n in ((0, 2 * frame), (1, 2 * frame + 1))
    ]
    # user01's two, overlapping, then user02's; one event a frame, the rest in the last.
    assert train[2:].flatten(2).sum(-1).tolist() == [
        [1] * 19 + [25 - 19],
        [1] * 19 + [30 - 19],
        [0] * 19 + [1],  # its last event is marked invalid
    ]
    # All 99 valid ones: 4 a frame, 23 in the last.
    assert test[0].flatten(1).sum(-1).tolist() == [4] * 19 + [23]
    assert test[0, 0].nonzero().tolist() == [[0, 0, 0], [0, 4, 2], [1, 2, 1], [1, 6, 3]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trials_to_test.txt", None, "trials_to_test.txt: cannot be read"),
        ("trials_to_test.txt", b"\n", "trials_to_test.txt: expected the name of a recording"),
        ("trials_to_test.txt", b"user25_lab.aedat", "an .aedat file beside it, found user25"),
        ("trials_to_test.txt", b"README.txt", "an .aedat file beside it, found README.txt"),
        ("user24_lab_labels.csv", None, "user24_lab_labels.csv: missing"),
        (
            "user24_lab_labels.csv",
            labels([(1, 1000, 2000), (2, 2000, 3000)]),
            "user24_lab_labels.csv: line 3: expected an interval with events of ",
        ),
        ("user24_lab_labels.csv", labels([(1, 0, 1000)]), "which lie at 1000 to 1980 µs"),
        ("user24_lab.aedat", aedat3(), "user24_lab.aedat: no events"),
    ],
)
def test_nothing_is_left_of_a_damaged_file(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    md5 = archive(tmp_path, **{name: content})
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        fetch(tmp_path, md5)
    assert "\n" not in str(caught.value)
    assert list(contents(tmp_path)) == ["dvs_gesture/DvsGesture.tar.gz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected the header class,startTime_usec,endTime_usec"),
        (b"1,2,3\n", "line 1: expected the header"),
        (labels([]), "expected at least one label"),
        (labels([]) + b"1,2\n", "line 2: expected three whole numbers"),
        (labels([]) + b"1,2,3,4\n", "line 2: expected three whole numbers"),
        (labels([]) + b"1,-2,3\n", "line 2: expected three whole numbers"),
        (labels([]) + b"1,2.0,3\n", "line 2: expected three whole numbers"),
        (labels([(1, 2, 3), (0, 2, 3)]), "line 3: expected a class of 1 to 11, found 0"),
        (labels([(1, 3, 3)]), "line 2: expected a start before the end 3"),
        (labels([]) + b"\xff,2,3\n", "cannot be read"),
        (b'class,startTime_usec,endTime_usec\n"1,2,3', "three whole numbers"),
    ],
)
def test_bad_labels_are_named_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"labels\.csv: .*{re.escape(message)}"):
        read_labels(path)


def test_labels_count_from_zero_and_allow_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(labels([(1, 5, 9), (11, 0, 3)]).replace(b"\n", b"\r\n") + b"\r\n")
    assert [(x.label, x.start, x.end, x.line) for x in read_labels(path)] == [
        (0, 5, 9, 2),
        (10, 0, 3, 3),
    ]
