"""LIF's gradients: those of autograd through a loop, within a step or not, in any chunks."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snn.neurons import both_resets, present
from steadyspike import sequence
from steadyspike.snn.neuron import LIF


def plain_loop(currents: Tensor, reset: str, ots: bool, online: bool, slope: float) -> Tensor:
    """The neuron's equations with autograd's own derivatives, the spike as σ with Θ's value."""
    u = torch.zeros_like(currents[0])
    spikes = []
    quantile = None
    for current in currents:
        u = (u.detach() if online else u) / 2 + current
        with torch.no_grad():
            theta = torch.tensor(1.0, dtype=u.dtype)
            if ots and quantile is None:
                quantile = (theta - u.mean()) / u.std()
            elif ots and quantile is not None:
                theta = u.mean() + quantile * u.std()
            fired = (u >= theta).to(u.dtype)
        soft = torch.sigmoid(slope * (u - theta))
        spikes.append(fired + soft - soft.detach())
        u = u - fired * theta if reset == "subtract" else u * (1 - fired)
    return torch.stack(spikes)


@both_resets
@pytest.mark.parametrize("ots", [False, True])
@pytest.mark.parametrize("online", [True, False], ids=["online", "bptt"])
@given(
    t=st.integers(1, 6),
    shape=st.sampled_from([(2,), (3, 5), (1, 2, 3, 3)]),
    slope=st.sampled_from([1.0, 4.0]),
    seed=st.integers(0, 1000),
)
def test_gradients_equal_a_plain_loop(
    reset: Any, ots: bool, online: bool, t: int, shape: tuple[int, ...], slope: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(t, *shape, generator=generator, dtype=torch.float64) + 0.5
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    want = plain_loop(x, reset, ots, online, slope)
    (wanted,) = torch.autograd.grad(want, x, upstream)
    lif = LIF(reset=reset, stabilize_threshold=ots, surrogate_slope=slope, online=online).double()
    got, _ = present(lif, x)
    (gradient,) = torch.autograd.grad(got, x, upstream)
    torch.testing.assert_close(got, want.detach())
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ots", [False, True])
def test_no_gradient_crosses_steps_online_and_some_does_in_bptt(ots: bool) -> None:
    x = (torch.randn(3, 2, 5, dtype=torch.float64) + 0.5).requires_grad_()
    for online in (True, False):
        spikes, _ = present(LIF(stabilize_threshold=ots, online=online).double(), x)
        (gradient,) = torch.autograd.grad(spikes[2].sum(), x)
        assert gradient[2].abs().min() > 0
        assert (gradient[:2].abs().max() == 0) == online


@both_resets
@pytest.mark.parametrize("ots", [False, True])
@given(chunks=st.lists(st.integers(1, 3), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_chunks_do_not_matter(reset: Any, ots: bool, chunks: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(chunks), 2, 7, generator=generator, dtype=torch.float64) + 0.5
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    results = []
    for split in (chunks, [1] * sum(chunks), [sum(chunks)]):
        lif = LIF(reset=reset, stabilize_threshold=ots).double()
        leaf = x.clone().requires_grad_()
        first = 0
        with sequence(lif, steps=sum(chunks)):
            for part in leaf.split(split):  # backward of each chunk before the next one
                lif(part).backward(upstream[first : first + len(part)])
                first += len(part)
        assert leaf.grad is not None
        assert lif.membrane is not None
        results.append((leaf.grad, lif.membrane, lif.threshold, *lif.buffers()))
    for other in results[1:]:
        torch.testing.assert_close(results[0][0], other[0], rtol=1e-12, atol=1e-15)
        for got, want in zip(results[0][1:], other[1:], strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("online", [True, False], ids=["online", "bptt"])
def test_a_layer_can_be_copied_after_a_presentation(online: bool) -> None:
    """As for a moving average of weights: nothing it keeps may hold on to a graph."""
    lif = LIF(stabilize_threshold=True, online=online)
    x = torch.randn(2, 3, 4, requires_grad=True)
    spikes, _ = present(lif, x * 2)
    spikes.sum().backward()
    assert copy.deepcopy(lif).threshold.item() == lif.threshold.item()
