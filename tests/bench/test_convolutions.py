"""The convolutions timed alone are those of a training step."""

from typing import Any

import pytest
import torch
from torch import Tensor

from steadyspike.bench import convolutions
from steadyspike.bench.convolutions import convolutions_alone
from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import online
from steadyspike.models import blocks
from steadyspike.snn import conv as snn_conv

SETTING = Setting(image=(3, 8, 8), widths=(4, 6, "P", 8), steps=4, batch=2)


class Spy:
    """`convolve` that notes shape, type and layout of each input."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(
        self, conv: snn_conv.Convolution, x: Tensor, levels: int | None, *, biased: bool
    ) -> Tensor:
        last = x.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        self.calls.append((tuple(x.shape), x.dtype, last, levels, biased, x.requires_grad))
        return snn_conv.convolve(conv, x, levels, biased=biased)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_inputs_are_those_of_our_step(
    chunk: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = SETTING.but(chunk=chunk, precision=precision)
    step, alone = Spy(), Spy()
    (make,) = online(setting).values()
    monkeypatch.setattr(blocks, "convolve", step)
    make().run()
    run = convolutions_alone(setting, torch.channels_last, ours=True)
    monkeypatch.setattr(convolutions, "convolve", alone)
    run()
    # The step's first layer, whose input is the same at every step, is no call of `convolve`.
    assert alone.calls[0][0] == (1, 2, 3, 8, 8)
    assert sorted(map(repr, alone.calls[1:])) == sorted(map(repr, step.calls))


def test_a_peers_first_layer_runs_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    run = convolutions_alone(SETTING.but(chunk=4), torch.contiguous_format, ours=False)
    spy = Spy()
    monkeypatch.setattr(convolutions, "convolve", spy)
    run()
    assert [call[0] for call in spy.calls] == [(4, 2, 3, 8, 8), (4, 2, 4, 8, 8), (4, 2, 6, 4, 4)]
