"""`steadyspike predict`: what it says of an image, beside what the evaluation measures."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steadyspike.data import Dataset, Split
from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import read_metrics
from steadyspike.evaluate.predict import choose_threshold, predict
from steadyspike.evaluate.run import evaluate_run, measure_weights
from steadyspike.evaluate.trained import open_run
from steadyspike.train.config import Experiment
from steadyspike.train.network import build_model
from steadyspike.train.run import train_run
from tiny import (
    change_json,
    in_process,
    one_line,
    refused,
    tiny_dataset,
    tiny_experiment,
    write_params,
)

FIXED = {"model.inference_threshold": "fixed", "evaluation.steps": 3}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return tiny_experiment(**FIXED)


@pytest.fixture(scope="module")
def folder(
    experiment: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run, ``project/runs/tiny``, with the test images as files in ``project``."""
    project = tmp_path_factory.mktemp("project")
    write_params(project, {"tiny": {}}, **FIXED)
    train_run(experiment, dataset, project / "runs" / "tiny")
    assert isinstance(dataset.test, Split)
    for place, image in enumerate(dataset.test.images):
        Image.fromarray(image[0].numpy()).save(project / f"{place}.png")
    return project / "runs" / "tiny"


@pytest.fixture(scope="module")
def images(folder: Path, dataset: Dataset) -> list[Path]:
    return [folder.parents[1] / f"{place}.png" for place in range(len(dataset.test))]


def test_predictions_are_those_of_the_evaluation(
    experiment: Experiment, dataset: Dataset, folder: Path, images: list[Path]
) -> None:
    predictions = predict(experiment, folder, images)
    score = measure_weights(experiment, dataset, folder / "model.safetensors", "fixed", 1)
    truth = [dataset.classes[label] for label in dataset.test.labels]
    for step in range(3):
        said = [next(iter(each.steps[step].confidence)) for each in predictions]
        right = sum(one == other for one, other in zip(said, truth, strict=True))
        assert 100 * right / len(truth) == pytest.approx(score.votes_accuracy[step])
    assert [each.label for each in predictions] == said  # of the last step
    evaluate_run(experiment, dataset, folder)
    measured = read_metrics(folder / "metrics.json").operations
    for key, value in measured:
        mean = np.mean([getattr(each.steps[-1].operations, key) for each in predictions])
        assert mean == pytest.approx(value, rel=1e-3)


def test_what_is_said_of_an_image(
    experiment: Experiment, dataset: Dataset, folder: Path, images: list[Path]
) -> None:
    first, second = predict(experiment, folder, images[:2])
    assert predict(experiment, folder, images[1:2]) == [second]  # whatever else is shown
    assert first.image == str(images[0])
    assert [each.step for each in first.steps] == [1, 2, 3]
    for step in first.steps:
        shares = list(step.confidence.values())
        assert sorted(step.confidence) == sorted(dataset.classes)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares == sorted(shares, reverse=True)
    operations = [each.operations.synaptic_operations for each in first.steps]
    assert operations == sorted(operations)
    # The first layer sees real values: as many multiplications at every step.
    real = [each.operations.multiply_accumulates for each in first.steps]
    assert real == [real[0], 2 * real[0], 3 * real[0]]


@pytest.mark.parametrize(
    ("dotted", "expected"),
    [
        ({}, "fixed"),
        ({"model.inference_threshold": "layer"}, "layer"),
        ({"model.stabilize_threshold": False}, "constant"),
    ],
)
def test_a_lone_image_is_shown_to_learned_thresholds(
    dotted: dict[str, Any], expected: str, dataset: Dataset
) -> None:
    model = build_model(tiny_experiment(**dotted), dataset)
    for module in model.modules():
        if hasattr(module, "running_threshold"):
            module.running_threshold = torch.ones(4)
    assert choose_threshold(model) == expected


def test_weights_without_learned_thresholds(dataset: Dataset) -> None:
    assert choose_threshold(build_model(tiny_experiment(), dataset)) == "live"


# The command


def test_the_command_in_text_and_json(folder: Path) -> None:
    project = folder.parents[1]
    photo = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(photo).save(project / "photo.jpg")
    done = in_process(project, "predict", "runs/tiny", "photo.jpg", "0.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 4 + 1
    assert lines[0].startswith("photo.jpg: ")
    assert lines[1].startswith("  step 1  ")
    assert lines[1].endswith(" synaptic operations)")
    assert lines[-1] == "Thresholds are those learned in training, not those of a batch."
    # By its name, from another folder, and as JSON.
    told = in_process(project, "predict", "tiny", "photo.jpg", "0.png", "--json")
    first, second = json.loads(told.stdout)
    assert f"photo.jpg: {first['label']}" in lines
    best, share = next(iter(second["steps"][2]["confidence"].items()))
    assert second["label"] == best
    assert f"  step 3  {best} {100 * share:.1f} %, " in done.stdout
    assert second["threshold"] == "fixed"


def test_a_run_of_a_gpu_is_opened_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "runs/tiny").mkdir(parents=True)
    write_params(tmp_path, {"tiny": {}}, device="cuda", seeds=[3, 5])
    opened, place = open_run(tmp_path / "runs/tiny", None)
    assert (opened.device, opened.seeds, place) == ("cpu", [3], tmp_path / "runs/tiny")


def test_a_mistake_ends_in_one_line(folder: Path, tmp_path: Path) -> None:
    project = folder.parents[1]
    (project / "text.png").write_text("text")

    def refuses(*words: str, run: str = "runs/tiny", image: str = "0.png") -> None:
        refused(in_process(project, "predict", run, image), *words)

    refuses(r"gone\.png: cannot be read: No such file", image="gone.png")
    refuses(r"text\.png: expected a whole JPEG or PNG image", image="text.png")
    refuses("runs/none: no such folder; expected that of a finished run", run="none")
    refuses(r"/params\.yaml: not found; run this in the checkout", run="/")
    (project / "runs/other").mkdir()
    refuses(r"params\.yaml: experiments\.other: no such experiment", run="runs/other")
    write_params(tmp_path, {"tiny": {}}, **FIXED)
    (tmp_path / "runs/tiny").mkdir(parents=True)
    refuses(r"digests\.json: not found: train it", run=str(tmp_path / "runs/tiny"))


def test_runs_that_say_nothing_of_images(
    experiment: Experiment, folder: Path, images: list[Path], tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "tiny")
    change_json(copied / "digests.json", lambda d: d["dataset"].update(shape=[4, 1, 12, 12]))
    with pytest.raises(UserError) as caught:
        predict(experiment, copied, images)
    one_line(caught.value, "embedded holds clips of events, expected images")
    change_json(copied / "digests.json", lambda d: d.pop("dataset"))
    with pytest.raises(UserError) as caught:
        predict(experiment, copied, images)
    one_line(caught.value, "digests.json: dataset: missing", "steadyspike train tiny")
