"""Readers of the event data sets' recordings: AEDAT 2.0 with DVS128 addresses, and AEDAT 3.1.

Formats: https://docs.inivation.com/software/software-advanced-usage/file-formats/ (pages AEDAT
1.0, whose DVS128 address AEDAT 2.0 widens to 32 bits, 2.0 and 3.1).
"""

import struct
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadyspike.data.events import SIDE, Events
from steadyspike.errors import UserError
from steadyspike.files import reading

HEADER_ENDS = (b"end-header", b"end of ascii header")

CAMERA = "DVS128"
MOST_ADDRESS = 0xFFFF  # of its events in AEDAT 2.0; a DAVIS has bits above

EVENT_BYTES = 8
# type, source, event size, timestamp offset, timestamp overflow, capacity, number, valid
PACKET = struct.Struct("<hhiiiiii")
POLARITY_EVENT = 1


def read_aedat2(path: Path | zipfile.Path) -> Events:
    """Reads an AEDAT 2.0 recording of a DVS128, oriented as the published CIFAR10-DVS frames.

    After the header every event is two big-endian words of 32 bits, address and microseconds.
    The address holds the polarity in bit 0, the sensor's x in bits 1-7 and its y in bits 8-14.
    The published frames show column 127 - y, row 127 - x and polarity 1 - bit (SpikingJelly's
    reader of CIFAR10-DVS, which the paper's released code uses). As there, bit 15 (an external
    signal) is ignored and events stay in the file's order even if times run backwards.

    Raises UserError for another format or camera, a truncated file and one without events.
    """
    content = _content(path)
    at = _header_end(content, path, "2.0")
    if (len(content) - at) % EVENT_BYTES:
        raise UserError(
            f"{path}: truncated; expected a whole number of {EVENT_BYTES}-byte events after the"
            f" header, found {len(content) - at} bytes"
        )
    words = np.frombuffer(content, ">u4", offset=at).reshape(-1, 2)
    if not len(words):
        raise UserError(f"{path}: no events; expected at least one after the header")
    address = words[:, 0].astype(np.uint32)
    if address.max() > MOST_ADDRESS:
        raise UserError(
            f"{path}: a recording of another camera; expected addresses of a {CAMERA}, 0 to"
            f" {MOST_ADDRESS}, found {address.max()}"
        )
    return Events(
        t=words[:, 1].astype(np.int64),
        x=(127 - (address >> 8 & 127)).astype(np.uint8),
        y=(127 - (address >> 1 & 127)).astype(np.uint8),
        p=(1 - (address & 1)).astype(np.uint8),
    )


def read_aedat3(path: Path) -> Events:
    """Reads the polarity events of an AEDAT 3.1 recording of a DVS128.

    After the header come packets: a header of 28 bytes, then events of equal size. A polarity
    event is two little-endian words of 32 bits: validity in bit 0, polarity in bit 1, y in bits
    2-16 and x in bits 17-31; and microseconds, to which the packet's overflow times 2^31 is
    added. Events marked invalid are left out and counted. Nothing is sorted.

    Raises UserError for another format or camera, a truncated or altered file, a pixel outside the
    sensor, a negative time and a recording without events.
    """
    content = _content(path)
    at = _header_end(content, path, "3.1")
    packets, overflows, sizes = [np.empty((0, 2), np.uint32)], [0], [0]
    while at < len(content):
        if len(content) - at < PACKET.size:
            raise UserError(f"{path}: truncated; expected a packet of {PACKET.size} bytes at {at}")
        kind, _, size, _, overflow, capacity, number, _ = PACKET.unpack_from(content, at)
        if size < EVENT_BYTES or overflow < 0 or not 0 <= number <= capacity:
            raise UserError(f"{path}: altered; expected the header of an event packet at byte {at}")
        start, at = at + PACKET.size, at + PACKET.size + size * capacity
        if at > len(content):
            raise UserError(
                f"{path}: truncated; expected a packet up to byte {at}, found {len(content)} bytes"
            )
        if kind != POLARITY_EVENT:
            continue
        if size != EVENT_BYTES:
            raise UserError(
                f"{path}: altered; expected polarity events of {EVENT_BYTES} bytes, found {size}"
            )
        packets.append(np.frombuffer(content, "<u4", 2 * number, start).reshape(-1, 2))
        overflows.append(overflow)
        sizes.append(number)
    words = np.concatenate(packets)
    return _polarity_events(
        words[:, 0],
        words[:, 1].astype(np.int64),
        np.repeat(np.array(overflows, np.int64), sizes),
        path,
    )


def _polarity_events(
    data: NDArray[np.uint32], low: NDArray[np.int64], overflow: NDArray[np.int64], path: Path
) -> Events:
    valid = (data & 1).astype(bool)
    if not valid.any():
        raise UserError(f"{path}: no events; expected at least one valid polarity event")
    invalid = int(len(valid) - valid.sum())
    if invalid:
        data, low, overflow = data[valid], low[valid], overflow[valid]
    if (low >> 31).any():
        raise UserError(f"{path}: altered; expected times of 0 to 2^31 - 1 in a packet")
    x, y = data >> 17, data >> 2 & 0x7FFF
    for name, values in (("x", x), ("y", y)):
        if values.max() >= SIDE:
            raise UserError(f"{path}: expected {name} of 0 to {SIDE - 1}, found {values.max()}")
    p = (data >> 1 & 1).astype(np.uint8)
    return Events(low | overflow << 31, x.astype(np.uint8), y.astype(np.uint8), p, invalid)


def _content(path: Path | zipfile.Path) -> bytes:
    with reading(path):
        return path.read_bytes()


def _header_end(content: bytes, path: Path | zipfile.Path, version: str) -> int:
    """The offset after the header lines, which begin with ``#``; the first has the version."""
    if not content.startswith(f"#!AER-DAT{version}".encode()):
        raise UserError(
            f"{path}: expected an AEDAT {version} file, which begins with '#!AER-DAT{version}',"
            f" found {content[:12]!r}"
        )
    at = 0
    while content.startswith(b"#", at):
        end = content.find(b"\n", at)
        if end < 0:
            raise UserError(f"{path}: truncated; expected the end of a header line")
        line, at = content[at:end].strip(), end + 1
        if line.startswith(b"#Format:") and line != b"#Format: RAW":
            raise UserError(f"{path}: expected '#Format: RAW', found {line.decode('latin-1')!r}")
        # jAER names the camera's class, and cAER the camera.
        camera = line.removeprefix(b"#").lstrip()
        if camera.startswith((b"AEChip:", b"Source ")) and CAMERA.encode() not in camera:
            raise UserError(
                f"{path}: a recording of another camera; expected a {CAMERA}, found"
                f" {camera.decode('latin-1')!r}"
            )
        # The mark matters if the first byte of the first event happens to be a '#'.
        if line.lstrip(b"#! ").lower() in HEADER_ENDS:
            break
    return at
