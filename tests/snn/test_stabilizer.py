"""The threshold stabilizer: θ of every step, of dead layers, and fixed at inference."""

import math
import statistics
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from snn.neurons import present, steps
from steadyspike.snn.neuron import LIF, InferenceThreshold

# --- by hand (Eq. 16) ---


def test_thresholds_by_hand() -> None:
    lif = LIF(stabilize_threshold=True).double()
    # u[1] = 0 1 2 3: mean 1.5, std √(5/3); q = -0.5/√(5/3); fires 0 1 1 1, leaving 0 0 1 2
    # u[2] = 1 1 1.5 6: mean 2.375, std √(17.6875/3); 2.375 - 0.5 √(17.6875/5) = 1.434588...
    # fires 0 0 1 1, leaving 1 1 1.5-θ[2] 6-θ[2], half of which is u[3]
    x = steps([0, 1, 2, 3], [1, 1, 1, 5], [0, 0, 0, 0])
    second = 2.375 - 0.5 * math.sqrt(17.6875 / 5)
    assert second == pytest.approx(1.4345879, abs=1e-7)
    third_u = [0.5, 0.5, (1.5 - second) / 2, (6 - second) / 2]
    third = statistics.mean(third_u) - 0.5 / math.sqrt(5 / 3) * statistics.stdev(third_u)
    spikes, thresholds = present(lif, x, [1, 1, 1])
    assert thresholds == pytest.approx([1, second, third], rel=1e-12)
    assert spikes.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [float(u >= third) for u in third_u]]
    assert lif.membrane is not None
    assert lif.membrane.tolist() == pytest.approx([u - third * (u >= third) for u in third_u])


def test_statistics_are_of_the_whole_layer_and_batch() -> None:
    """As (N, C, H, W) or as one long vector, the neurons are the same neurons."""
    x = torch.randn(3, 4, 2, 3, 3, dtype=torch.float64)
    image, flat = LIF(stabilize_threshold=True).double(), LIF(stabilize_threshold=True).double()
    spikes, thresholds = present(image, x, [1, 1, 1])
    flat_spikes, flat_thresholds = present(flat, x.reshape(3, 1, -1), [1, 1, 1])
    assert thresholds == pytest.approx(flat_thresholds, rel=1e-12)
    assert torch.equal(spikes.flatten(), flat_spikes.flatten())


def test_first_threshold_and_firing_rate_follow_v_threshold() -> None:
    """θ keeps the quantile of the first step: for normal u, the share of neurons that fire."""
    lif = LIF(tau=1.0, v_threshold=0.5, stabilize_threshold=True)
    x = torch.randn(2, 20000)
    x[1] = x[1] * 3 - 7  # whatever the mean and spread of a later step
    spikes, thresholds = present(lif, x, [1, 1])
    assert thresholds[0] == 0.5
    assert thresholds[1] == pytest.approx(0.5 * 3 - 7, abs=0.1)
    assert spikes.mean(1).tolist() == pytest.approx([0.3085, 0.3085], abs=0.02)


def test_observer_sees_every_step() -> None:
    lif = LIF(stabilize_threshold=True).double()
    seen: list[tuple[int, Tensor, float]] = []
    lif.observer = lambda u, step, theta: seen.append((step, u.clone(), theta.item()))
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    spikes, _ = present(lif, x, [1, 2, 1])
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[0][1], x[0])
    for fired, (_, u, theta) in zip(spikes, seen, strict=True):
        assert torch.equal(fired, (u >= theta).double())


def test_stabilizer_statistics_of_bfloat16_membranes_are_float32_accurate() -> None:
    # 2^17 numbers: a sum of them in bfloat16 would stall long before the end
    x = (0.3 + torch.randn(2, 2**17)).bfloat16()
    lif = LIF(stabilize_threshold=True).bfloat16()
    thresholds: list[float] = []
    membranes: list[Tensor] = []

    def observe(u: Tensor, step: int, theta: Tensor) -> None:
        membranes.append(u.double())
        thresholds.append(theta.item())

    lif.observer = observe
    present(lif, x)
    q = (1 - membranes[0].mean()) / membranes[0].std()
    want = membranes[1].mean() + q * membranes[1].std()
    assert thresholds[1] == pytest.approx(want.item(), rel=1e-4)


# --- dead layers ---


@given(value=st.floats(-3, 3, width=32), n=st.integers(1, 300), t=st.integers(2, 5))
@example(value=0.1, n=105, t=4)
@example(value=0.0, n=8, t=3)
@example(value=2.7, n=1, t=3)
def test_a_layer_that_does_not_vary_keeps_its_threshold(value: float, n: int, t: int) -> None:
    """Exactly, although the rounded mean of equal numbers may differ from them."""
    lif = LIF(stabilize_threshold=True)
    currents = torch.full((t, n), value, requires_grad=True)
    spikes, thresholds = present(lif, currents, [1] * t)
    spikes.sum().backward()
    assert thresholds == [1.0] * t
    assert lif.membrane is not None
    assert lif.membrane.isfinite().all()
    assert currents.grad is not None
    assert currents.grad.isfinite().all()


def test_a_layer_dead_at_first_keeps_its_threshold_when_it_wakes() -> None:
    lif = LIF(stabilize_threshold=True).double()
    x = steps([0.5, 0.5, 0.5], [0.5, 1, 2], [0.25, 3, -1])
    spikes, thresholds = present(lif, x, [1, 1, 1])
    assert thresholds == [1, 1, 1]
    assert spikes[1].tolist() == [0, 1, 1]
    assert lif.running_threshold.tolist() == [1, 1, 1]


