"""Counting operations: batch by batch, beside the network, and only what was announced."""

from typing import Any

import pytest
import torch

from evaluate.counts import clip, count, every, networks
from no_waiting import NoReading, no_waiting
from steadyspike.evaluate.operations import Operations
from steadyspike.snn.sequence import sequence


@every
def test_neither_chunks_nor_batches_change_the_count(name: str) -> None:
    model = networks(stabilize_threshold=False)[name]
    whole = count(model, clip()).per_layer()
    assert count(model, clip(), chunk=1).per_layer() == whole
    assert count(model, clip(), chunk=3, batch=3).per_layer() == whole
    assert count(model.float(), clip().float(), chunk=3).summary().keys() == {
        "synaptic_operations",
        "multiply_accumulates",
        "energy_nanojoule",
        "dense_multiply_accumulates",
    }


@every
def test_counting_changes_nothing(name: str) -> None:
    model = networks()[name]
    operations = Operations(model, 4)
    with torch.no_grad():
        want = model(clip())
        with operations.counted(4):
            assert torch.equal(model(clip()), want)
        first = operations.summary()
        model(clip())  # outside, not counted
        with operations.counted(4):
            model(clip())
    assert operations.summary() == first


@every
def test_only_the_first_batch_is_waited_for(name: str) -> None:
    model = networks()[name]
    operations = Operations(model, 4)
    with torch.no_grad():
        with operations.counted(4):
            model(clip())
        with NoReading(), operations.counted(4):
            model(clip())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every
def test_a_gpu_counts_alike_and_does_not_wait(name: str) -> None:
    model = networks(stabilize_threshold=False)[name]
    want = count(model, clip()).per_layer()
    model, frames = model.cuda(), clip().cuda()
    operations = Operations(model, 4)

    def batch() -> None:
        with torch.no_grad(), operations.counted(4), sequence(model, 4):
            model(frames)

    batch()  # fan-outs go to the device
    with no_waiting():
        batch()
    found = operations.per_layer()
    for layer, counts in want.items():  # a membrane at its threshold may fall on either side
        assert found[layer] == pytest.approx(counts, rel=1e-3), layer


# Refusals


def test_only_evaluation_mode_is_counted() -> None:
    model = networks()["vggsnn"]
    model.features[0].train()
    with pytest.raises(RuntimeError, match="evaluation mode"), Operations(model, 4).counted(4):
        pass


def test_other_steps_or_samples_than_announced_are_an_error() -> None:
    model = networks()["vggsnn"]
    for steps, samples in ((5, 4), (4, 3), (2, 4)):
        operations = Operations(model, steps)
        message = pytest.raises(RuntimeError, match=r"features\.0\.conv saw 16 inputs")
        with message, torch.no_grad(), operations.counted(samples):
            model(clip())
        assert operations.samples == 0


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_body_that_raises_counts_for_nothing() -> None:
    model = networks()["sew"]
    operations = Operations(model, 4)
    with torch.no_grad():
        with operations.counted(4):
            model(clip())
        want = operations.per_layer()
        interrupted = model.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt), operations.counted(4):
            model(clip())
        interrupted.remove()
    assert operations.per_layer() == want
    assert not any(module._forward_hooks for module in model.modules())
