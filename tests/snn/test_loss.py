"""The loss of each step (Eq. 5) against a loop over steps, samples and classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steadyspike.train import tet_loss


def by_hand(logits: Tensor, labels: Tensor, steps: int, mse_weight: float) -> float:
    total = 0.0
    _, samples, classes = logits.shape
    for step in logits.tolist():
        cross_entropy = squared = 0.0
        for row, label in zip(step, labels.tolist(), strict=True):
            cross_entropy += math.log(sum(math.exp(o) for o in row)) - row[label]
            squared += sum((o - (c == label)) ** 2 for c, o in enumerate(row))
        total += (1 - mse_weight) * cross_entropy / samples
        total += mse_weight * squared / (samples * classes)
    return total / steps


@given(
    k=st.integers(1, 4),
    samples=st.integers(1, 5),
    classes=st.integers(2, 6),
    extra=st.integers(0, 3),
    mse_weight=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_equals_a_loop(
    k: int, samples: int, classes: int, extra: int, mse_weight: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(k, samples, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (samples,), generator=generator)
    got = tet_loss(logits, labels, steps=k + extra, mse_weight=mse_weight)
    assert got.shape == ()
    want = by_hand(logits, labels, k + extra, mse_weight)
    assert got.item() == pytest.approx(want, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (2, 2), (3, 1), (1, 3)])
def test_chunks_add_up(chunks: tuple[int, ...]) -> None:
    labels = torch.tensor([0, 2, 1])
    whole = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    parts = whole.detach().clone().requires_grad_()
    loss = tet_loss(whole, labels, steps=4, mse_weight=0.05)
    loss.backward()
    total = 0.0
    for chunk in parts.split(chunks):
        part = tet_loss(chunk, labels, steps=4, mse_weight=0.05)
        part.backward()
        total += part.item()
    assert total == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-15)


def test_gradient_of_a_step() -> None:
    """Eq. 5 differentiated by hand: (1-ε)(softmax - onehot)/N + 2ε (o - onehot)/(N classes)."""
    labels = torch.tensor([1, 0])
    logits = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    tet_loss(logits, labels, steps=5, mse_weight=0.3).backward()
    onehot = torch.tensor([[0, 1, 0], [1, 0, 0]], dtype=torch.float64)
    o = logits.detach()[0]
    want = 0.7 * (o.softmax(1) - onehot) / 2 + 0.3 * 2 * (o - onehot) / 6
    torch.testing.assert_close(logits.grad, want[None] / 5)


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits = (4 * torch.randn(6, 64, 10)).bfloat16().requires_grad_()
    labels = torch.randint(10, (64,))
    loss = tet_loss(logits, labels, steps=6, mse_weight=0.05)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_hand(logits, labels, 6, 0.05), rel=1e-5)
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_steps_and_weight_are_named() -> None:
    with pytest.raises(TypeError):
        tet_loss(torch.zeros(1, 1, 2), torch.zeros(1, dtype=torch.long), 1, 0.05)
