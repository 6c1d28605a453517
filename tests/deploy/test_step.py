"""One step as ONNX, run by onnxruntime, and as a program of torch.export."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.networks import SHAPE, STEPS, clip, learned
from deploy.test_fold import run
from steadyspike.deploy.fold import fold
from steadyspike.deploy.step import write_onnx, write_program


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gesture", "sew_resnet34"])
def test_torch_export_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    folded = fold(learned(name), SHAPE)
    write_program(tmp_path / "step.pt2", folded)
    step = torch.export.load(str(tmp_path / "step.pt2")).module()
    for batch in (1, 5):  # neither is that of the export
        frames, membranes = clip(batch, seed=99), folded.membranes(batch)
        logits = run(folded, frames)[1]
        for t in range(STEPS):
            found, *membranes = step(frames[t], *membranes)
            torch.testing.assert_close(found, logits[t], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vggsnn", "resnet19", "nf_resnet34"])
def test_onnxruntime_gives_the_same_spikes_and_logits(name: str, tmp_path: Path) -> None:
    reason = "uv pip install --no-deps -r requirements-export.lock"
    pytest.importorskip("onnxscript", reason=reason)
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    folded = fold(learned(name).float(), SHAPE)
    write_onnx(tmp_path / "step.onnx", folded)
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    names = [f"membrane_{name}" for name in folded.neurons]
    assert [each.name for each in session.get_inputs()] == ["frame", *names]
    assert [each.name for each in session.get_outputs()] == [
        "logits",
        *(f"{name}_next" for name in names),
    ]
    for batch in (1, 5):
        frames, ours = clip(batch, seed=99).float(), folded.membranes(batch)
        theirs = [membrane.numpy() for membrane in ours]
        for frame in frames:
            with torch.no_grad():
                logits, *ours = folded(frame, *ours)
            inputs = dict(zip(["frame", *names], [frame.numpy(), *theirs], strict=True))
            found, *theirs = session.run(None, inputs)
            np.testing.assert_allclose(found, logits.numpy(), rtol=1e-5, atol=1e-5)
            for one, other in zip(ours, theirs, strict=True):  # a spike that differs is far more
                np.testing.assert_allclose(other, one.numpy(), rtol=1e-4, atol=1e-4)
