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
from tiny import tiny_dataset, tiny_experiment, train_epoch


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
    loss, correct, alone = 0.0, torch.zeros(4), torch.zeros(4)
    for first in range(0, len(labels), batch):
        frames = (images[first : first + batch] / 255 - 0.2860) / 0.3530
        truth = labels[first : first + batch]
        votes = torch.zeros(len(truth), 10)
        with torch.no_grad(), sequence(model, steps=4):
            for step in range(4):
                logits = model(frames[None])[0]
                error = (logits - F.one_hot(truth, 10)).square().mean(1)
                each = 0.95 * F.cross_entropy(logits, truth, reduction="none") + 0.05 * error
                loss += each.sum().item() / 4
                votes += logits
                alone[step] += int((logits.argmax(1) == truth).sum())
                correct[step] += int((votes.argmax(1) == truth).sum())
    score = evaluate(model, dataset, replace(HOW, batch=batch, chunk=chunk))
    assert score.loss == pytest.approx(loss / 23, rel=1e-5)
    assert score.step_accuracy == pytest.approx((100 * alone / 23).tolist())
    assert score.votes_accuracy == pytest.approx((100 * correct / 23).tolist())
    assert score.accuracy == score.votes_accuracy[-1]


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


BATCH = replace(HOW, statistics="batch")


@pytest.mark.parametrize("how", [HOW, BATCH])
def test_evaluation_leaves_the_model_unchanged(
    how: Presentation, model: nn.Module, dataset: Dataset
) -> None:
    before = weights_sha256(model.state_dict())
    for training in (True, False):
        model.train(training)
        evaluate(model, dataset, how)
        assert all(module.training == training for module in model.modules())
    assert weights_sha256(model.state_dict()) == before


METHODS: dict[str, dict[str, object]] = {
    "osr": {"model.norm": "osr"},
    "linear": {"model.norm": "linear", "model.stabilize_threshold": False},
    "per_step": {"model.norm": "per_step", "model.stabilize_threshold": False},
    "bptt": {"model.norm": "batch", "model.stabilize_threshold": False, "model.online": False},
}


@pytest.mark.parametrize("method", METHODS)
def test_batch_statistics_are_the_function_of_training(method: str, dataset: Dataset) -> None:
    options = {"dataset.augmentation": "none", "model.dropout": 0.0, **METHODS[method]}
    trainer = Trainer(tiny_experiment(**options), dataset)
    train_epoch(trainer)
    model = trainer.model
    as_trained = list(presentations(model, dataset, BATCH))
    used = list(presentations(model, dataset, HOW))
    frames = (dataset.test.images[:10] / 255 - 0.2860) / 0.3530  # type: ignore[attr-defined]
    with torch.no_grad(), sequence(model.train(), steps=4):
        expected = model(frames.expand(4, *frames.shape))
    assert as_trained[0][0] == pytest.approx(expected, abs=1e-5)
    # OSR and the linear transform train the function that they are used as.
    same = all(one.equal(other) for (one, _), (other, _) in zip(as_trained, used, strict=True))
    assert same == (method in ("osr", "linear"))


def test_the_fallback_of_osr_is_of_training_alone(dataset: Dataset) -> None:
    options = {"model.fallback_ratio": 0.5, "model.dropout": 0.0}
    model = Trainer(tiny_experiment(**options), dataset).model
    assert not next(presentations(model, dataset, BATCH))[0].equal(
        next(presentations(model, dataset, HOW))[0]
    )


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
