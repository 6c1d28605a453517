"""Checkpoints of the released code: golden outputs of their networks, and damaged files."""

import argparse
import copy
import math
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golden import assert_golden, load, noise
from steadyspike import sequence
from steadyspike.deploy import load_released
from steadyspike.errors import UserError
from steadyspike.models import VGGSNN, build
from steadyspike.train import tet_loss
from steadyspike.train.digest import state_digest
from trap import Trap

GOLDEN = load("released_models")
TRAINED = [name for name, entry in GOLDEN.items() if "train_losses_2steps_batch4" in entry]


def released_state(shapes: Mapping[str, tuple[int, ...] | list[int]]) -> dict[str, Tensor]:
    """The state dict of the golden networks: entry j is drawn from stream j of `noise`."""
    state = {}
    for stream, (key, shape) in enumerate(shapes.items()):
        scale, shift = {
            "run_var": (0.05, 0.3),
            "run_mean": (0.1, 0.0),
            "gamma": (0.2, 1.0),
            "beta": (0.3, 0.3),
        }.get(key.rpartition(".")[2], (0.1, 0.0))
        if len(shape) > 1:
            scale = math.sqrt(6 / math.prod(shape[1:]))
        state[key] = noise(shape, stream, scale, shift)
    return state


@pytest.fixture(scope="module", params=list(GOLDEN))
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], nn.Module]:
    entry = GOLDEN[request.param]
    path = tmp_path_factory.mktemp("released") / "checkpoint_max.pth"
    torch.save({"net": released_state(entry["keys"]), "epoch": 3, "max_test_acc": 0.5}, path)
    size = {"in_channels": entry["in_channels"], "num_classes": entry["num_classes"]}
    model = build(entry["arch"], norm="osr", stabilize_threshold=True, **size).double()
    load_released(path, model)
    path.unlink()  # up to 170 MB
    return entry, model


def test_infers_the_stored_logits(stored: tuple[dict[str, Any], nn.Module]) -> None:
    entry, model = stored
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["parameters"]
    shape = (entry["batch"], entry["in_channels"], entry["image"], entry["image"])
    steps = range(entry["T"])
    clip = torch.stack([noise(shape, 5000 + t * entry["frames_differ"], 1.7) for t in steps])
    model.eval()
    with torch.no_grad(), sequence(model, steps=len(clip)):
        logits = torch.cat([model(frames) for frames in clip.split(3)])
    assert_golden(logits[:, :, :10], entry["logits_first10"], "logits")
    total = logits.sum(0)
    assert total.argmax(1).tolist() == entry["argmax"]
    assert_golden(total.norm(), entry["summed_logits_norm"], "norm of the summed logits")


@pytest.mark.parametrize("stored", TRAINED, indirect=True)
def test_trains_with_the_stored_losses(stored: tuple[dict[str, Any], nn.Module]) -> None:
    entry, model = stored
    model = copy.deepcopy(model).train()  # training changes the running statistics
    shape = (4, entry["in_channels"], entry["image"], entry["image"])
    frames = noise(shape, 6000, 1.7).unsqueeze(0)
    losses = []
    with sequence(model, steps=2):
        for _ in range(2):
            loss = tet_loss(model(frames), torch.arange(4), steps=2, mse_weight=0.05)
            loss.backward()
            losses.append(loss.detach())
    assert_golden(torch.stack(losses), entry["train_losses_2steps_batch4"], "losses")
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert isinstance(first.weight.grad, Tensor)
    stored_norm = entry["grad_norm_first_conv_after_2_steps"]
    assert_golden(first.weight.grad.norm(), stored_norm, "gradient norm")


# A tiny network


def tiny(**options: Any) -> VGGSNN:
    return VGGSNN(2, 3, widths=(4, "P", 5), **options)


