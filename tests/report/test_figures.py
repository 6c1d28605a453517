"""The figures' drawings."""

import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from report import samples
from steadyspike.plotting import COLOURS
from steadyspike.report import write_report
from steadyspike.report.figures import figure2a
from steadyspike.report.membranes import figure3, split
from steadyspike.report.results import Results

from .conftest import Reports

NAMES = ("steps", "figure2a", "figure2b", "figure3", "training")


def test_each_method_has_a_line_of_its_colour_and_each_layer_a_row(reports: Reports) -> None:
    figures = {name: (reports() / f"{name}.svg").read_text() for name in NAMES}
    for name in ("steps", "figure2b", "training"):
        for colour in ("amber", "teal", "blue", "crimson", "violet", "slate"):
            assert f"stroke: {COLOURS[colour][0]}" in figures[name]
    # OSR + OTS, and vanilla BN beside it
    assert figures["figure3"].count("θ ") == 2 * 8 * 4
    for text in ("conv 8", "step 4", "vanilla BN", "OSR + OTS"):
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


def test_histograms_stand_beside_those_of_the_same_layers_alone(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path)
    for name in ("per_step", "osr", "linear", "bptt"):
        path = tmp_path / "runs" / name / "layers.json"
        path.write_text(json.dumps(samples.layers(8, steps=3 if name == "per_step" else 4)))
    data = figure3(Results.of_pipeline(tmp_path)).data[0]
    assert list(dict.fromkeys(row[0] for row in data.rows)) == ["osr", "osr_ots"]


TWELVE = {
    **samples.EXPERIMENTS,
    "osr_warm": {"model": {"norm": "osr", "warm_up_statistics": True}},
    "bptt_ots": {"model": {"norm": "batch", "online": False, "stabilize_threshold": True}},
    "osr_bptt": {"model": {"norm": "osr", "online": False}},
    "osr_ots_of_a_long_name_and_a_lower_learning_rate": {
        "model": {"norm": "osr", "stabilize_threshold": True},
        "training": {"learning_rate": 0.01},
    },
    "osr_low": {"model": {"norm": "osr"}, "training": {"learning_rate": 0.01}},
    "osr_lower": {"model": {"norm": "osr"}, "training": {"learning_rate": 0.001}},
}


def test_twelve_experiments_fit_and_look_different(tmp_path: Path) -> None:
    samples.write_params(tmp_path, TWELVE)
    for name in TWELVE:
        samples.write_run(tmp_path, name)
    samples.write_memory(tmp_path)
    write_report(tmp_path, tmp_path / "out")
    runs = Results.of_pipeline(tmp_path).only.runs
    assert len({str(run.look) for run in runs}) == len(runs) == 12
    for name in ("steps", "figure2b", "training"):
        root = ElementTree.parse(tmp_path / "out" / f"{name}.svg").getroot()
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        drawn = 0
        for element in root.iter("{http://www.w3.org/2000/svg}text"):
            text = "".join(element.itertext())
            place = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", ""))
            x, y = (float(element.get(key, 0)) for key in "xy")
            if place:
                x, y = x + float(place[1]), y + float(place[2])
            if element.get("text-anchor", "start") == "start" and "rotate" not in str(place):
                assert 0 <= x <= x + 4.2 * len(text) <= width + 8, text  # a narrow font at size 9
            assert 0 < y < height, text
            drawn += 1
        assert drawn > 12


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
