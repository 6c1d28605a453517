"""Folded networks fire the same spikes as those they were made of."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from deploy.networks import SHAPE, SMALL, STEPS, clip, learned, spikes_and_logits
from steadyspike.deploy.fold import fold
from steadyspike.deploy.folded import Folded
from steadyspike.snn.norm import OSR


def run(folded: Folded, frames: Tensor) -> tuple[list[Tensor], Tensor]:
    """As `spikes_and_logits`, one step after the other."""
    membranes = folded.membranes(frames.shape[1])
    outputs = []
    with torch.no_grad():
        for frame in frames:
            outputs.append(folded.outputs(frame, *membranes))
            membranes = [outputs[-1][f"{name} membrane"] for name in folded.neurons]
    spikes = [torch.stack([output[name] for output in outputs]) for name in folded.neurons]
    return spikes, torch.stack([output["classifier"] for output in outputs])


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("name", SMALL)
def test_every_spike_is_the_same(name: str, reset: Literal["subtract", "zero"]) -> None:
    model = learned(name, reset=reset)
    frames = clip(6, seed=99)
    expected, logits = spikes_and_logits(model, frames)
    found, found_logits = run(fold(model, SHAPE), frames)
    assert len(found) == len(expected) > 2
    for mine, theirs in zip(expected, found, strict=True):
        assert 0 < mine.sum() < mine.numel()
        assert torch.equal(mine.double(), theirs)
    torch.testing.assert_close(found_logits, logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch", "online": False, "stabilize_threshold": False},
        {"norm": "tdbn", "online": False, "stabilize_threshold": False, "v_threshold": 0.7},
        {"norm": "per_step", "v_threshold": 0.7},
        {"norm": "linear", "tau": 3.0},
        {"stabilize_threshold": False, "dropout": 0.3, "v_threshold": 0.7},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_other_norms_thresholds_and_dropout(options: dict[str, Any]) -> None:
    model = learned("gesture", **options)
    frames = clip(6, seed=99)
    expected, logits = spikes_and_logits(model, frames)
    found, found_logits = run(fold(model, SHAPE), frames)
    for mine, theirs in zip(expected, found, strict=True):
        assert torch.equal(mine.double(), theirs)
    torch.testing.assert_close(found_logits, logits, rtol=1e-10, atol=1e-10)


def test_one_step_maps_membranes_to_membranes() -> None:
    folded = fold(learned("vggsnn"), SHAPE)
    frames = clip(2)
    membranes: tuple[Tensor, ...] = tuple(folded.membranes(2))
    with torch.no_grad():
        for frame in frames:
            logits, *membranes = folded(frame, *membranes)
    assert torch.equal(logits, run(folded, frames)[1][STEPS - 1])


@pytest.mark.parametrize(
    ("norm", "name"), [("bntt", "BNTT"), ("tab", "TAB"), ("tebn", "TEBN"), ("ws", "Identity")]
)
def test_norms_that_are_no_affine_map_of_a_layer_are_refused(norm: str, name: str) -> None:
    options = {"norm": norm, "steps": STEPS, "online": norm != "tebn"}
    model = learned("vggsnn", stabilize_threshold=False, **options)
    with pytest.raises(ValueError, match=f"norm: a {name} cannot be folded"):
        fold(model, SHAPE)


@pytest.mark.parametrize("threshold", ["live", "fixed"])
def test_thresholds_that_change_from_step_to_step_are_refused(threshold: str) -> None:
    model = learned("vggsnn", inference_threshold=threshold)
    with pytest.raises(ValueError, match=rf"one threshold a layer.*'{threshold}'"):
        fold(model, SHAPE)


def test_a_norm_that_is_no_affine_map_is_refused() -> None:
    class Other(OSR):
        pass

    model = learned("vggsnn")
    next(m for m in model.modules() if isinstance(m, OSR)).__class__ = Other
    with pytest.raises(ValueError, match="norm: a Other cannot be folded"):
        fold(model, SHAPE)