def test_a_step_that_does_not_vary_uses_the_first_threshold() -> None:
    lif = LIF(stabilize_threshold=True).double()
    # u[1] = 0.5 0.25 silent; u[2] = 0.5 0.5; u[3] = 0.25 0.75, spread √(1/8)
    x = steps([0.5, 0.25], [0.25, 0.375], [0, 0.5])
    spikes, thresholds = present(lif, x, [1, 1, 1])
    q = (1 - 0.375) / (0.25 / math.sqrt(2))
    assert thresholds == pytest.approx([1, 1, 0.5 + q * 0.5 / math.sqrt(2)], rel=1e-12)
    assert spikes[1].tolist() == [0, 0]


# --- a fixed threshold at inference ---


def trained(batches: Sequence[Tensor]) -> LIF:
    lif = LIF(stabilize_threshold=True, inference_threshold="fixed").double()
    for batch in batches:
        present(lif, batch)
    return lif


def batch(t: int = 3, n: int = 4, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(t, n, 6, generator=generator, dtype=torch.float64) + 0.3


def test_running_thresholds_are_learned_for_every_step() -> None:
    _, first = present(LIF(stabilize_threshold=True).double(), batch(seed=1), [1, 1, 1])
    _, second = present(LIF(stabilize_threshold=True).double(), batch(seed=2), [1, 1, 1])
    assert first[1:] != second[1:]
    lif = trained([batch(seed=1)])
    assert lif.running_threshold.tolist() == pytest.approx(first)
    lif = trained([batch(seed=1), batch(seed=2)])
    moved = [a + 0.1 * (b - a) for a, b in zip(first, second, strict=True)]
    assert lif.running_threshold.tolist() == pytest.approx(moved)


@pytest.mark.parametrize("threshold", ["fixed", "layer"])
@pytest.mark.parametrize("chunks", [(1, 1, 1), (2, 1), (3,)], ids=str)
def test_inference_uses_what_was_learned(
    chunks: tuple[int, ...], threshold: InferenceThreshold
) -> None:
    lif = trained([batch(seed=1), batch(seed=2)]).eval()
    lif.inference_threshold = threshold
    learned = lif.running_threshold.tolist()
    used = learned if threshold == "fixed" else [sum(learned) / 3] * 3
    x = batch(seed=3)
    spikes, _ = present(lif, x, chunks)
    u = torch.zeros_like(x[0])
    for current, theta, fired in zip(x, used, spikes, strict=True):
        u = u / 2 + current
        assert torch.equal(fired, (u >= theta).double())
        u = u - theta * (u >= theta)
    assert lif.running_threshold.tolist() == learned
    assert torch.equal(lif(x), spikes)  # a lone call is a whole presentation


def test_fixed_inference_does_not_depend_on_the_batch() -> None:
    lif = trained([batch(n=32)]).eval()
    x = batch(t=3, n=8, seed=4)
    whole, _ = present(lif, x)
    for sample in range(8):
        alone, _ = present(lif, x[:, sample : sample + 1])
        assert torch.equal(alone[:, 0], whole[:, sample])
    lif.inference_threshold = "live"  # which would depend on it
    whole, _ = present(lif, x)
    alone = torch.cat([present(lif, x[:, sample : sample + 1])[0] for sample in range(8)], 1)
    assert not torch.equal(alone, whole)


def test_live_inference_needs_nothing_learned() -> None:
    lif = LIF(stabilize_threshold=True).double().eval()
    x = batch()
    _, thresholds = present(lif, x, [1, 1, 1])
    _, training = present(LIF(stabilize_threshold=True).double(), x, [1, 1, 1])
    assert thresholds == training
    assert lif.running_threshold.numel() == 0


@pytest.mark.parametrize("threshold", ["fixed", "layer"])
def test_learned_thresholds_are_needed_where_they_are_used(threshold: InferenceThreshold) -> None:
    lif = LIF(stabilize_threshold=True, inference_threshold=threshold).eval()
    with pytest.raises(RuntimeError, match=rf"{threshold}.*learned"):
        lif(torch.zeros(2, 3))


def test_without_the_stabilizer_fixed_is_the_threshold_itself() -> None:
    lif = LIF(inference_threshold="fixed").eval()
    assert lif(torch.tensor([[0.9, 1.0]])).tolist() == [[0, 1]]


def test_learned_thresholds_travel_in_the_state_dict() -> None:
    lif = trained([batch(seed=1), batch(seed=2)]).eval()
    fresh = LIF(stabilize_threshold=True, inference_threshold="fixed").double().eval()
    fresh.load_state_dict(lif.state_dict())
    assert torch.equal(fresh.running_threshold, lif.running_threshold)
    x = batch(seed=3)
    assert torch.equal(present(fresh, x)[0], present(lif, x)[0])
    # and into one that had learned for another number of steps, or back to nothing
    other = trained([batch(t=5)])
    other.load_state_dict(lif.state_dict())
    assert torch.equal(other.running_threshold, lif.running_threshold)
    other.load_state_dict(LIF(stabilize_threshold=True).state_dict())
    assert other.running_threshold.numel() == 0
    # a copy, not the same memory
    present(lif.train(), batch(seed=8))
    assert not torch.equal(fresh.running_threshold, lif.running_threshold)


def test_another_number_of_steps_after_learning() -> None:
    lif = trained([batch(t=3, seed=1)])
    learned = lif.running_threshold.tolist()
    lif.eval()
    _, fewer = present(lif, batch(t=2, seed=3), [1, 1])
    assert fewer == learned[:2]
    _, more = present(lif, batch(t=5, seed=3), [1] * 5)
    assert more == [*learned, learned[-1], learned[-1]]
    lif.train()
    for t in (5, 2):  # learned anew, in either direction
        _, live = present(lif, batch(t=t, seed=4), [1] * t)
        assert lif.running_threshold.tolist() == pytest.approx(live)
