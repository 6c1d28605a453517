"""Figures have the same bytes in every process, and text stays text in Markdown and SVG."""

import re
from xml.etree import ElementTree

import matplotlib
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
    root = ElementTree.fromstring(drawn("a", "one"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(identity.startswith("one-") for identity in ids if identity)
    for element in root.iter():
        link = element.get("{http://www.w3.org/1999/xlink}href")
        assert link is None or link[1:] in ids


@pytest.mark.parametrize("label", ["$x$", "<b>&", "a_b^c", 'd="1.23456"'])
def test_a_label_is_shown_as_it_stands(label: str) -> None:
    root = ElementTree.fromstring(drawn(label))
    assert label in [text.text for text in root.iter(f"{SVG}text")]


def test_every_colour_that_is_drawn_has_one_for_dark_screens() -> None:
    root = ElementTree.fromstring(drawn("a"))
    sheet = root.find(f".//{SVG}style")
    assert sheet is not None
    light, dark = COLOURS["crimson"]
    assert f'[style*="stroke: {light}"]{{stroke:{dark}!important}}' in (sheet.text or "")
    assert len({light for light, _ in COLOURS.values()}) == len(COLOURS)


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
