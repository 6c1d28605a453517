"""Reads the checkpoints of the paper's released code into the networks of this package."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike.errors import UserError
from steadyspike.models import VGGSNN, NFResNet34, ResNet19, SEWResNet34
from steadyspike.snn.norm import BatchNorm
from steadyspike.train.plain_checkpoint import check_checkpoint

# Our name of a module, as a pattern, and the released one. Blocks are counted from 1 there.
_STAGE = r"stages\.(?P<stage>\d+)\.(?P<block>\d+)"
_MODULES: dict[type[nn.Module], dict[str, str]] = {
    VGGSNN: {
        r"features\.(?P<n>\d+)\.conv": "features.{n}.synapse",
        r"features\.(?P<n>\d+)\.norm": "features.{n}.bn",
        # linear, scale and dropout are numbered there
        r"hidden\.(?P<hidden>\d+)\.layer\.linear": "classifier.{hidden}.synapse",
        r"hidden\.(?P<hidden>\d+)\.layer\.norm": "classifier.{hidden}.bn",
        r"classifier": "classifier.{last}",
    },
    ResNet19: {
        r"stem\.conv": "conv1",
        r"stem\.norm": "bn1",
        _STAGE + r"\.first\.conv": "layer{stage}.{block}.conv1",
        _STAGE + r"\.first\.norm": "layer{stage}.{block}.bn1",
        _STAGE + r"\.conv": "layer{stage}.{block}.conv2",
        _STAGE + r"\.norm": "layer{stage}.{block}.bn2",
        _STAGE + r"\.shortcut\.conv": "layer{stage}.{block}.downsample.0",
        _STAGE + r"\.shortcut\.norm": "layer{stage}.{block}.downsample.1",
        r"hidden": "fc1.0",
        r"hidden_norm": "fc1.1",
        r"classifier": "fc2",
    },
    SEWResNet34: {
        r"stem\.conv": "convNeuron1.synapse",
        r"stem\.norm": "convNeuron1.bn",
        _STAGE + r"\.first\.conv": "layer{stage}.{block}.convNeuron1.synapse",
        _STAGE + r"\.first\.norm": "layer{stage}.{block}.convNeuron1.bn",
        _STAGE + r"\.second\.conv": "layer{stage}.{block}.convNeuron2.synapse",
        _STAGE + r"\.second\.norm": "layer{stage}.{block}.convNeuron2.bn",
        _STAGE + r"\.shortcut\.conv": "layer{stage}.{block}.downsample.synapse",
        _STAGE + r"\.shortcut\.norm": "layer{stage}.{block}.downsample.bn",
        r"classifier": "fc",
    },
    NFResNet34: {
        r"stem\.conv": "conv1",
        r"stem\.norm": "bn1",
        _STAGE + r"\.first\.synapse\.conv": "layer{stage}.{block}.conv1",
        _STAGE + r"\.first\.synapse\.norm": "layer{stage}.{block}.bn1",
        _STAGE + r"\.second\.synapse\.conv": "layer{stage}.{block}.conv2",
        _STAGE + r"\.second\.synapse\.norm": "layer{stage}.{block}.bn2",
        _STAGE + r"\.shortcut\.conv": "layer{stage}.{block}.downsample.0",
        _STAGE + r"\.shortcut\.norm": "layer{stage}.{block}.downsample.1",
        r"classifier": "fc",
    },
}
_NORM_TENSORS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "run_mean",
    "running_var": "run_var",
}
# What training left in our buffers and no released checkpoint holds
_OWN = ("fallbacks", "running_threshold")


def load_released(path: str | Path, model: nn.Module) -> None:
    """Load a checkpoint of the released code, in place.

    Its ``net`` is a state dict in the released names (γ, β, μ̂, σ̂² are gamma, beta, run_mean,
    run_var). ``run_th``, where it is there, is passed over: it is one running threshold for all
    steps, which the released code never used. Running thresholds and counts of fallbacks that
    ``model`` had learned are forgotten.

    Args:
        path: the file.
        model: a network of :mod:`steadyspike.models` of the same shape, with any online norm.

    Raises:
        UserError: the file cannot be read, or a key is missing, unknown or of another shape; the
            model is then as it was.
        ValueError: ``model`` is none of these networks.
    """
    if type(model) not in _MODULES:
        raise ValueError(f"no released checkpoint is a {type(model).__name__}")
    if any(isinstance(module, BatchNorm) for module in model.modules()):
        raise UserError(
            f"{path}: norm: expected an online norm (osr, per_step, linear), since released "
            "checkpoints are not those of the framework's batch norm"
        )
    net = _read(path)
    names = _matching_names(path, model, net)
    ours = model.state_dict()
    state: dict[str, Tensor] = {name: net[released] for name, released in names.items()}
    for name in ours.keys() - names.keys():
        # No fallbacks so far, and thresholds (T,) of no step
        state[name] = torch.zeros_like(ours[name]) if ours[name].dim() == 0 else ours[name][:0]
    model.load_state_dict(state)


def check_released(path: str | Path, model: nn.Module) -> None:
    """Raises UserError as `load_released` does; ``model`` may lie on the device "meta"."""
    _matching_names(path, model, _read(path))


def released_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a released checkpoint, by its name there; errors as above."""
    net = _read(path)
    return {key: tuple(value.shape) for key, value in net.items() if isinstance(value, Tensor)}


