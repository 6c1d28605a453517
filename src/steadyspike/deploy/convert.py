"""`steadyspike import-released`: convert a released checkpoint to a weights file of ours."""

import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from steadyspike.deploy.released import assign, check, read_released
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.models import build

# The first and the last weight of each network, by their released names.
_FIRST_AND_LAST = {
    "vggsnn": ("features.0.synapse.weight", "classifier.0.weight"),
    "resnet19": ("conv1.weight", "fc2.weight"),
    "sew_resnet34": ("convNeuron1.synapse.weight", "fc.weight"),
    "nf_resnet34": ("conv1.weight", "fc.weight"),
}


def import_released(checkpoint: Path, name: str, out: Path) -> nn.Module:
    """Write the weights of a released checkpoint of the network ``name`` as safetensors.

    Channels, classes, the head and the image size are inferred from the shapes in the checkpoint.

    Raises:
        UserError: no such network, or the file cannot be read, or a key is missing, unknown or of
            another shape; nothing is written.
    """
    if name not in _FIRST_AND_LAST:
        raise UserError(f"--model: expected one of {', '.join(_FIRST_AND_LAST)}, got {name!r}")
    net = read_released(checkpoint)
    options = _options(checkpoint, name, net)
    # First without allocating anything: inferred sizes may exceed what the file holds.
    with torch.device("meta"):
        check(checkpoint, net, build(name, **options))
    model = build(name, **options)
    assign(checkpoint, net, model)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    write_atomically(out, safetensors.torch.save(state))
    return model


def _options(path: Path, name: str, net: dict[str, Any]) -> dict[str, Any]:
    """The options that build a network of the checkpoint's shapes."""

    def shape(key: str) -> tuple[int, ...]:
        tensor = net.get(key)
        if not isinstance(tensor, Tensor) or tensor.dim() < 2 or 0 in tensor.shape:
            raise UserError(f"{path}: not a checkpoint of {name}: {key} is missing or misshaped")
        return tuple(tensor.shape)

    first, last = _FIRST_AND_LAST[name]
    options: dict[str, Any] = {"norm": "osr", "stabilize_threshold": True}
    if name == "vggsnn" and "classifier.6.weight" in net:
        last = "classifier.6.weight"
        options["head"] = "gesture"
        options["head_widths"] = [shape(f"classifier.{n}.synapse.weight")[0] for n in (0, 3)]
    options["in_channels"] = shape(first)[1]
    options["num_classes"] = shape(last)[0]
    if name == "resnet19":
        # The inputs of the first linear layer: 512 channels of images 8 times smaller
        options["image_size"] = 8 * math.isqrt(shape("fc1.0.weight")[1] // 512)
    return options
