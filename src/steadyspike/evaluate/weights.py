"""Read weights files."""

from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from steadyspike.errors import UserError


def load_weights(path: Path, model: nn.Module, remedy: str) -> None:
    """Load a safetensors file into ``model``, all of it or nothing.

    Raises:
        UserError: the file is missing (with ``remedy``), damaged, or of another network.
    """
    if not path.exists():
        raise UserError(f"{path}: not found: {remedy}")
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged safetensors file: {error}") from None
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own.keys() - state.keys()]
    wrong += [f"{name} is unknown" for name in state.keys() - own.keys()]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        # Running thresholds take the length they were learned with.
        if name in state and state[name].shape != tensor.shape and tensor.numel() > 0
    ]
    if wrong:
        raise UserError(f"{path}: weights of another network: {'; '.join(sorted(wrong)[:3])}")
    model.load_state_dict(state)
