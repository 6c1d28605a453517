"""Decoding of image files, and class folders."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from steadyspike.data.images import decode, list_class_folders, read_images
from steadyspike.errors import UserError
from tiny import one_line

from .formats import photograph

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # PNG's colour types
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)
WIDE = RANDOM.integers(0, 65536, (6, 5, 4), dtype=np.uint16)


def png(depth: int, kind: int, rows: list[bytes], width: int, **chunks: bytes) -> bytes:
    """A PNG file from its rows as stored, written by the specification."""

    def chunk(name: bytes, content: bytes) -> bytes:
        sums = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + sums

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    extra = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def wide_png(kind: int, channels: int, **chunks: bytes) -> bytes:
    """`WIDE`'s first channels with 16 bits each."""
    rows = [row[:, :channels].astype(">u2").tobytes() for row in WIDE]
    return png(16, kind, rows, 5, **chunks)


def saved(pixels: NDArray[Any], form: str = "PNG", mode: str | None = None, **how: Any) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, form, **how)
    return out.getvalue()


def colours(raw: bytes) -> NDArray[np.int64]:
    return np.asarray(decode(raw, "x")).astype(np.int64)


def on_white(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_eight_bits_are_kept() -> None:
    assert np.array_equal(colours(saved(PIXELS)), PIXELS)
    grey = PIXELS[:, :, 0]
    assert np.array_equal(colours(saved(grey)), np.repeat(grey[:, :, None], 3, 2))
    assert np.array_equal(np.asarray(decode(saved(grey), "x", "L")), grey)


def test_a_colour_image_in_grey() -> None:
    expected = PIXELS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(np.asarray(decode(saved(PIXELS), "x", "L")) - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_span_the_whole_range(bits: int) -> None:
    most = (1 << bits) - 1
    row = bytes([1 << 8 - 2 * bits, most << 8 - bits])  # the values 0, 1, ... and most
    grey = colours(png(bits, GREY, [row], 8 // bits + 1))[0, :, 0]
    assert (grey[0], grey[1], grey[-1]) == (0, 255 // most, 255)


def test_of_sixteen_bits_the_upper_eight_are_kept() -> None:
    upper = (WIDE >> 8).astype(np.int64)
    assert np.array_equal(colours(wide_png(GREY, 1)), upper[:, :, [0, 0, 0]])
    assert np.array_equal(colours(wide_png(COLOUR, 3)), upper[:, :, :3])
    # And alpha is applied.
    shown = on_white(upper[:, :, [0, 0, 0]], upper[:, :, 1])
    assert np.abs(colours(wide_png(GREY_ALPHA, 2)) - shown).max() <= 1
    shown = on_white(upper[:, :, :3], upper[:, :, 3])
    assert np.abs(colours(wide_png(COLOUR_ALPHA, 4)) - shown).max() <= 1


def test_transparent_parts_lie_on_white() -> None:
    alpha = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
    alpha[0, :2] = (0, 255)
    got = colours(saved(np.dstack([PIXELS, alpha])))
    assert np.abs(got - on_white(PIXELS, alpha)).max() <= 1
    assert (got[0, 0] == 255).all()
    assert np.array_equal(got[0, 1], PIXELS[0, 1])
    grey = np.dstack([PIXELS[:, :, 0], alpha])
    got = colours(saved(grey))
    assert np.abs(got - on_white(grey[:, :, [0, 0, 0]], alpha)).max() <= 1
    # One colour may be declared transparent instead.
    rows = [row.tobytes() for row in PIXELS]
    key = b"".join(struct.pack(">H", value) for value in PIXELS[2, 3])
    got = colours(png(8, COLOUR, rows, 5, tRNS=key))
    assert (got[2, 3] == 255).all()
    assert np.array_equal(got[2, 2], PIXELS[2, 2])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_gives_its_colours(bits: int) -> None:
    palette = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)
    row = bytes([0, 1]) if bits == 8 else bytes([1 << 8 - 2 * bits])
    for alpha, first in ((b"", [10, 20, 30]), (b"\0", [255, 255, 255])):
        chunks = {"PLTE": palette.tobytes()} | ({"tRNS": alpha} if alpha else {})
        got = colours(png(bits, PALETTE, [row], 2, **chunks))
        assert got.tolist() == [[first, [200, 100, 0]]]


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
def test_jpeg_in_other_colours(mode: str) -> None:
    colour = [120] * 3 if mode == "L" else [200, 100, 40]
    flat = np.full((16, 16, 3), colour, np.uint8)
    got = colours(saved(flat, "JPEG", mode, quality=95))
    assert np.abs(got - colour).max() <= 4


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_stands_as_its_exif_data_say(form: str) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # the upper left quarter
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),  # shown turned clockwise
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        raw = saved(np.ascontiguousarray(pixels), form, exif=exif)
        assert np.abs(colours(raw) - upright).max() < 10, orientation


def test_damaged_exif_data_do_not_matter() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = saved(PIXELS, exif=exif)
    at = raw.index(b"eXIf") + 4
    damaged = raw[:at] + bytes(8) + raw[at + 8 :]
    start = at + struct.unpack(">I", raw[at - 8 : at - 4])[0]
    sums = struct.pack(">I", zlib.crc32(damaged[at - 4 : start]))
    assert np.array_equal(colours(damaged[:start] + sums + damaged[start + 4 :]), PIXELS)


def test_a_transparent_colour_that_pillow_misreads_is_refused() -> None:
    for raw in (
        wide_png(GREY, 1, tRNS=struct.pack(">H", WIDE[0, 0, 0])),
        wide_png(COLOUR, 3, tRNS=struct.pack(">3H", *WIDE[0, 0, :3])),
        png(1, GREY, [b"\x40"], 2, tRNS=b"\0\1"),
        png(2, GREY, [b"\x10"], 2, tRNS=b"\0\1"),
    ):
        with pytest.raises(UserError, match=r"x: .*a transparent colour in a PNG of the type"):
            decode(raw, "x")


def test_damaged_files_are_named() -> None:
    random, messages = np.random.default_rng(0), []
    for form in ("JPEG", "PNG"):
        whole = photograph(1, form=form)
        for case in range(60):
            raw = bytearray(whole)
            if case % 2:
                raw = raw[: int(random.integers(len(raw)))]
            else:
                for place in random.integers(len(raw), size=4):
                    raw[place] = int(random.integers(256))
            try:
                decode(bytes(raw), "x.JPEG")
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 60
    assert all(line.startswith("x.JPEG: expected") and "\n" not in line for line in messages)
    with pytest.raises(UserError, match=r"expected a whole JPEG or PNG image \(unknown format\)"):
        decode(b"GIF89a" + bytes(50), "x.JPEG")
    with pytest.raises(UserError, match=r"a\.png: expected a whole JPEG or PNG image"):
        decode(b"some text\n", "a.png")


# Class folders


def lay(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")


def test_classes_and_files_are_sorted_and_strays_ignored(tmp_path: Path) -> None:
    lay(tmp_path, "b/2.png", "b/1.JPG", "a/x.jpeg")
    lay(
        tmp_path,
        "__MACOSX/._b",
        ".DS_Store",
        "b/.DS_Store",
        "a/Thumbs.db",
        "a/._x.jpeg",
        ".git/x",
        "desktop.ini",
    )
    assert list_class_folders(tmp_path) == {
        "a": [tmp_path / "a/x.jpeg"],
        "b": [tmp_path / "b/1.JPG", tmp_path / "b/2.png"],
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: lay(folder, "a/notes.txt"), "a/notes.txt: expected only image files"),
        (lambda folder: lay(folder, "a/deeper.png/1.png"), "a/deeper.png: expected only image"),
        (lambda folder: lay(folder, "labels.csv"), "labels.csv: expected only class folders"),
        (lambda folder: (folder / "c").mkdir(), "c: empty; expected images of this class"),
        (lambda folder: (folder / "a/1.png").unlink(), "a: empty; expected images of this class"),
    ],
)
def test_what_is_no_class_folder_is_named(
    change: Callable[[Path], Any], words: str, tmp_path: Path
) -> None:
    lay(tmp_path, "a/1.png")
    change(tmp_path)
    with pytest.raises(UserError) as caught:
        list_class_folders(tmp_path)
    one_line(caught.value, f"{tmp_path}/{words}")


def test_folders_that_hold_nothing_or_cannot_be_read(tmp_path: Path) -> None:
    for folder, words in (
        (tmp_path, "empty; expected a folder of images for each class"),
        (tmp_path / "gone", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(UserError) as caught:
            list_class_folders(folder)
        one_line(caught.value, f"{folder}: {words}")


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(folder: Path) -> None:  # a superuser may read any
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        list_class_folders(tmp_path)


@pytest.mark.parametrize("workers", ["0", "3"])
def test_images_are_read_in_order(
    workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEADYSPIKE_WORKERS", workers)
    files = [tmp_path / str(n) for n in range(50)]

    def read(path: Path) -> Image.Image:
        return Image.new("RGB", (2, 4), (int(path.name), 7, 9))

    images = read_images(files, (3, 4, 2), read)
    assert images[:, 0, 1, 1].tolist() == list(range(50))
    assert (images[:, 1:, 3, 0] == [7, 9]).all()
    grey = read_images(files[:3], (1, 4, 2), lambda path: read(path).getchannel("G"))
    assert (grey == 7).all()

    def refuse(path: Path) -> Image.Image:
        raise UserError(f"{path.name}: no")

    with pytest.raises(UserError, match="0: no"):
        read_images(files, (3, 4, 2), refuse)
