"""Layers by the names that people use: `conv 3`, `block 2.1, conv 1`."""

import re
from typing import Any

from steadyspike.models.vggsnn import WIDTHS
from steadyspike.train.config import ModelOptions

#: Parts of a layer whose name adds nothing: norms and neurons stand for their layer.
_PARTS = re.compile(r"\.(layer|synapse|neuron|norm)\b")
_CONVOLUTIONS = {"": "conv 2", "first": "conv 1", "second": "conv 2", "shortcut": "shortcut"}


def plain_name(path: str, model: ModelOptions) -> str:
    """The name of a layer, given its module's path; the path itself if it is of no known form."""
    layer = _PARTS.sub("", path)
    match layer.split("."):
        case ["features", place] if place.isdecimal():
            return _of_vggsnn(int(place), getattr(model, "widths", None) or WIDTHS) or path
        case ["hidden", place] if place.isdecimal():
            return f"linear {int(place) + 1}"
        case ["stem"]:
            return "stem"
        case ["stages", stage, block, *part] if stage.isdecimal() and block.isdecimal():
            convolution = _CONVOLUTIONS.get(".".join(part))
            if convolution:
                return f"block {int(stage) + 1}.{int(block) + 1}, {convolution}"
    return path


def _of_vggsnn(place: int, widths: Any) -> str:
    """Of entry ``place`` of the widths, among which poolings have no number."""
    if place >= len(widths) or widths[place] == "P":
        return ""
    return f"conv {sum(width != 'P' for width in widths[: place + 1])}"
