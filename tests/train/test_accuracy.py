from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadyspike.data import Dataset
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence
from steadyspike.train.accuracy import Presentation, evaluate, presentations
from steadyspike.train.config import Experiment
from steadyspike.train.digest import weights_sha256
from steadyspike.train.trainer import Trainer
from tiny import tiny_dataset, tiny_experiment


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
        """Knows the labels from the order of the samples; votes for the class `shift` further."""

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


def test_evaluation_leaves_the_model_unchanged(model: nn.Module, dataset: Dataset) -> None:
    before = weights_sha256(model.state_dict())
    for training in (True, False):
        model.train(training)
        evaluate(model, dataset, HOW)
        assert all(module.training == training for module in model.modules())
    assert weights_sha256(model.state_dict()) == before


def test_every_sample_is_presented_once_in_order(model: nn.Module, dataset: Dataset) -> None:
    labels = [labels for _, labels in presentations(model, dataset, HOW)]
    assert [len(part) for part in labels] == [10, 10, 3]
    assert torch.cat(labels).equal(dataset.test.labels)


def test_the_mode_is_restored_when_the_loop_is_left_early(
    model: nn.Module, dataset: Dataset
) -> None:
    model.train()
    shown = presentations(model, dataset, HOW)
    logits, _ = next(shown)
    assert logits.shape == (4, 10, 10)
    assert not logits.requires_grad
    shown.close()  # type: ignore[attr-defined]
    assert model.training


def test_the_experiment_decides_the_presentation() -> None:
    experiment = tiny_experiment(
        training={"steps": 6, "chunk": 6, "mse_weight": 0.5}, evaluation={"steps": 3, "batch": 7}
    )
    assert Presentation.of(experiment) == Presentation(batch=7, steps=3, chunk=3, mse_weight=0.5)
