"""`steadyspike import-released`: a released checkpoint becomes a weights file of ours."""

import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from steadyspike.deploy.released import check_released, load_released, released_shapes
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.models import build

# Of each network the released names of its first and last weights, which tell its shape.
_ENDS = {
    "vggsnn": ("features.0.synapse.weight", "classifier.0.weight"),
    "resnet19": ("conv1.weight", "fc2.weight"),
    "sew_resnet34": ("convNeuron1.synapse.weight", "fc.weight"),
    "nf_resnet34": ("conv1.weight", "fc.weight"),
}


def import_released(checkpoint: Path, name: str, out: Path) -> nn.Module:
    """Write the weights of a released checkpoint of the network ``name`` as safetensors.

    Channels, classes, the head and the size of the images are read off the checkpoint.

    Raises:
        UserError: the file cannot be read, or a key is missing, extra or misshaped; nothing is
            written.
    """
    shapes = released_shapes(checkpoint)
    options = _options(checkpoint, name, shapes)
    # Without memory first: odd shapes may ask for more of it than the file has bytes.
    with torch.device("meta"):
        check_released(checkpoint, build(name, **options))
    model = build(name, **options)
    load_released(checkpoint, model)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    write_atomically(out, safetensors.torch.save(state))
    return model


def _options(path: Path, name: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    first, last = _ENDS[name]
    options: dict[str, Any] = {"norm": "osr", "stabilize_threshold": True}
    if name == "vggsnn" and "classifier.6.weight" in shapes:
        last = "classifier.6.weight"
        hidden = (f"classifier.{place}.synapse.weight" for place in (0, 3))
        options["head"] = "gesture"
        options["head_widths"] = [_shape(path, name, shapes, key)[0] for key in hidden]
    options["in_channels"] = _shape(path, name, shapes, first)[1]
    options["num_classes"] = _shape(path, name, shapes, last)[0]
    if name == "resnet19":
        # The first linear layer sees what two strides and a pooling, 8 in all, leave of an image.
        pixels = _shape(path, name, shapes, "fc1.0.weight")[1] / 512
        options["image_size"] = 8 * math.isqrt(int(pixels))
    return options


def _shape(path: Path, name: str, shapes: dict[str, tuple[int, ...]], key: str) -> tuple[int, ...]:
    shape = shapes.get(key, ())
    if len(shape) < 2 or 0 in shape:
        raise UserError(f"{path}: not a checkpoint of {name}: {key} is missing or misshaped")
    return shape
