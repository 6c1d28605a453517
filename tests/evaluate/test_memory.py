from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from steadyspike import kernels
from steadyspike.evaluate.memory import STEPS, KeptBytes, kept_for_backward, measure_memory
from steadyspike.evaluate.metrics import read_memory
from steadyspike.models import VGGSNN
from tiny import tiny_dataset, tiny_experiment

FLOAT, INTEGER = 4, 8  # bytes of float32 and int64


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((5,), 2.0))


@pytest.mark.parametrize(
    ("forward", "floats"),
    [
        (lambda w, x: x + w, 0),
        (lambda w, x: x * w, 15),  # x, for the gradient of w; w is a parameter
        (lambda w, x: (x * w).exp(), 30),  # and exp's result
        (lambda w, x: (x * w) * (x + w), 45),  # and both factors; x once
        (lambda w, x: (x * w) * x, 15),  # x once, whichever operation needs it
        (lambda w, x: (x.view(15)[:5] * w) + x[1] * w, 15),  # two views of x are one storage
        (lambda w, x: (x[:1].expand(3, 5) * w).sum(), 15),  # a view keeps its whole storage
        (lambda w, x: x[:1].clone().expand(3, 5) * w, 5),  # a repeated row is stored once
        (lambda w, x: x.exp().sin(), 0),  # nothing to learn, nothing kept
    ],
)
def test_bytes_by_hand(forward: Any, floats: int) -> None:
    model, x = Scale(), torch.randn(3, 5)
    kept = KeptBytes(model)
    with kept.counted():
        result = forward(model.weight, x)
    assert kept.total == floats * FLOAT, result
    with kept.counted(), torch.no_grad():
        forward(model.weight, x)
    assert kept.total == 0


def test_counting_begins_anew_and_leaves_gradients_alone() -> None:
    model, x = Scale(), torch.randn(3, 5)
    kept = KeptBytes(model)
    for _ in range(2):
        with kept.counted():
            out = (x * model.weight).exp().sum()
        assert kept.total == 30 * FLOAT
    out.backward()
    expected = (x * (2 * x).exp()).sum(0)
    torch.testing.assert_close(model.weight.grad, expected)


# A network: one convolution of 2 filters on images of 4x4, batch 3, 10 classes

N, C, HW, CLASSES = 3, 2, 16, 10


def kept(steps: int, chunk: int, **options: Any) -> int:
    torch.manual_seed(0)
    model = VGGSNN(1, CLASSES, widths=(C,), **options).train()
    frames, labels = torch.randn(N, 1, 4, 4), torch.tensor([1, 5, 9])
    return kept_for_backward(model, frames, labels, steps=steps, chunk=chunk)


def osr_by_hand(k: int) -> int:
    """The tensors that the gradients of one chunk of k steps need; the frames are still."""
    floats = {
        "the convolution's input, of all steps": N * HW,
        "OSR's input I, of all steps": N * C * HW,
        "the linear layer's input": k * N * C,
        "log-softmax for the cross-entropy": k * N * CLASSES,
        "its divisor": 1,
        "logits for the squared error": k * N * CLASSES,
        "one-hot labels, the same at every step": N * CLASSES,
    }
    floats |= {
        "m, s, σ[t], γ/s and β - m γ/s of OSR": 5 * k * C,
        "μ and σ² of all steps": 2 * C,
        "u; that of the last step is the neurons' state": (k - 1) * N * C * HW,
        "θ": k,
    }
    labels = k * N  # of the cross-entropy
    return FLOAT * sum(floats.values()) + INTEGER * labels


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("stabilize", [True, False])
def test_a_network_by_hand(chunk: int, stabilize: bool) -> None:
    options = {"norm": "osr", "stabilize_threshold": stabilize}
    assert kernels.backend(torch.empty(0)) is not kernels.reference, "a C compiler is needed here"
    assert kept(4, chunk, **options) == osr_by_hand(chunk)


@pytest.mark.parametrize("norm", ["osr", "per_step", "linear"])
@pytest.mark.parametrize("stabilize", [True, False])
def test_one_step_a_call_needs_the_same_for_any_t(norm: str, stabilize: bool) -> None:
    options = {"norm": norm, "stabilize_threshold": stabilize}
    assert len({kept(steps, 1, **options) for steps in (1, 2, 5, 20)}) == 1


def test_it_grows_with_k_and_not_with_t() -> None:
    by_chunk = [kept(8, chunk) for chunk in (1, 2, 4, 8)]
    assert by_chunk == sorted(set(by_chunk))
    assert kept(16, 4) == kept(4, 4)
    assert kept(5, 4) == kept(4, 4)  # the maximum of both calls, not their sum


def test_through_time_it_is_linear_in_t() -> None:
    options = {"norm": "batch", "stabilize_threshold": False, "online": False}
    by_steps = {steps: kept(steps, steps, **options) for steps in (2, 3, 4, 10, 30)}
    slope = by_steps[3] - by_steps[2]
    assert slope > 0
    for steps, count in by_steps.items():
        assert count == by_steps[2] + (steps - 2) * slope
    online = kept(30, 1)
    assert by_steps[30] > 20 * online


def test_memory_csv_has_every_method_k_and_t(tmp_path: Path) -> None:
    bptt = {"model.norm": "batch", "model.online": False, "model.stabilize_threshold": False}
    path = tmp_path / "memory.csv"
    measure_memory(tiny_experiment(), tiny_experiment(**bptt), tiny_dataset(), path)
    kept = {(row.method, row.chunk, row.steps): row.bytes for row in read_memory(path)}
    assert len(kept) == 3 * 9
    assert len({kept["online", 1, steps] for steps in STEPS}) == 1
    # As trained, with K 4: flat from T 4 on
    assert len({kept["online", 4, steps] for steps in STEPS if steps >= 4}) == 1
    assert kept["online", 1, 30] < kept["online", 4, 2] < kept["online", 4, 30]
    assert kept["bptt", 30, 30] > 10 * kept["online", 1, 30]
