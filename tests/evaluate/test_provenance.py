"""Metrics say what they are of, and are not measured of anything else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.evaluate import run as run_module
from steadyspike.evaluate.provenance import evaluation_code_sha256
from steadyspike.evaluate.run import evaluate_run
from steadyspike.snn.neuron import LIF
from steadyspike.train.accuracy import Presentation, Score, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.provenance import PACKAGE, code_sha256, environment_sha256
from steadyspike.train.run import train_run
from tiny import change_json, one_line, read_json, tiny_dataset, tiny_experiment

SEEDS = {"seeds": [3, 5], "training.epochs": 1}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return tiny_experiment(**SEEDS)


@pytest.fixture(scope="module")
def trained(
    experiment: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_run(experiment, dataset, folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """One to change: the first seed in the folder itself, the other below it."""
    return shutil.copytree(trained, tmp_path / "run")


def refused(experiment: Experiment, dataset: Dataset, folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate_run(experiment, dataset, folder)
    one_line(caught.value, *words)
    assert not (folder / "metrics.json").exists()
    assert not (folder / "membranes.json").exists()


def test_the_metrics_name_code_data_parameters_environment_and_settings(
    experiment: Experiment, dataset: Dataset, run: Path
) -> None:
    evaluate_run(experiment, dataset, run)
    metrics = read_json(run / "metrics.json")
    here = environment_sha256(experiment)
    assert metrics["provenance"] == {
        "code": [code_sha256()],
        "data": dataset.sha256(),
        "params": experiment.fingerprint(),
        "environment": [here],
    }
    assert metrics["evaluation"] == {
        "batch": 10,
        "steps": 4,
        "threshold": "live",
        "code": evaluation_code_sha256(),
        "environment": here,
    }


def test_every_version_that_took_part_in_any_seed_is_named(
    experiment: Experiment, dataset: Dataset, run: Path
) -> None:
    mine, theirs = code_sha256(), "a" * 64
    moved = ["b" * 64, "c" * 64, "b" * 64]  # there and back
    change_json(run / "digests.json", lambda d: d["provenance"].update(environment=moved))
    change_json(
        run / "seeds" / "5" / "digests.json",
        lambda d: d["provenance"].update(code=[mine, theirs], environment=["c" * 64, "d" * 64]),
    )
    evaluate_run(experiment, dataset, run)
    provenance = read_json(run / "metrics.json")["provenance"]
    assert provenance["code"] == [mine, theirs]
    assert provenance["environment"] == [*moved, "d" * 64]


@pytest.mark.parametrize(
    ("dotted", "threshold"),
    [
        ({"model.inference_threshold": "fixed"}, "fixed"),
        ({"model.stabilize_threshold": False}, "constant"),
    ],
)
def test_the_threshold_is_the_one_that_was_measured_with(
    dotted: dict[str, Any], threshold: str, dataset: Dataset, tmp_path: Path
) -> None:
    experiment = tiny_experiment(**{"training.epochs": 1, "evaluation.steps": 3} | dotted)
    train_run(experiment, dataset, tmp_path)
    evaluate_run(experiment, dataset, tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["evaluation"]["threshold"] == threshold
    assert metrics["evaluation"]["steps"] == 3
    assert metrics["accuracy"]["last"] == metrics["inference"].get(
        "fixed", metrics["inference"]["live"]
    )


@pytest.mark.parametrize("threshold", ["live", "fixed"])
def test_each_way_to_infer_is_measured_that_way_whichever_is_the_experiments_own(
    threshold: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(**{"training.epochs": 1, "model.inference_threshold": threshold})
    train_run(experiment, dataset, tmp_path)

    def telling(model: nn.Module, dataset: Dataset, how: Presentation) -> Score:
        """An accuracy that tells how it was measured."""
        evaluate(model, dataset, how)
        (way,) = {layer.inference_threshold for layer in model.modules() if isinstance(layer, LIF)}
        return Score(1.0, {"live": 30, "fixed": 60}[way] + how.batch)

    monkeypatch.setattr(run_module, "evaluate", telling)
    evaluate_run(experiment, dataset, tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["inference"] == {"live": 40, "fixed": 70, "batch_1": 31}
    assert metrics["accuracy"]["last"] == metrics["inference"][threshold]


def test_a_run_without_digests(experiment: Experiment, dataset: Dataset, run: Path) -> None:
    (run / "seeds" / "5" / "digests.json").unlink()
    told = "5/digests.json: not found: train it first, `steadyspike train tiny`"
    refused(experiment, dataset, run, told)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("fingerprint"),
        lambda d: d.update(fingerprint=None),
        lambda d: d.pop("provenance"),
        lambda d: d.update(provenance=[]),
        lambda d: d["provenance"].update(code="a" * 64),  # not a list
        lambda d: d["provenance"].update(code=[]),
        lambda d: d["provenance"].update(code=[["a"]]),
        lambda d: d["provenance"].update(data="a" * 63),
        lambda d: d["provenance"].update(data="<script>"),
        lambda d: d["provenance"].pop("environment"),
    ],
)
def test_damaged_digests(
    damage: Callable[[dict[str, Any]], object],
    experiment: Experiment,
    dataset: Dataset,
    run: Path,
) -> None:
    change_json(run / "digests.json", damage)
    told = "run/digests.json: expected SHA-256 sums"
    refused(experiment, dataset, run, told, "train it again, `steadyspike train tiny`")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"3"])
def test_digests_that_are_no_json(
    content: bytes, experiment: Experiment, dataset: Dataset, run: Path
) -> None:
    (run / "digests.json").write_bytes(content)
    refused(experiment, dataset, run, "run/digests.json: expected SHA-256 sums")


def test_a_run_of_other_parameters(dataset: Dataset, run: Path) -> None:
    other = tiny_experiment(**SEEDS | {"training.momentum": 0.8})
    old = read_json(run / "digests.json")["fingerprint"]
    refused(
        other,
        dataset,
        run,
        "run/digests.json: fingerprint: trained with other parameters",
        old[:12],
        other.runs[0].fingerprint()[:12],
        "train it again, `steadyspike train tiny`",
    )


def test_what_only_moves_work_about_may_have_changed(dataset: Dataset, run: Path) -> None:
    evaluate_run(tiny_experiment(**SEEDS | {"training.chunk": 2}), dataset, run)
    assert (run / "metrics.json").exists()


def test_seeds_of_different_data(experiment: Experiment, dataset: Dataset, run: Path) -> None:
    place = run / "seeds" / "5" / "digests.json"
    change_json(place, lambda d: d["provenance"].update(data="a" * 64))
    told = (
        f"{place}: provenance.data: trained on {'a' * 12}, but {run / 'digests.json'} on "
        f"{dataset.sha256()[:12]}: train it again"
    )
    refused(experiment, dataset, run, told)


def test_other_data_than_it_was_trained_on(
    experiment: Experiment, dataset: Dataset, run: Path
) -> None:
    other = tiny_dataset()
    other.test.labels[0] = (other.test.labels[0] + 1) % 10
    told = (
        f"{run / 'digests.json'}: provenance.data: trained on {dataset.sha256()[:12]}, but "
        f"embedded here is {other.sha256()[:12]}: restore the data, or train it again"
    )
    refused(experiment, other, run, told)


def test_weights_from_elsewhere(experiment: Experiment, dataset: Dataset, run: Path) -> None:
    """Of the same shapes, so that nothing but their sum tells them apart."""
    shutil.copy(run / "seeds" / "5" / "model.safetensors", run / "model.safetensors")
    refused(
        experiment, dataset, run, "model.safetensors: weights", "records", "steadyspike train tiny"
    )


def test_the_code_that_measures_is_all_that_runs(tmp_path: Path) -> None:
    copy = tmp_path / "steadyspike"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy, ignore=ignored)
    assert evaluation_code_sha256(copy) == evaluation_code_sha256()
    (copy / "report" / "page.py").write_text("# measures nothing")
    assert evaluation_code_sha256(copy) == evaluation_code_sha256()
    for name in ("evaluate/rates.py", "neuron.py"):
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before + b"\n")
        assert evaluation_code_sha256(copy) != evaluation_code_sha256()
        (copy / name).write_bytes(before)
