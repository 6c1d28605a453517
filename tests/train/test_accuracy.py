from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.evaluate.memory import measure_memory
from steadyspike.evaluate.run import evaluate_run, measure_weights
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence
from steadyspike.train.accuracy import Presentation, evaluate, presentations
from steadyspike.train.config import Experiment
from steadyspike.train.digest import weights_sha256
from steadyspike.train.run import train_run
from steadyspike.train.trainer import Trainer
from tiny import read_json, tiny_dataset, tiny_experiment


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return tiny_experiment(**{"dataset.augmentation": "none", "model.dropout": 0.0})


@pytest.fixture(scope="module")
def model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """Trained for an epoch, so that classes and running statistics are no longer all alike."""
    trainer = Trainer(experiment, dataset)
    for _ in trainer.run_epoch():
        pass
    return trainer.model


HOW = Presentation(batch=10, steps=4, chunk=4, mse_weight=0.05)


@pytest.mark.parametrize(("batch", "chunk"), [(10, 4), (10, 1), (10, 3), (1, 2), (23, 4), (50, 4)])
def test_against_a_direct_loop(model: nn.Module, dataset: Dataset, batch: int, chunk: int) -> None:
    model.eval()
    images, labels = dataset.test.images, dataset.test.labels  # type: ignore[attr-defined]
    loss, correct = 0.0, 0
    for first in range(0, len(labels), batch):
        frames = (images[first : first + batch] / 255 - 0.2860) / 0.3530
        truth = labels[first : first + batch]
        votes = torch.zeros(len(truth), 10)
        with torch.no_grad(), sequence(model, steps=4):
            for _ in range(4):
                logits = model(frames[None])[0]
                error = (logits - F.one_hot(truth, 10)).square().mean(1)
                each = 0.95 * F.cross_entropy(logits, truth, reduction="none") + 0.05 * error
                loss += each.sum().item() / 4
                votes += logits
        correct += int((votes.argmax(1) == truth).sum())
    score = evaluate(model, dataset, replace(HOW, batch=batch, chunk=chunk))
    assert score.loss == pytest.approx(loss / 23, rel=1e-5)
    assert score.accuracy == pytest.approx(100 * correct / 23)


def test_a_perfect_and_a_hopeless_network(dataset: Dataset) -> None:
    class Oracle(nn.Module):
        """Knows the labels by the samples' order; votes for the class `shift` further."""

        def __init__(self, shift: int) -> None:
            super().__init__()
            self.shift, self.seen = shift, 0
            self.neuron = LIF()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            self.neuron(frames)
            labels = dataset.test.labels[self.seen : self.seen + frames.shape[1]]
            self.seen += frames.shape[1]
            logits = F.one_hot((labels + self.shift) % 10, 10).float() * 50 * self.scale
            return logits.expand(len(frames), -1, -1)

    assert evaluate(Oracle(0), dataset, HOW).accuracy == 100
    assert evaluate(Oracle(1), dataset, HOW).accuracy == 0
    assert evaluate(Oracle(1), dataset, HOW).loss > 40


def test_nothing_of_the_model_changes(model: nn.Module, dataset: Dataset) -> None:
    before = weights_sha256(model.state_dict())
    for training in (True, False):
        model.train(training)
        evaluate(model, dataset, HOW)
        assert all(module.training == training for module in model.modules())
    assert weights_sha256(model.state_dict()) == before


def test_the_mode_comes_back_when_the_loop_is_left_early(
    model: nn.Module, dataset: Dataset
) -> None:
    model.train()
    shown = presentations(model, dataset, HOW)
    logits, labels = next(shown)
    assert logits.shape == (4, 10, 10)
    assert labels.equal(dataset.test.labels[:10])
    assert not logits.requires_grad
    shown.close()  # type: ignore[attr-defined]
    assert model.training


def test_every_sample_is_shown_once_in_order(model: nn.Module, dataset: Dataset) -> None:
    labels = [labels for _, labels in presentations(model, dataset, HOW)]
    assert [len(part) for part in labels] == [10, 10, 3]
    assert torch.cat(labels).equal(dataset.test.labels)


def test_it_is_evaluated_as_the_experiment_says() -> None:
    experiment = tiny_experiment(
        **{
            "training.steps": 6,
            "training.chunk": 6,
            "evaluation.steps": 3,
            "evaluation.batch": 7,
            "training.mse_weight": 0.5,
        }
    )
    assert Presentation.of(experiment) == Presentation(batch=7, steps=3, chunk=3, mse_weight=0.5)


# A run's folder


