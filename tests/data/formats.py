"""Writers of the formats that the data sets are published in."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

AEDAT2 = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
)
AEDAT3 = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 2016-05-24 12:00:00 (TZ+0000)\r\n#!END-HEADER\r\n"
)

Event = tuple[int, int, int, int]  # t, x, y, p


def aedat2(events: Iterable[Event]) -> bytes:
    """A recording of CIFAR10-DVS, of the sensor's own x, y and polarity bit."""
    return AEDAT2 + b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for t, x, y, p in events)


def packet(
    events: Sequence[Event],
    *,
    kind: int = 1,
    size: int = 8,
    overflow: int = 0,
    spare: int = 0,
    invalid: Sequence[int] = (),
) -> bytes:
    """One packet of polarity events, ``spare`` of its places of ``size`` bytes unused."""
    capacity, valid = len(events) + spare, len(events) - len(invalid)
    head = struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, capacity, len(events), valid)
    body = b"".join(
        struct.pack("<II", x << 17 | y << 2 | p << 1 | (place not in invalid), t)
        for place, (t, x, y, p) in enumerate(events)
    )
    return head + body + bytes(size * spare)


def aedat3(*packets: bytes) -> bytes:
    """A recording of DVS128 Gesture."""
    return AEDAT3 + b"".join(packets)


def gesture_labels(rows: Iterable[tuple[int, int, int]]) -> bytes:
    """The class, start and end of each gesture in a recording of DVS128 Gesture."""
    lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def tar_of(members: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset + 2 * tarfile.BLOCKSIZE  # the rest is padding
    return out.getvalue()[:end]


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def photograph(seed: int, mode: str = "RGB", form: str = "JPEG") -> bytes:
    """An image file of about 260 by 240 pixels, of smooth random colours."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 5 + seed % 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((260 + 7 * seed, 240 + 3 * seed)).convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()
