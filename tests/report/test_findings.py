"""The sentences follow the numbers, whichever way these fall."""

import json
from pathlib import Path

import report_samples as samples

from steadyspike.evaluate.metrics import Layers, Memory
from steadyspike.report import findings
from steadyspike.report.sources import Pipeline, read_pipeline


def pipeline_with(folder: Path, accuracy: dict[str, float]) -> Pipeline:
    samples.write_params(folder)
    for name, value in accuracy.items():
        content = samples.metrics(name)
        content["accuracy"]["last"] = value
        home = folder / "runs" / name
        home.mkdir(parents=True)
        (home / "metrics.json").write_text(json.dumps(content))
    return read_pipeline(folder)


def test_accuracy_names_the_extremes_and_the_papers_order(tmp_path: Path) -> None:
    measured = {"per_step": 70.0, "osr": 72.5, "osr_ots": 71.0}
    assert findings.accuracy(pipeline_with(tmp_path, measured)) == [
        "The highest accuracy after the last epoch is 72.50 % (OSR), the lowest 70.00 % "
        "(vanilla BN).",
        "Against vanilla BN, in points: OSR +2.50 and OSR + OTS +1.00.",
        "The paper's order on CIFAR-10, VGGSNN is vanilla BN < OSR < OSR + OTS; here it is "
        "vanilla BN < OSR + OTS < OSR.",
    ]


def test_accuracy_in_the_papers_order(tmp_path: Path) -> None:
    measured = {"per_step": 70.0, "osr": 72.5, "osr_ots": 73.0}
    assert findings.accuracy(pipeline_with(tmp_path, measured))[-1].endswith("here it is the same.")


def test_equal_as_shown_is_equal(tmp_path: Path) -> None:
    measured = {"per_step": 70.001, "osr": 70.004}
    assert findings.accuracy(pipeline_with(tmp_path, measured)) == [
        "All 2 experiments end at the same accuracy, 70.00 %.",
        "Against vanilla BN, in points: OSR ±0.00.",
    ]


def test_a_shared_first_place_names_both(tmp_path: Path) -> None:
    measured = {"per_step": 70.0, "osr": 72.0, "osr_ots": 72.0}
    first = findings.accuracy(pipeline_with(tmp_path, measured))[0]
    assert "72.00 % (OSR and OSR + OTS)" in first


def test_nothing_measured_nothing_said(tmp_path: Path) -> None:
    empty = pipeline_with(tmp_path, {})
    assert findings.accuracy(empty) == []
    assert findings.gross_rates(empty) == []
    assert findings.step_rates(empty) == []
    assert findings.training(empty) == []
    assert findings.memory(None) == []


def test_firing_rates(tmp_path: Path) -> None:
    pipeline = read_pipeline(samples.write_pipeline(tmp_path, leave_out=("linear", "bptt", "osr")))
    assert findings.gross_rates(pipeline) == [
        "The lowest gross rate is 12.12 % (OTS), the highest 14.75 % (vanilla BN).",
        "Compared with vanilla BN, OTS fires 18 % less and OSR + OTS fires 4 % less.",
    ]
    assert findings.step_rates(pipeline) == [
        "Highest minus lowest step, in points: vanilla BN 6.00, OTS 0.20 and OSR + OTS 0.20.",
        "The rate is steadiest over time with OTS and OSR + OTS, and least with vanilla BN.",
    ]


def test_memory() -> None:
    points = [
        Memory(method="bptt", steps=30, bytes=900_000_000),
        Memory(method="bptt", steps=2, bytes=60_000_000),
        Memory(method="online", steps=2, bytes=50_000_000),
        Memory(method="online", steps=30, bytes=50_000_000),
    ]
    assert findings.memory(points) == [
        "Online training keeps 50.0 MB at both T = 2 and T = 30.",
        "BPTT keeps 60.0 MB at T = 2 and 900.0 MB at T = 30.",
        "At T = 30 BPTT keeps 18.0 times what online training keeps.",
    ]
    assert findings.memory(points[:2]) == ["BPTT keeps 60.0 MB at T = 2 and 900.0 MB at T = 30."]


def test_membranes() -> None:
    measured = Layers.model_validate(samples.layers())
    assert findings.membranes(measured) == [
        "Over all layers and steps the mean potential lies between −0.25 and 0.16, the standard "
        "deviation between 0.55 and 0.83 and the threshold between 1.00 and 1.21.",
        "The threshold moves most over time in features.7, by 0.21.",
        "Less than 0.01 % of the potentials lie outside the range that is drawn.",
    ]
