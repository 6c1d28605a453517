"""Figures have the same bytes in every process, and text stays text in Markdown and SVG."""

import itertools
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from steadyspike.plotting import (
    COLOURS,
    _two_decimals,
    escape_markdown,
    figure,
    legend,
    line_style,
    markdown_table,
    save_svg,
)
from steadyspike.report.methods import METHODS

SVG = "{http://www.w3.org/2000/svg}"


def drawn(label: str, name: str = "f") -> str:
    with figure(5.6, 3.9) as drawing:
        axes = drawing.subplots()
        axes.plot([1, 2, 3], [1, 3, 2], label=label, **line_style("crimson", "o", (4, 2)))
        legend(drawing, axes, 3)
        return save_svg(drawing, name, "A title", "A description")


def test_svg_depends_on_neither_the_users_style_nor_earlier_figures() -> None:
    first = drawn("a")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        assert drawn("a") == first
    assert "2026" not in first


def test_ids_are_unique_and_all_references_are_found() -> None:
    svg = drawn("a", "one")
    light, dark = COLOURS["crimson"]
    assert f'[style*="stroke: {light}"]{{stroke:{dark}!important}}' in svg  # for dark screens
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(identity.startswith("one-") for identity in ids if identity)
    for element in root.iter():
        link = element.get("{http://www.w3.org/1999/xlink}href")
        assert link is None or link[1:] in ids


def test_a_legend_is_not_wider_than_its_figure() -> None:
    own = ("OSR, warmed up (ours)", "OSR + OTS, warmed up (ours)")
    labels = [*(method.label for method in METHODS.values()), *own]
    for count in range(1, len(labels) + 1):
        with figure(9.4, 6.8) as drawing:
            axes = drawing.subplots()
            for label in sorted(labels[-count:]):
                axes.plot([1, 2], [1, 2], label=label, **line_style("blue", "o"))
            legend(drawing, axes, 6)
            drawing.canvas.draw()
            (box,) = [each.get_window_extent() for each in drawing.legends]
            assert drawing.bbox.x0 <= box.x0, count
            assert box.x1 <= drawing.bbox.x1, count


@pytest.mark.parametrize("label", ["$x$", "<b>&", "a_b^c", 'd="1.23456"'])
def test_a_label_is_shown_as_it_stands(label: str) -> None:
    root = ElementTree.fromstring(drawn(label))
    assert label in [text.text for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("number", "text"),
    [("1.2345", "1.23"), ("-0.001", "0"), ("2.00", "2"), ("0.125", "0.13"), ("0.1249999", "0.13")],
)
def test_coordinates_are_rounded_alike_on_processors_that_differ_in_the_last_digit(
    number: str, text: str
) -> None:
    assert re.sub(r"-?\d+\.\d+", _two_decimals, number) == text


@pytest.mark.parametrize("name", ["a|b", "`a|b`", "<script>", "*a* [x](y)", "a\\|b", "_a_"])
def test_markdown_keeps_a_hostile_name_in_its_cell(name: str) -> None:
    table = markdown_table(["Name", "x"], [[escape_markdown(name), "1.00"]], ["left", "right"])
    row = table.splitlines()[2].replace("\\\\", "").replace("\\|", "").replace("\\<", "")
    assert row.count("|") == 3
    assert "<" not in row


def test_numbers_keep_their_digits_in_markdown() -> None:
    table = markdown_table(["Name", "x"], [["007", "1.00"], ["", "12.50"]], ["left", "right"])
    assert table.splitlines()[1:] == [
        "|:-------|------:|",
        "| 007    |  1.00 |",
        "|        | 12.50 |",
    ]


# How the three common colour-vision deficiencies see linear RGB (Machado et al. 2009, severity 1).
VISIONS = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("screen", [0, 1], ids=["light", "dark"])
def test_methods_can_be_told_apart_by_every_eye(screen: int) -> None:
    colours = [COLOURS[method.colour][screen] for method in METHODS.values()]
    ground = COLOURS["ground"][screen]
    assert min(contrast(colour, ground) for colour in colours) >= 3
    assert contrast(COLOURS["ink"][screen], ground) >= 7
    assert contrast(COLOURS["muted"][screen], ground) >= 4.5
    for vision in VISIONS.values():
        seen = [lab(np.array(vision) @ linear(colour)) for colour in colours]
        distances = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)]
        assert min(distances) >= 15
