"""The figures' drawings."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest

from report import samples
from steadyspike.plotting import COLOURS
from steadyspike.report.figures import figure2a
from steadyspike.report.membranes import split
from steadyspike.report.results import Results

from .conftest import Reports

NAMES = ("steps", "figure2a", "figure2b", "figure3", "training")


def test_each_method_has_a_line_of_its_colour_and_each_layer_a_row(reports: Reports) -> None:
    figures = {name: (reports() / f"{name}.svg").read_text() for name in NAMES}
    for name in ("steps", "figure2b", "training"):
        for colour in ("amber", "teal", "blue", "crimson", "violet", "slate"):
            assert f"stroke: {COLOURS[colour][0]}" in figures[name]
    assert figures["figure3"].count("θ ") == 8 * 4
    for text in ("layer 8", "step 4"):
        assert f">{text}</text>" in figures["figure3"]
    lights = {light for light, _ in COLOURS.values()}
    for svg in figures.values():
        for element in ElementTree.fromstring(svg).iter():
            for part in element.get("style", "").split(";"):
                key, _, value = part.strip().partition(": ")
                if key in ("fill", "stroke") and value != "none":
                    assert value in lights, "every colour has a dark one"


def test_what_was_not_run_is_drawn_as_such(reports: Reports) -> None:
    folder = reports(*samples.EXPERIMENTS)
    commands = {"figure2b": "per_step", "figure3": "osr_ots", "steps": "per_step"}
    for name, command in (commands | {"training": "per_step"}).items():
        texts = [element.text for element in ElementTree.parse(folder / f"{name}.svg").iter()]
        assert "not run" in texts
        assert f"dvc repro evaluate@{command}" in texts


def test_no_figure_of_memory_without_bptt(tmp_path: Path) -> None:
    samples.write_params(tmp_path, {"osr": samples.EXPERIMENTS["osr"]})
    assert figure2a(Results.of_pipeline(tmp_path)) is None
    samples.write_params(tmp_path)
    figure = figure2a(Results.of_pipeline(tmp_path))  # memory.csv is missing
    assert figure is not None
    assert "dvc repro memory" in figure.svg


@pytest.mark.parametrize("at", [-9.0, 0.0, 0.25, 1.0, 1.5, 2.0, 9.0])
def test_a_histogram_split_at_the_threshold_keeps_its_area(at: float) -> None:
    edges, heights = [0.0, 1.0, 2.0], [3.0, 5.0]
    areas = []
    for corners, values in split(edges, heights, at):
        assert len(corners) == (len(values) + 1 if values else 0)
        widths = [high - low for low, high in itertools.pairwise(corners)]
        areas.append(sum(w * h for w, h in zip(widths, values, strict=True)))
    clipped = min(max(at, 0.0), 2.0)
    above = 3 * max(1 - clipped, 0) + 5 * (2 - max(clipped, 1))
    assert areas == pytest.approx([8 - above, above])
