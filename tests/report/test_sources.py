"""Malformed inputs end in one line that names the file and the key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from steadyspike.errors import UserError
from steadyspike.report import write_report
from steadyspike.report.sources import read_pipeline
from tiny import change_json, one_line

PARAMS = {"defaults": samples.DEFAULTS}
Change = Callable[[dict[str, Any]], Any]


def refused(folder: Path, *words: str) -> None:
    """Reading fails with one line that has all these words, and nothing is written."""
    with pytest.raises(UserError) as caught:
        write_report(folder, folder / "out")
    one_line(caught.value, *words)
    assert not (folder / "out").exists()


def refused_once_changed(folder: Path, file: str, change: Change, key: str) -> None:
    samples.write_pipeline(folder)
    path = folder / "runs" / file
    change_json(path, change)
    refused(folder, str(path), f": {key}: ")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda m: m.pop("accuracy"), "accuracy"),
        (lambda m: m["accuracy"].pop("last"), "accuracy.last"),
        (lambda m: m["accuracy"].update(last="71"), "accuracy.last"),
        (lambda m: m["accuracy"].update(last=120.0), "accuracy.last"),
        (lambda m: m["loss"].update(test=None), "loss.test"),
        (lambda m: m["firing_rate"].update(gross=14.75), "firing_rate.gross"),
        (lambda m: m["firing_rate"].update(per_step=[0.1, "x"]), "firing_rate.per_step.1"),
        (lambda m: m["firing_rate"].update(per_step=[]), "firing_rate.per_step"),
        (lambda m: m.update(osr_fallbacks=-1), "osr_fallbacks"),
        (lambda m: m.update(osr_fallbacks=1.5), "osr_fallbacks"),
        (lambda m: m.update(parameters=True), "parameters"),
        (lambda m: m.update(experiment="another"), "experiment"),
        (lambda m: m.pop("evaluation"), "evaluation"),
        (lambda m: m["evaluation"].update(threshold="soft"), "evaluation.threshold"),
        (lambda m: m["evaluation"].update(batch=0), "evaluation.batch"),
    ],
)
def test_metrics(tmp_path: Path, change: Change, key: str) -> None:
    refused_once_changed(tmp_path, "osr/metrics.json", change, key)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda m: m["bins"].pop("low"), "bins.low"),
        (lambda m: m["bins"].update(low=3.0), "bins.low"),
        (lambda m: m["layers"][1]["counts"].pop(), "layers.1.counts"),
        (lambda m: m["layers"][1]["counts"][2].pop(), "layers.1.counts"),
        (lambda m: m["layers"][2]["threshold"].append(1.0), "layers.2.threshold"),
        (lambda m: m["layers"][0].update(name="\x1b[0m"), "layers.0.name"),
        (lambda m: m.update(layers=[]), "layers"),
    ],
)
def test_membranes(tmp_path: Path, change: Change, key: str) -> None:
    refused_once_changed(tmp_path, "osr_ots/layers.json", change, key)


@pytest.mark.parametrize(
    "text", ["{", "", "[]", '{"loss": NaN}', "[" * 100_000, b"\xff\xfe".decode("latin-1")]
)
def test_broken_json(tmp_path: Path, text: str) -> None:
    samples.write_pipeline(tmp_path)
    path = tmp_path / "runs" / "osr" / "metrics.json"
    path.write_text(text, encoding="latin-1")
    refused(tmp_path, str(path))


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        ("memory.csv", "method,steps\nonline,2\n", "bytes"),
        ("memory.csv", "method,steps,bytes\nonline,two,1\n", "line 2, steps"),
        ("memory.csv", "method,steps,bytes\nonline,2,1\nguess,4,1\n", "line 3, method"),
        ("memory.csv", "method,steps,bytes\n", "at least one row"),
        ("osr/history.csv", "epoch,learning_rate\n1,0.1\n", "train_loss"),
    ],
)
def test_csv(tmp_path: Path, file: str, text: str, key: str) -> None:
    samples.write_pipeline(tmp_path)
    path = tmp_path / "runs" / file
    path.write_text(text)
    refused(tmp_path, str(path), key)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("experiments: {a: {}}", "experiments.a: seeds: missing"),
        ("experiments: {}", "experiments"),
        ("experiments: {a: {model: {name: vggsnn, norm: layer}}}", "model.norm: should be 'osr', "),
        (
            json.dumps(PARAMS | {"experiments": {"a": {"dataset": {"name": "\0"}}}}),
            "dataset.name: ",
        ),
        ("experiments: {../a: {}}", "experiments.../a"),
        ("a: [", ""),
    ],
)
def test_params(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    refused(tmp_path, str(path), key)
    path.unlink()
    refused(tmp_path, str(path))


def test_overrides_are_merged_into_the_defaults(tmp_path: Path) -> None:
    pipeline = read_pipeline(samples.write_pipeline(tmp_path))
    osr = next(run for run in pipeline.runs if run.name == "osr")
    assert osr.settings.training.weight_decay == 0.0002
    assert osr.settings.training.steps == 4
    assert pipeline.settings("training.weight_decay") == [0.0005, 0.0002]


def test_two_experiments_of_one_method_are_told_apart(tmp_path: Path) -> None:
    twins: dict[str, dict[str, Any]] = {"seed-1": {}, "seed-2": {}}
    samples.write_params(tmp_path, twins | {"osr_ots": samples.EXPERIMENTS["osr_ots"]})
    labels = [run.label for run in read_pipeline(tmp_path).runs]
    assert labels == ["OSR (seed-1)", "OSR (seed-2)", "OSR + OTS"]
