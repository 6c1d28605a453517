"""The figures' drawings."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest
import report_samples as samples

from steadyspike.plotting import COLOURS
from steadyspike.report import write_report
from steadyspike.report.membranes import split

NAMES = ("figure2a", "figure2b", "figure3", "training")


def drawn(folder: Path) -> dict[str, str]:
    write_report(folder, folder / "out")
    return {name: (folder / "out" / f"{name}.svg").read_text() for name in NAMES}


def test_each_method_has_a_line_of_its_colour_and_each_layer_a_row(tmp_path: Path) -> None:
    figures = drawn(samples.write_pipeline(tmp_path))
    for name in ("figure2b", "training"):
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


def test_what_was_not_run_is_drawn_as_such(tmp_path: Path) -> None:
    samples.write_params(tmp_path)
    commands = ("memory", "evaluate@per_step", "evaluate@osr_ots", "evaluate@per_step")
    for svg, command in zip(drawn(tmp_path).values(), commands, strict=True):
        texts = [element.text for element in ElementTree.fromstring(svg).iter()]
        assert "not run" in texts
        assert f"dvc repro {command}" in texts


def test_no_figure_of_memory_without_bptt(tmp_path: Path) -> None:
    samples.write_params(tmp_path, {"osr": samples.EXPERIMENTS["osr"]})
    names = [path.name for path in write_report(tmp_path, tmp_path / "out")]
    assert not any(name.startswith("figure2a") for name in names)


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
