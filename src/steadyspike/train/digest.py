"""SHA-256 of tensors: equal exactly if every bit is."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensor_sha256(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and values, whatever its device and layout."""
    tensor = tensor.detach().cpu().contiguous()
    content = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def state_digest(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The SHA-256 of each tensor of a state dict, by name."""
    return {name: tensor_sha256(tensor) for name, tensor in sorted(state.items())}


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """One SHA-256 over all names and tensors of a state dict."""
    lines = (f"{name} {digest}\n" for name, digest in state_digest(state).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