def layer_keys(layer: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    """The released names and shapes of a layer with normalization."""
    norm = {f"{layer}.bn.{name}": (outputs,) for name in ("gamma", "beta", "run_mean", "run_var")}
    synapse = {"weight": (outputs, *inputs), "bias": (outputs,)}
    return {f"{layer}.synapse.{name}": shape for name, shape in synapse.items()} | norm


FEATURES = layer_keys("features.0", 4, 2, 3, 3) | layer_keys("features.2", 5, 4, 3, 3)
TINY_KEYS = FEATURES | {"classifier.0.weight": (3, 5), "classifier.0.bias": (3,)}


@pytest.mark.parametrize("norm", ["osr", "per_step", "linear"])
def test_tensors_are_loaded_with_any_online_norm(norm: str, tmp_path: Path) -> None:
    net = released_state(TINY_KEYS)
    torch.save({"net": net}, tmp_path / "c.pth")
    model = tiny(norm=norm)
    load_released(str(tmp_path / "c.pth"), model)
    layer = model.features[2]
    for tensor, key in (
        (layer.conv.weight, "features.2.synapse.weight"),
        (layer.norm.weight, "features.2.bn.gamma"),
        (layer.norm.bias, "features.2.bn.beta"),
        (layer.norm.running_mean, "features.2.bn.run_mean"),
        (layer.norm.running_var, "features.2.bn.run_var"),
        (model.classifier.weight, "classifier.0.weight"),
    ):
        assert torch.equal(tensor, net[key].float()), key


def test_layers_of_the_gesture_head_have_every_third_number(tmp_path: Path) -> None:
    head = layer_keys("classifier.0", 7, 5) | layer_keys("classifier.3", 6, 7)
    last = {"classifier.6.weight": (3, 6), "classifier.6.bias": (3,)}
    net = released_state(FEATURES | head | last)
    torch.save({"net": net}, tmp_path / "c.pth")
    model = tiny(head="gesture", head_widths=(7, 6))
    load_released(tmp_path / "c.pth", model)
    hidden = model.hidden[1].layer
    assert torch.equal(hidden.linear.weight, net["classifier.3.synapse.weight"].float())
    assert torch.equal(hidden.norm.running_var, net["classifier.3.bn.run_var"].float())
    assert torch.equal(model.classifier.bias, net["classifier.6.bias"].float())


def test_running_thresholds_and_fallbacks_are_reset(tmp_path: Path) -> None:
    net = {**released_state(TINY_KEYS), "features.0.neuron.run_th": torch.ones(1)}
    torch.save({"net": net}, tmp_path / "c.pth")
    model = tiny()
    with sequence(model, steps=2):
        model(torch.randn(2, 3, 2, 8, 8) * 1e3)
    assert model.features[0].norm.fallbacks == 2
    assert len(model.features[0].neuron.running_threshold) == 2
    load_released(tmp_path / "c.pth", model)
    fresh = tiny()
    load_released(tmp_path / "c.pth", fresh)
    assert state_digest(model.state_dict()) == state_digest(fresh.state_dict())


def test_released_statistics_are_taken_as_warm(tmp_path: Path) -> None:
    torch.save({"net": released_state(TINY_KEYS)}, tmp_path / "c.pth")
    models = [tiny(), tiny(warm_up_statistics=True)]
    for model in models:
        load_released(tmp_path / "c.pth", model)
        torch.manual_seed(0)
        with sequence(model, steps=2):
            model(torch.randn(2, 3, 2, 8, 8))
    plain, warmed = (model.features[0].norm for model in models)
    torch.testing.assert_close(warmed.running_mean, plain.running_mean)


def saved(checkpoint: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(checkpoint, path)


def with_net(**changes: Any) -> Callable[[Path], None]:
    """A checkpoint of the tiny network with some keys changed, or removed (None)."""
    net = released_state(TINY_KEYS)
    for key, value in changes.items():
        if value is None:
            del net[key]
        else:
            net[key] = value
    return saved({"net": net})


def truncated(path: Path) -> None:
    saved({"net": released_state(TINY_KEYS)})(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "no file": (lambda path: None, "No such file"),
    "a folder": (lambda path: path.mkdir(), "directory"),
    "empty": (lambda path: path.touch(), "cannot be read"),
    "text": (lambda path: path.write_text("not a checkpoint\n"), "cannot be read"),
    "truncated": (truncated, "cannot be read"),
    "net is a tensor": (saved({"net": torch.ones(3)}), "net: expected a dict"),
    "nothing in net": (saved({"net": {}}), r"missing classifier.0.bias, .* and 10 more"),
    "a key less": (with_net(**{"features.2.bn.beta": None}), r"missing features.2.bn.beta$"),
    "a key more": (with_net(**{"fc.weight": torch.ones(1)}), r"unknown fc.weight$"),
    "a key of two lines": (with_net(**{"a\nb": torch.ones(1)}), r"unknown a\\nb$"),
    "another shape": (
        with_net(**{"classifier.0.weight": torch.ones(10, 5)}),
        r"classifier.0.weight \(is \(10, 5\), expected \(3, 5\)\)$",
    ),
    "no tensor": (with_net(**{"classifier.0.bias": [0.0] * 3}), r"classifier.0.bias \(is no dense"),
    "a sparse tensor": (
        with_net(**{"classifier.0.weight": torch.eye(3, 5).to_sparse()}),
        r"classifier.0.weight \(is no dense tensor\)$",
    ),
    "NaN": (
        with_net(**{"classifier.0.bias": torch.tensor([0.0, math.nan, 0.0])}),
        r"wrong classifier.0.bias \(is not finite\)$",
    ),
    "a negative variance": (
        with_net(**{"features.0.bn.run_var": -torch.ones(4)}),
        r"wrong features.0.bn.run_var \(is negative\)$",
    ),
    "whole numbers": (
        with_net(**{"classifier.0.bias": torch.ones(3, dtype=torch.int8)}),
        r"wrong classifier.0.bias \(is int8, expected float32\)$",
    ),
    "an object": (
        saved({"net": {}, "args": argparse.Namespace()}),
        r"holds argparse.Namespace, which is not read.*torch.save\(\{\"net\"",
    ),
    "a bare state dict": (saved({"a": torch.ones(1)}), r"net: expected a dict.*torch.save\("),
}


@pytest.mark.filterwarnings("error")  # a warning would be a second line on stderr
@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_loads_nothing(case: str, tmp_path: Path) -> None:
    make, expected = BAD[case]
    path = tmp_path / "checkpoint_max.pth"
    make(path)
    model = tiny()
    before = state_digest(model.state_dict())
    with pytest.raises(UserError, match=expected) as raised:
        load_released(path, model)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert state_digest(model.state_dict()) == before


def test_a_file_that_runs_code_is_refused_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    torch.save({"net": Trap(tmp_path / "sprung")}, tmp_path / "zipped.pth")
    for name in ("c.pth", "zipped.pth"):
        with pytest.raises(UserError, match=r"is not read|cannot be read"):
            load_released(tmp_path / name, tiny())
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_as_other_programs_save_them(prefix: str, zipped: bool, tmp_path: Path) -> None:
    """With a wrapper's prefix, NumPy's scalars beside it, or in the format of torch before 1.6."""
    net = released_state(TINY_KEYS)
    content = {
        "net": {prefix + key: value for key, value in net.items()},
        "max_test_acc": np.float64(0.9),
        "epoch": np.int64(3),
    }
    torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    model = tiny()
    load_released(tmp_path / "c.pth", model)
    assert torch.equal(model.classifier.bias, net["classifier.0.bias"].float())


def test_networks_without_released_checkpoints(tmp_path: Path) -> None:
    with_net()(tmp_path / "c.pth")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'c.pth'}: norm: expected")):
        load_released(tmp_path / "c.pth", tiny(norm="batch", online=False))
    with pytest.raises(ValueError, match="Linear"):
        load_released(tmp_path / "c.pth", nn.Linear(1, 1))
