"""`steadyspike import-released`: converted weights, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from golden import load, noise
from steadyspike.deploy import import_released, load_released
from steadyspike.errors import UserError
from steadyspike.evaluate.weights import load_weights
from steadyspike.models import VGGSNN, build
from tiny import in_process, refused

GOLDEN = load("released_models")


def released(path: Path, shapes: dict[str, Any]) -> Path:
    net = {key: noise(shape, place).float() for place, (key, shape) in enumerate(shapes.items())}
    net = {key: value.abs() if key.endswith("run_var") else value for key, value in net.items()}
    torch.save({"net": net, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("name", ["vggsnn_2x48_11", "resnet19_3x32_100", "sew_resnet34_3x64_1000"])
def test_the_weights_file_has_the_tensors_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    entry = GOLDEN[name]
    checkpoint = released(tmp_path / "checkpoint_max.pth", entry["keys"])
    out = tmp_path / "out" / "model.safetensors"
    model = import_released(checkpoint, entry["arch"], out)
    size = {"in_channels": entry["in_channels"], "num_classes": entry["num_classes"]}
    expected, loaded = build(entry["arch"], **size), build(entry["arch"], **size)
    load_released(checkpoint, expected)
    load_weights(out, loaded, "")
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["parameters"]
    for key, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def gesture_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The released names and shapes of VGGSNN with the gesture head."""
    convolutions = GOLDEN["vggsnn_2x48_11"]["keys"].items()
    shapes = {key: tuple(shape) for key, shape in convolutions if key.startswith("features")}
    for place, inputs in ((0, 512), (3, width)):
        shapes[f"classifier.{place}.synapse.weight"] = (width, inputs)
        shapes[f"classifier.{place}.synapse.bias"] = (width,)
        for tensor in ("gamma", "beta", "run_mean", "run_var"):
            shapes[f"classifier.{place}.bn.{tensor}"] = (width,)
    return shapes | {"classifier.6.weight": (11, width), "classifier.6.bias": (11,)}


@pytest.mark.parametrize("width", [512, 1024])
def test_the_gesture_head_is_inferred_from_shapes(width: int, tmp_path: Path) -> None:
    checkpoint = released(tmp_path / "gesture.pth", gesture_shapes(width))
    model = import_released(checkpoint, "vggsnn", tmp_path / "gesture.safetensors")
    assert isinstance(model, VGGSNN)
    assert isinstance(model.classifier, nn.Linear)
    assert model.classifier.weight.shape == (11, width)


@pytest.mark.parametrize("other", ["resnet19", "sew_resnet34", "nf_resnet34"])
def test_another_architecture_is_refused(other: str, tmp_path: Path) -> None:
    checkpoint = released(tmp_path / "checkpoint.pth", GOLDEN["vggsnn_3x32_10"]["keys"])
    with pytest.raises(UserError, match=r"checkpoint\.pth: .*(missing|unknown)"):
        import_released(checkpoint, other, tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_the_command(tmp_path: Path) -> None:
    shapes = GOLDEN["vggsnn_3x32_10"]["keys"]
    released(tmp_path / "good.pth", shapes)
    released(tmp_path / "bad.pth", {k: v for k, v in shapes.items() if k != "features.1.bn.gamma"})
    arguments = ("--model", "vggsnn", "--out", "model.safetensors")
    result = in_process(tmp_path, "import-released", "good.pth", *arguments)
    assert result.returncode == 0
    assert "9,231,114 parameters" in result.stdout
    result = in_process(tmp_path, "import-released", "bad.pth", *arguments)
    refused(result, r"bad\.pth: .*features\.1\.bn\.gamma")


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--model: expected one of vggsnn.*got 'vgg'"):
        import_released(tmp_path / "missing.pth", "vgg", tmp_path / "out.safetensors")
