"""The logic around a CUDA graph, with a recorder that runs the work again on the processor."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from no_waiting import NoReading, no_waiting
from steadyspike.data import Dataset
from steadyspike.data.dataset import Split
from steadyspike.snn.norm import OSR
from steadyspike.train.digest import state_digest
from steadyspike.train.graph import WARM_UP, Replayed
from steadyspike.train.trainer import Trainer
from tiny import finish, tiny_dataset, tiny_experiment, train_epoch


class Again:
    """Reads what lies in the recording's inputs, writes where its results lay, as a graph does."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.warmed = self.recorded = self.replayed = 0

    def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
        self.warmed += 1
        return work()

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        model, fired = self.trainer.model, self.trainer.silence.fired
        parameters = list(model.parameters()) if model.training else []
        before, random = deepcopy(model.state_dict()), torch.get_rng_state()
        had_fired = fired.clone()
        result = work().clone()
        gradients = [parameter.grad for parameter in parameters]
        for name, tensor in model.state_dict().items():
            tensor.copy_(before[name])  # a recording does nothing
        fired.copy_(had_fired)
        torch.set_rng_state(random)
        result.fill_(torch.nan)
        for gradient in gradients:
            assert gradient is not None
            gradient.fill_(torch.nan)

        def replay() -> None:
            self.replayed += 1
            result.copy_(work())
            for parameter, gradient in zip(parameters, gradients, strict=True):
                assert parameter.grad is not None
                assert gradient is not None
                gradient.copy_(parameter.grad)
                parameter.grad = None

        return replay, result


def recorded(trainer: Trainer) -> Again:
    """Have the trainer record as on a GPU."""
    trainer.recorder = recorder = Again(trainer)
    trainer._forget_recordings()
    return recorder


def clips() -> Dataset:
    """Events: 14 clips of 5 steps to train on, 7 to test with."""
    generator = torch.Generator().manual_seed(0)
    train, test = (
        Split(
            torch.randint(0, 9, (count, 5, 2, 128, 128), generator=generator, dtype=torch.uint8),
            torch.arange(count) % 10,
        )
        for count in (14, 7)
    )
    return replace(tiny_dataset(), mean=(0, 0), std=(1 / 255, 1 / 255), train=train, test=test)


GESTURE = {
    "dataset.augmentation": "crop_turn",
    "model.head": "gesture",
    "model.head_widths": [6, 5],
    "model.widths": [4, "P", 4, "P"],
    "training.steps": 3,
    "training.chunk": 2,
    "evaluation.batch": 2,
    "evaluation.steps": 5,
}


cases = pytest.mark.parametrize(
    ("batch", "options"),
    [
        (8, {"training.chunk": 1, "model.warm_up_statistics": True}),
        (7, {"training.chunk": 4, "dataset.augmentation": "crop_cutout_flip"}),
        (2, GESTURE),
        (8, {"model.inference_threshold": "fixed"}),
    ],
    ids=["still", "last", "events", "fixed"],
)


def trainer_of(batch: int, options: dict[str, Any], **more: Any) -> Trainer:
    """Of 40 images, or of clips in batches of 2."""
    options = options | {"training.batch": batch, "training.epochs": 5} | more
    trainer = Trainer(tiny_experiment(**options), clips() if batch == 2 else tiny_dataset())
    for module in trainer.model.modules():
        if isinstance(module, OSR) and batch == 2:  # as new, the head would be silent
            nn.init.constant_(module.bias, 2)
    return trainer


def shapes(replayed: Any) -> list[int]:
    """The sizes of the batches that were recorded."""
    assert isinstance(replayed, Replayed)
    return sorted(len(inputs[0]) for inputs in replayed.recorded)


@cases
def test_the_same_bits_replayed(batch: int, options: dict[str, Any]) -> None:
    """Batches of 8 of the 40 images, or of 7 with a smaller one at the end.

    The run with batches of 7 starts at an epoch's last batch, as a resumed one may.
    """
    plain, trainer, started = (trainer_of(batch, options) for _ in range(3))
    finish(plain)
    recorder = recorded(trainer)
    if batch == 7:
        for _ in zip(range(5), started.run_epoch(), strict=False):
            pass
        trainer.load_state(started.state())
    finish(trainer)
    assert trainer.replayed is not None
    found = [shapes(each) for each in (*trainer.replayed.values(), trainer.present)]
    # First those that are watched for spikes, last those of the evaluation.
    sizes = [5, 7] if batch == 7 else [batch]
    assert found == [[batch], sizes, [1, 2] if batch == 2 else [3, 10]]
    assert recorder.recorded == sum(map(len, found))
    assert recorder.warmed >= WARM_UP * recorder.recorded
    assert trainer.rows[-1].silent_layers == ()
    assert trainer.rows == plain.rows
    assert state_digest(trainer.model.state_dict()) == state_digest(plain.model.state_dict())


