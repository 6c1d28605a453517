import hashlib
import struct

import pytest
import torch
from torch import Tensor

from steadyspike.train.digest import state_digest, tensor_sha256, weights_sha256


def test_a_digest_by_hand() -> None:
    tensor = torch.tensor([[1.0, -2.5], [0.0, 3e-9]])
    content = b"torch.float32 (2, 2)" + struct.pack("<4f", 1.0, -2.5, 0.0, 3e-9)
    assert tensor_sha256(tensor) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        torch.tensor([0.0, 1.0000001]),  # one bit
        torch.tensor([-0.0, 1.0]),  # equal, and yet other bits
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([0.0, 1.0, 0.0]),
        torch.tensor([1.0, 0.0]),
    ],
)
def test_any_difference_shows(other: Tensor) -> None:
    assert tensor_sha256(other) != tensor_sha256(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_layout_makes_no_difference(dtype: torch.dtype) -> None:
    weight = torch.randn(4, 3, 3, 3).to(dtype)
    digest = tensor_sha256(weight)
    assert tensor_sha256(weight.to(memory_format=torch.channels_last)) == digest
    assert tensor_sha256(torch.cat([weight, weight])[4:]) == digest
    assert tensor_sha256(weight.mT.contiguous().mT) == digest


def test_a_state_is_digested_by_name_in_any_order() -> None:
    a, b = torch.tensor([1.0]), torch.tensor([2.0])
    assert state_digest({"b": b, "a": a}) == {"a": tensor_sha256(a), "b": tensor_sha256(b)}
    assert list(state_digest({"b": b, "a": a})) == ["a", "b"]
    lines = f"a {tensor_sha256(a)}\nb {tensor_sha256(b)}\n"
    whole = hashlib.sha256(lines.encode()).hexdigest()
    assert weights_sha256({"a": a, "b": b}) == weights_sha256({"b": b, "a": a}) == whole
    assert weights_sha256({"a": b, "b": a}) != whole
