"""VGGSNN trains along the stored trajectories, whatever the chunks."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from golden import assert_golden, load, noise
from models.vggsnns import METHODS, train_batch
from steadyspike import sequence
from steadyspike.models import VGGSNN


def trajectories() -> Iterator[Any]:
    for name in ("trajectory_static", "trajectory_events"):
        stored = load(name)
        t = stored["T"]
        for case in stored["cases"]:
            # BPTT needs all steps in one graph
            splits = [[1] * t, [2] * (t // 2), [t - 1, 1], [t]]
            for chunks in splits if case["method"] != "bptt" else [[t]]:
                yield pytest.param(
                    stored, case, chunks, id=f"{name}-{case['method']}-{'+'.join(map(str, chunks))}"
                )


def filled(stored: dict[str, Any], method: str) -> VGGSNN:
    """The tiny network of a stored trajectory with its first parameters."""
    widths = tuple("P" if width == "M" else width for width in stored["widths"])
    model = VGGSNN(
        stored["in_channels"], stored["num_classes"], widths=widths, **METHODS[method]
    ).double()
    parameters = list(model.parameters())
    with torch.no_grad():
        for j, parameter in enumerate(parameters):
            stream = stored["seed"] + 1000 + j
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise(parameter.shape, stream, 2.5 * math.sqrt(6 / fan_in)))
            elif j % 4 == 2 and j < len(parameters) - 2:  # γ: weight, bias, γ, β a layer
                parameter.copy_(noise(parameter.shape, stream, 0.2, 1.0))
            else:
                parameter.copy_(noise(parameter.shape, stream, 0.1))
    return model


def clip_of(stored: dict[str, Any], stream: int) -> Tensor:
    shape = (stored["batch"], stored["in_channels"], stored["image"], stored["image"])
    t = stored["T"]
    streams = [stream + step if stored["frames_differ"] else stream for step in range(t)]
    return torch.stack([noise(shape, each, 1.5) for each in streams])


@pytest.mark.parametrize(("stored", "case", "chunks"), list(trajectories()))
def test_golden_trajectory(stored: dict[str, Any], case: dict[str, Any], chunks: list[int]) -> None:
    model = filled(stored, case["method"])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=stored["lr"], momentum=0.9, weight_decay=stored["weight_decay"]
    )
    classes = stored["num_classes"]
    for number, want in enumerate(case["losses"]):
        labels = (torch.arange(stored["batch"]) * 3 + number) % classes
        brightness = (labels.double() / classes - 0.5).reshape(-1, 1, 1, 1)
        clip = clip_of(stored, stored["seed"] + 2000 + 100 * number) + brightness
        optimizer.zero_grad()
        loss = train_batch(model, clip, labels, chunks, stored["mse_weight"])
        optimizer.step()
        # Batch by batch, so that the first wrong one is named
        assert loss == pytest.approx(want, rel=1e-8), f"loss of batch {number}"
    with torch.no_grad():
        parameters = list(model.parameters())
        sums = torch.stack([parameter.sum() for parameter in parameters])
        squares = torch.stack([parameter.square().sum() for parameter in parameters])
        assert_golden(sums, case["parameter_sums"], "sums of the parameters")
        assert_golden(squares, case["parameter_square_sums"], "sums of their squares")
        model.eval()
        clip = clip_of(stored, stored["seed"] + 101900)
        with sequence(model, steps=len(clip)):
            logits = torch.cat([model(frames) for frames in clip.split(chunks)])
        assert_golden(logits, case["eval_logits"], "logits at inference")
        assert_golden(model(clip), case["eval_logits"], "logits of a lone call")