@pytest.mark.gpu
@cases
def test_the_same_bits_on_a_gpu_which_nothing_waits_for(
    batch: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    plain, graph = (
        trainer_of(batch, options, device="cuda", **{"training.cuda_graph": chosen})
        for chosen in (False, True)
    )
    finish(plain)
    assert plain.replayed is None
    for _ in range(4):
        train_epoch(graph)
    assert graph.replayed is not None
    assert batch in shapes(graph.replayed[False])
    assert shapes(graph.present) == ([1, 2] if batch == 2 else [3, 10])
    left = graph.run_epoch()
    for _ in range(3):  # watched for spikes
        next(left)
    with no_waiting():
        next(left)
    finish(graph)
    assert graph.rows == plain.rows
    assert state_digest(graph.model.state_dict()) == state_digest(plain.model.state_dict())


def test_a_loaded_state_is_not_that_of_an_older_recording() -> None:
    experiment, dataset = (
        tiny_experiment(**{"training.epochs": 4, "training.batch": 8}),
        tiny_dataset(),
    )
    plain, trainer = Trainer(experiment, dataset), Trainer(experiment, dataset)
    start = deepcopy(trainer.state())
    recorder = recorded(trainer)
    finish(trainer)
    recorded_before = recorder.recorded
    trainer.load_state(start)
    assert finish(trainer).rows == finish(plain).rows
    assert recorder.recorded == 2 * recorded_before


def test_one_processor_and_several_processes_record_nothing() -> None:
    trainer = Trainer(tiny_experiment(**{"training.cuda_graph": True}), tiny_dataset())
    assert trainer.recorder is None
    assert trainer.replayed is None


@pytest.mark.parametrize(
    "options",
    [
        {"model.rule": "sltt_k", "training.backward_steps": 1},
        {"training.online_update": True, "training.chunk": 1},
    ],
    ids=["drawn steps", "online update"],
)
def test_passes_that_differ_from_batch_to_batch_are_not_recorded(options: dict[str, Any]) -> None:
    """Evaluation is; and training is the same bits as without."""
    plain, trainer = (Trainer(tiny_experiment(**options), tiny_dataset()) for _ in range(2))
    recorded(trainer)
    assert trainer.replayed is None
    finish(plain)
    finish(trainer)
    assert isinstance(trainer.present, Replayed)
    assert state_digest(trainer.model.state_dict()) == state_digest(plain.model.state_dict())


@pytest.mark.parametrize("events", [True, False])
def test_nothing_around_the_network_waits(events: bool) -> None:
    """What is recorded besides the loss, whose checks read the labels on a processor only."""
    dataset = clips() if events else tiny_dataset()
    trainer = Trainer(tiny_experiment(**GESTURE if events else {}), dataset)
    samples = next(dataset.train.gather([torch.arange(2)], 0, 0))[1]
    drawn = trainer.passes.draw(0, torch.arange(2), 0)[0]
    for check in (nullcontext(), NoReading()):  # the first call makes what lasts
        trainer.model.eval()
        with check, torch.no_grad():
            trainer.passes.clip(samples, *drawn)
            trainer.present(samples)


def test_each_shape_is_recorded_with_inputs_of_its_own() -> None:
    calls = []

    class Once:
        def warm_up(self, work: Callable[[], Tensor]) -> Tensor:
            return work()

        def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
            result = work()
            calls.append("record")

            def replay() -> None:
                calls.append("replay")
                result.copy_(work())

            return replay, result

    def sums(samples: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([samples.sum(), labels.sum()])

    replayed = Replayed(sums, Once(), torch.device("cpu"))
    for number in range(WARM_UP + 2):
        samples, labels = torch.arange(6.0).view(2, 3) * (number + 1), torch.full((2,), number)
        assert replayed(samples, labels).tolist() == [samples.sum(), labels.sum()]
        assert replayed(samples[:1], labels[:1]).tolist() == [samples[0].sum(), number]
    assert calls == ["record", "replay"] * 2 + ["replay"] * 2
    assert [inputs[0].shape for inputs in replayed.recorded] == [(2, 3), (1, 3)]
