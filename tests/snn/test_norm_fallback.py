"""OSR's fallback to plain batch norm at a step that varies far more than all steps have."""

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snn.norms import NORMS, by_equations, present, warm
from steadyspike import sequence
from steadyspike.snn.norm import OSR


def spread(stds: Sequence[Sequence[float]]) -> Tensor:
    """(T, 16, C) whose step t has exactly the (T, C) standard deviations, about a mean of 0.3."""
    values = torch.randn(len(stds), 16, len(stds[0]), dtype=torch.float64)
    values = (values - values.mean(1, keepdim=True)) / values.std(1, correction=0, keepdim=True)
    return values * torch.tensor(stds, dtype=torch.float64).unsqueeze(1) + 0.3


@pytest.mark.parametrize("chunks", [(1, 1, 1), (2, 1), (3,)], ids=str)
def test_fallback_is_plain_batch_norm_of_that_step_alone(chunks: tuple[int, ...]) -> None:
    norm = warm(OSR(2))
    norm.running_var.copy_(torch.tensor([1e-4, 1e-4]))  # √(σ̂² + ε) = 0.01414, 20 times it 0.2828
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    # Only channel 1 of the middle step is over the limit; channel 0 goes with it
    x = spread([[0.27, 0.1], [0.1, 0.3], [0.2, 0.27]]).requires_grad_()
    inputs = (x, norm.weight, norm.bias)
    upstream = torch.randn_like(x)

    ordinary = by_equations("osr", norm, x)
    own = F.batch_norm(x[1], None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    want = torch.stack([ordinary[0], own, ordinary[2]])
    wanted = torch.autograd.grad(want, inputs, upstream)

    got = present(norm, x, chunks)
    torch.testing.assert_close(got, want)
    for gradient, expected in zip(torch.autograd.grad(got, inputs, upstream), wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-10)
    assert norm.fallbacks.item() == 1
    # It is folded in like any other step
    together = x.detach().movedim(2, 0).flatten(1)
    torch.testing.assert_close(norm.running_mean, mean + 0.1 * (together.mean(1) - mean))
    torch.testing.assert_close(norm.running_var, var + 0.1 * (together.var(1, correction=0) - var))


def test_fallbacks_are_counted_over_the_modules_life() -> None:
    norm = OSR(2, momentum=0.0).double()
    norm.running_var.fill_(1e-4)
    for batches in (1, 2):
        present(norm, spread([[0.3, 0.1], [0.1, 0.1], [0.5, 0.5]]))
        assert norm.fallbacks.item() == 2 * batches
    norm.eval()
    present(norm, spread([[0.3, 0.1]]))
    assert norm.fallbacks.item() == 4
    again = OSR(2)
    again.load_state_dict(norm.state_dict())
    assert again.fallbacks.item() == 4


@pytest.mark.parametrize(("ratio", "fallbacks"), [(20.0, 1), (50.0, 0), (math.inf, 0)])
def test_fallback_ratio(ratio: float, fallbacks: int) -> None:
    norm = OSR(1, fallback_ratio=ratio).double()
    norm.running_var.fill_(1e-4)
    x = spread([[0.3]])
    want = by_equations("osr" if fallbacks == 0 else "per_step", norm, x)
    torch.testing.assert_close(present(norm, x), want)
    assert norm.fallbacks.item() == fallbacks


@pytest.mark.parametrize("kind", ["per_step", "linear"])
def test_others_do_not_fall_back(kind: str) -> None:
    norm = NORMS[kind](2).double()
    norm.running_var.fill_(1e-4)
    x = spread([[0.3, 0.1]])
    want = by_equations(kind, norm, x)
    torch.testing.assert_close(present(norm, x), want)


def test_a_raising_body_counts_no_fallback() -> None:
    norm = OSR(1).double()
    norm.running_var.fill_(1e-4)

    def body() -> None:
        with sequence(norm, steps=1):
            norm(spread([[0.3]]))
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert norm.fallbacks.item() == 0
