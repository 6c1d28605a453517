"""Load checkpoints of the paper's released code into the networks of this package.

Such a checkpoint holds a state dict under ``net``. Its norms name γ, β, μ̂, σ̂² gamma, beta,
run_mean and run_var; ``run_th``, one threshold for all steps that the released code never used, is
ignored.
"""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadyspike.errors import UserError
from steadyspike.models import VGGSNN, NFResNet34, ResNet19, SEWResNet34
from steadyspike.models.state import misfit, unwrapped
from steadyspike.snn.norm import BatchNorm

# Released names by our names; the number of a layer, block or stage is translated separately.
_NETWORKS: dict[type[nn.Module], dict[str, str]] = {
    VGGSNN: {"conv": "synapse", "linear": "synapse", "norm": "bn"},
    ResNet19: {
        **{"stem.conv": "conv1", "stem.norm": "bn1"},
        **{"first.conv": "conv1", "first.norm": "bn1", "conv": "conv2", "norm": "bn2"},
        **{"shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1"},
        **{"hidden": "fc1.0", "hidden_norm": "fc1.1", "classifier": "fc2"},
    },
    SEWResNet34: {
        **{"stem.conv": "convNeuron1.synapse", "stem.norm": "convNeuron1.bn"},
        **{"first.conv": "convNeuron1.synapse", "first.norm": "convNeuron1.bn"},
        **{"second.conv": "convNeuron2.synapse", "second.norm": "convNeuron2.bn"},
        **{"shortcut.conv": "downsample.synapse", "shortcut.norm": "downsample.bn"},
        "classifier": "fc",
    },
    NFResNet34: {
        **{"stem.conv": "conv1", "stem.norm": "bn1"},
        **{"first.synapse.conv": "conv1", "first.synapse.norm": "bn1"},
        **{"second.synapse.conv": "conv2", "second.synapse.norm": "bn2"},
        **{"shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1"},
        "classifier": "fc",
    },
}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "run_mean", "running_var": "run_var"}
#: NumPy's scalars, as which accuracies are often saved, under their names of NumPy 1 and 2.
_NUMBERS: list[Any] = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(letter)) for letter in f"?{np.typecodes['AllInteger']}{np.typecodes['Float']}"},
]
RESAVE = 'c = torch.load(FILE, weights_only=False); torch.save({"net": c["net"]}, FILE)'
# Buffers that no released checkpoint holds
_OURS_ONLY = ("fallbacks", "running_threshold", "num_batches_tracked")


def load_released(path: str | Path, model: nn.Module) -> None:
    """Load a checkpoint of the released code into ``model``, all of it or nothing.

    Running thresholds and counts of fallbacks of ``model`` are reset.

    Args:
        path: the file.
        model: a network of :mod:`steadyspike.models` of the same shape, with any online norm.

    Raises:
        UserError: the file cannot be read, or a key is missing, unknown or of another shape.
        ValueError: ``model`` is none of these networks.
    """
    if type(model) not in _NETWORKS:
        raise ValueError(f"no released checkpoint is a {type(model).__name__}")
    if any(isinstance(module, BatchNorm) for module in model.modules()):
        raise UserError(
            f"{path}: norm: expected an online norm (osr, per_step, linear): no released "
            "checkpoint has PyTorch's batch norm"
        )
    assign(path, read_released(path), model)


def read_released(path: str | Path) -> dict[str, Any]:
    """The ``net`` of a checkpoint, without running any code that the file may hold."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMBERS):
            warnings.simplefilter("ignore")  # the error below says what is wrong
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: expected a checkpoint, but {error.strerror or error}") from error
    except Exception as error:  # a damaged file raises errors of any type
        # PyTorch's messages have several lines; one of them names what it refuses to make.
        kind = re.search(r"(?:GLOBAL|global|class|type)\W+(?:GLOBAL )?([\w.]+\.\w+)", str(error))
        if kind is not None:
            raise UserError(
                f"{path}: holds {kind[1]}, which is not read, since it could run code; if you trust"
                f" the file, save its tensors alone: {RESAVE}"
            ) from error
        raise UserError(
            f"{path}: expected a PyTorch checkpoint of plain tensors, but it cannot be read "
            f"({type(error).__name__}); if torch.load reads it, save it again: {RESAVE}"
        ) from error
    net = checkpoint.get("net") if isinstance(checkpoint, dict) else None
    if not isinstance(net, dict):
        raise UserError(
            f"{path}: net: expected a dict with the state dict under this key: {RESAVE}"
        )
    named = unwrapped({str(key): value for key, value in net.items()})
    return {name: value for name, value in named.items() if not name.endswith(".run_th")}


def assign(path: str | Path, net: dict[str, Any], model: nn.Module) -> None:
    """Copy the tensors of ``net``, which was read from ``path``, into ``model``.

    Raises:
        UserError: a key is missing, unknown or of another shape; ``model`` is unchanged.
    """
    names = check(path, net, model)
    state: dict[str, Tensor] = {name: net[released] for name, released in names.items()}
    for name, tensor in model.state_dict().items():
        # No fallbacks, thresholds of no step; statistics without a count are taken as warm
        if name not in names and not name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(tensor) if tensor.dim() == 0 else tensor[:0]
    model.load_state_dict(state)


def check(path: str | Path, net: dict[str, Any], model: nn.Module) -> dict[str, str]:
    """The released name of each tensor of ``model``, which may be on the device "meta".

    Raises:
        UserError: ``net`` does not have exactly these tensors.
    """
    ours = model.state_dict()
    names = {name: _released_name(name, model) for name in ours if not name.endswith(_OURS_ONLY)}
    expected = {released: (name, ours[name]) for name, released in names.items()}
    problems = {
        "missing": sorted(expected.keys() - net.keys()),
        "unknown": sorted(repr(key)[1:-1] for key in net.keys() - expected.keys()),
        "wrong": [
            f"{key} ({problem})"
            for key in sorted(net.keys() & expected.keys())
            if (problem := misfit(expected[key][0], net[key], expected[key][1], any_float=True))
        ],
    }
    found = "; ".join(f"{kind} {_shortened(keys)}" for kind, keys in problems.items() if keys)
    if found:
        raise UserError(f"{path}: not a checkpoint of this {type(model).__name__}: {found}")
    return names


def _released_name(name: str, model: nn.Module) -> str:
    """``stages.0.1.first.norm.weight`` as ``layer1.1.bn1.gamma``, for example."""
    module, _, tensor = name.rpartition(".")
    if hasattr(model.get_submodule(module), "running_mean"):
        tensor = _NORM[tensor]
    own = _NETWORKS[type(model)]
    if stage := re.fullmatch(r"stages\.(\d+)\.(\d+)\.(.+)", module):
        return f"layer{int(stage[1]) + 1}.{stage[2]}.{own[stage[3]]}.{tensor}"
    if not isinstance(model, VGGSNN):
        return f"{own[module]}.{tensor}"
    if feature := re.fullmatch(r"(features\.\d+)\.(.+)", module):
        return f"{feature[1]}.{own[feature[2]]}.{tensor}"
    # There a layer of the head, its scale and its dropout have a number each.
    if hidden := re.fullmatch(r"hidden\.(\d+)\.layer\.(.+)", module):
        return f"classifier.{3 * int(hidden[1])}.{own[hidden[2]]}.{tensor}"
    return f"classifier.{3 * len(model.hidden)}.{tensor}"


def _shortened(keys: list[str], most: int = 4) -> str:
    more = len(keys) - most
    return ", ".join(keys[:most]) + (f" and {more} more" if more > 0 else "")
