"""Read weights files."""

from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from steadyspike.errors import UserError
from steadyspike.models.state import load_state, unwrapped
from steadyspike.train.digest import weights_sha256


def load_weights(path: Path, model: nn.Module, remedy: str) -> None:
    """Load a safetensors file into ``model``, all of it or nothing.

    Raises:
        UserError: the file is missing (with ``remedy``), damaged, of another network, or holds
            numbers that no training leaves.
    """
    if not path.exists():
        raise UserError(f"{path}: not found: {remedy}")
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        if _is_torch_file(path):
            raise UserError(
                f"{path}: a checkpoint of PyTorch, expected a safetensors file: `steadyspike"
                " import-released` converts one of the released code"
            ) from None
        raise UserError(f"{path}: damaged safetensors file: {error}") from None
    try:
        load_state(model, unwrapped(state))
    except ValueError as error:
        raise UserError(f"{path}: weights of another network or damaged ones: {error}") from None


def load_recorded(path: Path, model: nn.Module, sha256: str, record: str, remedy: str) -> None:
    """As `load_weights`; UserError too if they are not those whose SHA-256 is in ``record``."""
    load_weights(path, model, remedy)
    if weights_sha256(model.state_dict()) != sha256:
        raise UserError(f"{path}: not the weights that {record} records: {remedy}")


def _is_torch_file(path: Path) -> bool:
    """Whether it begins as a zip archive, or as the pickle of torch's old format."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")
