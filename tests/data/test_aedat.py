import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steadyspike.data.aedat import read_aedat2, read_aedat3
from steadyspike.data.events import Events
from steadyspike.errors import UserError
from tiny import one_line

from .formats import AEDAT2, AEDAT3, aedat2, aedat3, packet

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
THREE = [(10, 1, 2, 1), (20, 127, 0, 0), (30, 0, 127, 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.aedat"


def rows(events: Events) -> list[tuple[int, ...]]:
    columns = (getattr(events, name).tolist() for name in "txyp")
    return list(zip(*columns, strict=True))


pixel = st.integers(0, 127)
event = st.tuples(st.integers(0, 2**31 - 1), pixel, pixel, st.integers(0, 1))


@same_folder
@given(events=st.lists(event, min_size=1), cut=st.integers(0, 20), overflow=st.integers(0, 3))
def test_all_events_are_read_in_the_files_order(
    path: Path, events: list[tuple[int, int, int, int]], cut: int, overflow: int
) -> None:
    path.write_bytes(aedat2(events))
    assert rows(read_aedat2(path)) == [(t, 127 - y, 127 - x, 1 - p) for t, x, y, p in events]
    other = packet([(99, 3, 4, 0)], kind=0)  # not of polarity events
    path.write_bytes(
        aedat3(packet(events[:cut], spare=cut % 3), other, packet(events[cut:], overflow=overflow))
    )
    later = [(t + (overflow << 31), x, y, p) for t, x, y, p in events[cut:]]
    assert rows(read_aedat3(path)) == events[:cut] + later


def test_aedat2_decodes_the_bytes_of_an_event(path: Path) -> None:
    # y 0x12, x 0x45, polarity 1: 0x1200 + 0x8a + 1; the external bit 15 is ignored.
    path.write_bytes(AEDAT2 + bytes.fromhex("0000128b 000f4240 0000928b ffffffff"))
    column, row = 127 - 0x12, 127 - 0x45
    assert rows(read_aedat2(path)) == [(1_000_000, column, row, 0), (2**32 - 1, column, row, 0)]


@pytest.mark.parametrize(
    "end", [b"#End Of ASCII Header\r\n", b"# End of ASCII header\n", b"#!END-HEADER\r\n"]
)
def test_the_end_mark_comes_before_an_event_like_a_line(path: Path, end: bytes) -> None:
    path.write_bytes(AEDAT2 + end + struct.pack(">II", 0x23 << 24 | 0xFF, 7))
    with pytest.raises(UserError, match="a recording of another camera; expected addresses"):
        read_aedat2(path)


def test_aedat3_decodes_the_bytes_of_a_packet(path: Path) -> None:
    # x 0x45 << 17, y 0x12 << 2, polarity 1 << 1, valid: 0x008a0000 + 0x48 + 3.
    head = "0100 0100 08000000 04000000 00000000 01000000 01000000 01000000"
    path.write_bytes(AEDAT3 + bytes.fromhex(head + "4b008a00 40420f00"))
    assert rows(read_aedat3(path)) == [(1_000_000, 0x45, 0x12, 1)]


def test_aedat3_leaves_out_and_counts_invalid_events(path: Path) -> None:
    bad = (2**32 - 1, 9999, 9999, 1)  # an invalid event may have any values
    path.write_bytes(aedat3(packet([THREE[0], bad, THREE[1]], invalid=[1], spare=5)))
    events = read_aedat3(path)
    assert rows(events) == THREE[:2]
    assert events.invalid == 1
    assert [getattr(events, name).dtype for name in "txyp"] == [np.int64] + [np.uint8] * 3


def head(*numbers: int) -> bytes:
    return struct.pack("<hhiiiiii", *numbers)


BAD2 = [
    (b"", "expected an AEDAT 2.0 file, which begins with '#!AER-DAT2.0', found b''"),
    (b"\0" * 80, "expected an AEDAT 2.0 file"),
    (aedat3(packet(THREE)), "expected an AEDAT 2.0 file"),
    (AEDAT2[:-3], "truncated; expected the end of a header line"),
    (AEDAT2, "no events"),
    (aedat2(THREE)[:-1], "truncated; expected a whole number of 8-byte events"),
    (aedat2(THREE)[:-4], "truncated; expected a whole number of 8-byte events"),
    (
        AEDAT2 + b"# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n" + bytes(8),
        "a recording of another camera; expected a DVS128, found 'AEChip: eu.seebetter",
    ),
    (AEDAT2 + struct.pack(">II", 1 << 22 | 3 << 12, 7), "another camera; expected addresses of a"),
    (None, "cannot be read: No such file"),
]
BAD3 = [
    (b"", "expected an AEDAT 3.1 file"),
    (AEDAT3.replace(b"3.1", b"3.0"), "expected an AEDAT 3.1 file"),
    (AEDAT3.replace(b"RAW", b"Compressed"), "expected '#Format: RAW'"),
    (AEDAT3, "no events; expected at least one valid"),
    (AEDAT3.replace(b"DVS128", b"DAVIS240C"), "expected a DVS128, found 'Source 1: DAVIS240C'"),
    (aedat3(packet(THREE, kind=2)), "no events"),
    (aedat3(packet(THREE, invalid=[0, 1, 2])), "no events"),
    (aedat3(packet(THREE), packet(THREE))[:-1], "truncated; expected a packet up to byte"),
    (aedat3(packet(THREE), packet(THREE))[:-25], "truncated; expected a packet of 28 bytes"),
    (AEDAT3 + head(1, 1, 8, 4, 0, 2**31 - 1, 2**31 - 1, 0), "truncated"),
    (AEDAT3 + head(2, 1, 2**31 - 1, 4, 0, 2**31 - 1, 0, 0), "truncated"),
    (AEDAT3 + head(1, 1, 8, 4, 0, -1, -1, 0), "altered; expected the header of an event"),
    (AEDAT3 + head(1, 1, 8, 4, 0, 0, 1, 0) + bytes(8), "altered; expected the header"),
    (AEDAT3 + head(1, 1, 0, 4, 0, 9, 9, 0), "altered; expected the header"),
    (AEDAT3 + head(1, 1, 8, 4, -1, 1, 1, 1) + bytes(8), "altered; expected the header"),
    (AEDAT3 + head(1, 1, 12, 4, 0, 1, 1, 1) + bytes(12), "polarity events of 8 bytes, found 12"),
    (aedat3(packet([(0, 128, 0, 0)])), "expected x of 0 to 127, found 128"),
    (aedat3(packet([(0, 0, 32767, 0)])), "expected y of 0 to 127, found 32767"),
    (aedat3(packet([(2**31, 0, 0, 0)])), "expected times of 0 to 2^31 - 1"),
    (None, "cannot be read: No such file"),
]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [(read_aedat2, *case) for case in BAD2] + [(read_aedat3, *case) for case in BAD3],
)
def test_a_bad_file_is_refused(
    path: Path, read: Callable[[Path], Events], content: bytes | None, message: str
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert one_line(caught.value, message).startswith(f"{path}: ")


@same_folder
@given(keep=st.integers(0, 400), at=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_file_gives_events_or_a_one_line_error(
    path: Path, keep: int, at: int, value: int
) -> None:
    for read, whole in (
        (read_aedat2, aedat2(THREE * 5)),
        (read_aedat3, aedat3(packet(THREE), packet(THREE, overflow=1), packet(THREE))),
    ):
        raw = bytearray(whole)
        raw[at % len(raw)] = value
        path.write_bytes(raw[: max(keep, len(AEDAT2))])
        try:
            events = read(path)
        except UserError as error:
            one_line(error)
        else:
            assert len(events) > 0
            assert max(events.x.max(), events.y.max()) < 128
            assert events.p.max() <= 1


def test_a_header_may_name_the_camera(path: Path) -> None:
    line = b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
    path.write_bytes(AEDAT2 + line + bytes(8))
    assert len(read_aedat2(path)) == 1
