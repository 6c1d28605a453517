"""Checks a state dict before it is loaded: names, shapes, types, and that values are finite.

`load_state_dict` would convert int8 to float32 and take NaN or a negative variance as it is.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile

V = TypeVar("V")


def unwrapped(state: Mapping[str, V]) -> dict[str, V]:
    """The entries under the names of the network itself, if a wrapper's module was saved."""
    found = dict(state)
    while found and (
        wrapper := next((w for w in WRAPPERS if all(n.startswith(w) for n in found)), None)
    ):
        found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return found


def misfits(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``state`` from a network whose own state dict is ``own``; empty if nothing."""
    wrong = [f"{name} is missing" for name in own.keys() - state.keys()]
    wrong += [f"{repr(name)[1:-1]} is unknown" for name in state.keys() - own.keys()]
    for name in own.keys() & state.keys():
        if problem := misfit(name, state[name], own[name]):
            wrong.append(f"{name} {problem}")
    return sorted(wrong)


def misfit(name: str, value: Any, own: Tensor, *, any_float: bool = False) -> str | None:
    """What keeps ``value`` from the place of the network's tensor ``own``; None if nothing.

    ``own`` may be on the device "meta". With ``any_float`` the floating types may differ.
    """
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return "is no dense tensor"
    if value.dtype != own.dtype and not (any_float and value.is_floating_point()):
        return f"is {value.dtype}, expected {own.dtype}".replace("torch.", "")
    # Running thresholds take the length they were learned with, 0 before the first batch.
    learned = name.endswith("running_threshold") and value.dim() == 1
    if value.shape != own.shape and not learned:
        return f"is {tuple(value.shape)}, expected {tuple(own.shape) if own.numel() else '(T,)'}"
    if not torch.isfinite(value).all():
        return "is not finite"
    if name.endswith("running_var") and (value < 0).any():
        return "is negative"
    return None


def load_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state dict into ``model``, all of it or nothing; ValueError says what is wrong."""
    if wrong := misfits(state, model.state_dict()):
        raise ValueError("; ".join(wrong[:3]))
    model.load_state_dict(state)
