"""The step that is measured is the step that trains."""

import pytest
import torch
from torch import nn

from steadyspike import kernels
from steadyspike.bench import ours, work
from steadyspike.bench.peer_networks import LAYOUTS
from steadyspike.bench.setting import Setting
from steadyspike.data import Dataset
from steadyspike.data.dataset import Split
from steadyspike.evaluate.memory import kept_for_backward
from steadyspike.models.blocks import SpikingConv
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR
from steadyspike.snn.sequence import sequence
from steadyspike.train.trainer import Trainer

TINY = Setting(image=(3, 8, 8), widths=(4, "P", 6), steps=3, chunk=2, batch=5)


def only(variants: work.Variants) -> work.Work:
    (make,) = variants.values()
    return make()


def same_batch(setting: Setting) -> Dataset:
    """A data set whose only batch is the one that the benchmark holds in memory."""
    frames, labels = work.batch_in_memory(setting)
    images = ((frames * 0.25 + 0.5) * 255).round().to(torch.uint8).contiguous()
    split = Split(images, labels)
    channels = setting.image[0]
    classes = tuple("0123456789")
    return Dataset("bench", classes, (0.5,) * channels, (0.25,) * channels, split, split)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_our_step_gives_the_bits_of_the_trainers_step(
    precision: str, chunk: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(kernels, "_disabled", True)
    setting = TINY.but(precision=precision, chunk=chunk)
    measured = only(ours.online(setting))
    trainer = Trainer(ours.experiment_of(setting), same_batch(setting))
    # An epoch visits its images in an order of its own; here in that of the batch in memory.
    monkeypatch.setattr(
        "steadyspike.train.trainer.epoch_order", lambda *_: torch.arange(setting.batch)
    )
    trainer._begin_epoch()
    before = {name: tensor.clone() for name, tensor in measured.model.state_dict().items()}
    (images,) = list(trainer.run_epoch())
    work.train_step(measured)
    assert images == setting.batch
    trained = trainer.model.state_dict()
    for name, tensor in measured.model.state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    changed = [not torch.equal(t, trained[name]) for name, t in before.items() if "weight" in name]
    assert all(changed)


def test_bptt_is_the_trainers_too() -> None:
    measured = only(ours.through_time(TINY.but(chunk=3)))
    kinds = {type(module).__name__ for module in measured.model.modules()}
    assert "BatchNorm" in kinds
    assert "OSR" not in kinds
    neurons = [module for module in measured.model.modules() if isinstance(module, LIF)]
    assert all(not neuron.online and not neuron.stabilize_threshold for neuron in neurons)
    work.train_step(measured)


def test_the_setting_reaches_the_network() -> None:
    setting = TINY.but(norm="per_step", stabilize_threshold=False)
    model = only(ours.online(setting)).model
    convolutions = [module for module in model.modules() if isinstance(module, SpikingConv)]
    assert [layer.conv.out_channels for layer in convolutions] == [4, 6]
    assert not any(isinstance(module, OSR) for module in model.modules())
    resnet = TINY.but(model="resnet19", widths=None, image=(3, 32, 32))
    assert type(only(ours.online(resnet)).model).__name__ == "ResNet19"


def test_the_optimizer_of_everybody_is_that_of_training() -> None:
    trained = only(ours.online(TINY)).optimizer
    others = work.optimizer_for(nn.Linear(2, 2))
    assert type(others) is type(trained)
    assert others.defaults == trained.defaults


def test_what_is_kept_is_what_evaluation_counts() -> None:
    measured = only(ours.online(TINY))
    frames, labels = work.batch_in_memory(TINY)
    model = only(ours.online(TINY)).model
    expected = kept_for_backward(model, frames, labels, steps=TINY.steps, chunk=TINY.chunk)
    assert work.kept_bytes(measured) == expected > 0


def test_more_steps_a_call_keep_more_and_more_calls_do_not() -> None:
    kept = {
        (steps, chunk): work.kept_bytes(only(ours.online(TINY.but(steps=steps, chunk=chunk))))
        for steps, chunk in [(2, 1), (6, 1), (6, 6)]
    }
    assert kept[2, 1] == kept[6, 1]
    assert kept[6, 6] > 2 * kept[6, 1]


def test_layouts_are_torchs() -> None:
    frames, _ = work.batch_in_memory(TINY)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert not frames.contiguous(memory_format=LAYOUTS["contiguous"]).is_contiguous(
        memory_format=torch.channels_last
    )


def test_a_step_needs_its_presentation_closed() -> None:
    """A generator that is left open would keep the model in its sequence."""
    measured = only(ours.online(TINY))
    work.train_step(measured)
    with sequence(measured.model, steps=1):
        pass_through = measured.model(work.batch_in_memory(TINY)[0][None])
        pass_through.sum().backward()
