"""The measured step is the step of `steadyspike train`."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import (
    TrainingStep,
    as_graph,
    batch_in_memory,
    experiment_of,
    online,
    optimizer_for,
)
from steadyspike.data import Dataset
from steadyspike.data.dataset import Split
from steadyspike.evaluate.memory import kept_for_backward
from steadyspike.train.trainer import Trainer

TINY = Setting(image=(3, 8, 8), widths=(4, "P", 6), steps=3, chunk=2, batch=5)


def our_step(setting: Setting) -> TrainingStep:
    (make,) = online(setting).values()
    return make()


def dataset_of_the_batch(setting: Setting) -> Dataset:
    frames, labels = batch_in_memory(setting)
    images = ((frames * 0.25 + 0.5) * 255).round().to(torch.uint8).contiguous()
    split = Split(images, labels)
    return Dataset("bench", tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, split, split)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_our_step_gives_the_bits_of_the_trainers_step(
    precision: str, chunk: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(kernels, "_disabled", True)
    setting = TINY.but(precision=precision, chunk=chunk)
    measured = our_step(setting)
    others = optimizer_for(nn.Linear(2, 2))  # the peers'
    assert others.defaults == measured.optimizer.defaults
    dataset = dataset_of_the_batch(setting)
    # The trainer would shuffle and augment the batch.
    monkeypatch.setattr("steadyspike.train.trainer.epoch_order", lambda *_: torch.arange(5))
    experiment = experiment_of(setting)
    plain = experiment.dataset.model_copy(update={"augmentation": "none"})
    trainer = Trainer(experiment.model_copy(update={"dataset": plain}), dataset)
    before = {name: tensor.clone() for name, tensor in measured.model.state_dict().items()}
    assert list(trainer.run_epoch()) == [setting.batch]
    measured.run()
    trained = trainer.model.state_dict()
    for name, tensor in measured.model.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
        assert "weight" not in name or not torch.equal(tensor, before[name]), name


class Once:
    """Records by running; the replay finds its results where they are."""

    def __init__(self) -> None:
        self.warmed = self.replayed = 0

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        self.warmed += 1
        return work()

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        def replay() -> None:
            self.replayed += 1

        return replay, work()


def test_any_step_as_a_graph_is_the_same_step() -> None:
    def step() -> TrainingStep:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        inputs = torch.randn(4, 3)

        def losses() -> Iterator[Tensor]:
            for factor in (1.0, 0.5):
                yield factor * model(inputs).square().sum()

        return TrainingStep(model, optimizer_for(model), losses)

    eager, recorder = step(), Once()
    graph = as_graph(step(), recorder)
    assert (recorder.warmed, recorder.replayed) == (3, 0)
    assert torch.equal(graph.model.weight, eager.model.weight)
    eager.run()
    graph.run()
    assert recorder.replayed == 1
    assert torch.equal(graph.model.weight, eager.model.weight)
    assert torch.equal(graph.model.bias, eager.model.bias)
    assert graph.eager is not None


def test_kept_bytes_are_those_of_evaluate() -> None:
    frames, labels = batch_in_memory(TINY)
    model = our_step(TINY).model
    expected = kept_for_backward(model, frames, labels, steps=TINY.steps, chunk=TINY.chunk)
    assert our_step(TINY).kept_bytes() == expected > 0