@pytest.fixture(scope="module")
def run(experiment: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_run(experiment, dataset, folder)
    evaluate_run(experiment, dataset, folder)
    return folder


def test_metrics_agree_with_the_history(run: Path, experiment: Experiment) -> None:
    metrics = read_json(run / "metrics.json")
    header, *rows = (run / "history.csv").read_text().splitlines()
    history = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    accuracies = [float(row["test_accuracy"]) for row in history]
    assert metrics["experiment"] == "tiny"
    assert metrics["accuracy"]["last"] == pytest.approx(accuracies[-1], abs=1e-3)
    assert metrics["accuracy"]["best"] == pytest.approx(max(accuracies), abs=1e-3)
    assert metrics["accuracy"]["best_epoch"] == accuracies.index(max(accuracies)) + 1
    assert metrics["loss"]["train"] == float(history[-1]["train_loss"])
    assert metrics["loss"]["test"] == pytest.approx(float(history[-1]["test_loss"]), rel=1e-5)
    assert metrics["osr_fallbacks"] == sum(int(row["osr_fallbacks"]) for row in history)
    # 4 filters of 3x3 and a bias, 4 of 4x3x3, two norms, a linear layer of 4 to 10
    assert metrics["parameters"] == (4 * 9 + 4) + (4 * 36 + 4) + 2 * 8 + (40 + 10)
    assert set(metrics["inference"]) == {"live", "fixed", "batch_1"}
    assert metrics["inference"]["live"] == metrics["accuracy"]["last"]


def test_measuring_again_gives_the_same_bytes(
    run: Path, experiment: Experiment, dataset: Dataset
) -> None:
    files = [run / "metrics.json", run / "layers.json"]
    before = [file.read_bytes() for file in files]
    evaluate_run(experiment, dataset, run)
    assert [file.read_bytes() for file in files] == before


def test_weights_measured_otherwise(run: Path, experiment: Experiment, dataset: Dataset) -> None:
    inference = read_json(run / "metrics.json")["inference"]
    weights = run / "model.safetensors"

    def accuracy(threshold: str | None, batch: int | None) -> float:
        score = measure_weights(experiment, dataset, weights, threshold, batch)  # type: ignore[arg-type]
        return round(score.accuracy, 4)

    assert accuracy(None, None) == accuracy("live", 10) == inference["live"]
    assert accuracy("fixed", None) == accuracy("fixed", 1) == inference["fixed"]
    assert accuracy(None, 1) == inference["batch_1"]


def test_thresholds_of_a_network_that_has_none(dataset: Dataset, tmp_path: Path) -> None:
    experiment = tiny_experiment(**{"model.stabilize_threshold": False, "training.epochs": 1})
    train_run(experiment, dataset, tmp_path)
    with pytest.raises(UserError, match=r"tiny: --threshold fixed: .*stabilize_threshold"):
        measure_weights(experiment, dataset, tmp_path / "model.safetensors", "fixed", None)
    evaluate_run(experiment, dataset, tmp_path)
    assert set(read_json(tmp_path / "metrics.json")["inference"]) == {"live"}


def test_several_seeds_are_measured_each(dataset: Dataset, tmp_path: Path) -> None:
    experiment = tiny_experiment(seeds=[3, 5], **{"training.epochs": 1})
    train_run(experiment, dataset, tmp_path)
    evaluate_run(experiment, dataset, tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    assert list(metrics["seeds"]) == ["3", "5"]
    assert metrics["seeds"]["3"] == metrics["accuracy"]
    for seed, place in (("3", tmp_path), ("5", tmp_path / "seeds" / "5")):
        score = measure_weights(experiment, dataset, place / "model.safetensors", None, None)
        assert metrics["seeds"][seed]["last"] == round(score.accuracy, 4)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "history.csv").unlink(), r"history\.csv: not found: train it"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"safetensors: not found: train"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:-1]
            ),
            r"model\.safetensors: no whole safetensors file",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b""),
            r"model\.safetensors: no whole safetensors file",
        ),
    ],
)
def test_a_damaged_run_is_told(
    run: Path, experiment: Experiment, dataset: Dataset, tmp_path: Path, damage: object, told: str
) -> None:
    for name in ("digests.json", "history.csv", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=told):
        evaluate_run(experiment, dataset, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("dotted", "told"),
    [
        ({"model.widths": [5, "P", 4]}, r"features\.0\.conv\.bias is \(4,\), expected \(5,\)"),
        ({"model.widths": [4, 4]}, r"features\.1\..* is missing"),
        ({"model.stabilize_threshold": False}, r"neuron\.running_threshold is unknown"),
    ],
)
def test_weights_of_another_network_are_told(
    run: Path, dataset: Dataset, dotted: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=rf"safetensors: weights of another network: .*{told}"):
        measure_weights(tiny_experiment(**dotted), dataset, run / "model.safetensors", None, None)


def test_the_memory_table(experiment: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    bptt = tiny_experiment(
        **{"model.norm": "batch", "model.online": False, "model.stabilize_threshold": False}
    )
    path = tmp_path / "memory.csv"
    measure_memory(experiment, bptt, dataset, path)
    header, *rows = path.read_text().splitlines()
    assert header == "method,steps,bytes"
    cells = [row.split(",") for row in rows]
    kept = {(method, int(steps)): int(count) for method, steps, count in cells}
    assert len(rows) == len(kept) == 18
    online = {count for (method, _), count in kept.items() if method == "online"}
    assert len(online) == 1
    assert kept["bptt", 30] > 10 * kept["online", 30]