def _read(path: str | Path) -> dict[str, Any]:
    """The ``net`` of a checkpoint, without running any code that the file may hold."""
    try:
        with Path(path).open("rb") as file:
            check_checkpoint(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files; what is wrong with them is told below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: expected a checkpoint, but {error.strerror or error}") from error
    except Exception as error:  # what a broken file raises depends on where it is broken
        raise UserError(
            f"{path}: expected a PyTorch checkpoint of plain tensors, but it cannot be read "
            f"({_reason(error)})"
        ) from error
    net = checkpoint.get("net") if isinstance(checkpoint, dict) else None
    if not isinstance(net, dict):
        raise UserError(f"{path}: net: expected a dict with the state dict under this key")
    return {str(key): value for key, value in net.items() if not str(key).endswith(".run_th")}


def _matching_names(path: str | Path, model: nn.Module, net: dict[str, Any]) -> dict[str, str]:
    """The released name of each of our tensors; UserError unless ``net`` has just these."""
    ours = model.state_dict()
    names = {name: _released_name(name, model) for name in ours if not name.endswith(_OWN)}
    problems = _problems(net, {released: ours[name] for name, released in names.items()})
    if problems:
        raise UserError(f"{path}: not a checkpoint of this {type(model).__name__}: {problems}")
    return names


def _reason(error: Exception) -> str:
    """Ours in words, PyTorch's by its kind: it explains itself at length."""
    return str(error) if isinstance(error, ValueError) else type(error).__name__


def _released_name(name: str, model: nn.Module) -> str:
    module, _, tensor = name.rpartition(".")
    for pattern, template in _MODULES[type(model)].items():
        match = re.fullmatch(pattern, module)
        if match is None:
            continue
        places: dict[str, int] = {key: int(value) for key, value in match.groupdict().items()}
        if "stage" in places:
            places["stage"] += 1
        if "hidden" in places:
            places["hidden"] *= 3  # the layer, a scale, a dropout
        if isinstance(model, VGGSNN):
            places["last"] = 3 * len(model.hidden)
        if hasattr(model.get_submodule(module), "running_mean"):
            tensor = _NORM_TENSORS[tensor]
        return f"{template.format(**places)}.{tensor}"
    raise AssertionError(f"{name} of {type(model).__name__} has no released name")


def _problems(net: dict[str, Any], expected: dict[str, Tensor]) -> str:
    """What keeps ``net`` from being loaded, in a few words; empty if nothing does."""
    misshaped = []
    for key in sorted(net.keys() & expected.keys()):
        value, shape = net[key], tuple(expected[key].shape)
        if not _holds_numbers(value):
            misshaped.append(f"{key} (expected a dense floating-point tensor)")
        elif tuple(value.shape) != shape:
            misshaped.append(f"{key} (expected shape {shape}, not {tuple(value.shape)})")
    found = {
        "missing": sorted(expected.keys() - net.keys()),
        "unknown": sorted(repr(key)[1:-1] for key in net.keys() - expected.keys()),
        "wrong": misshaped,
    }
    return "; ".join(f"{kind} {_listed(keys)}" for kind, keys in found.items() if keys)


def _holds_numbers(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
        and not value.is_meta
    )


def _listed(keys: list[str], most: int = 4) -> str:
    more = len(keys) - most
    return ", ".join(keys[:most]) + (f" and {more} more" if more > 0 else "")
