"""Firing rates and membrane potentials of each layer and step, against counts by hand."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from steadyspike.evaluate.layers import BINS, LayerRecorder
from steadyspike.evaluate.metrics import Bins, Layer
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence


class One(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.neuron = LIF(**options)

    def forward(self, currents: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(currents)
        return spikes


class Two(nn.Module):
    """Two layers side by side: `small` sees the first 3 inputs, `large` all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.small, self.large = LIF(), LIF()

    def forward(self, currents: Tensor) -> Tensor:
        return self.small(currents[..., :3] * self.gain).mean(2) + self.large(currents).mean(2)


def record(
    model: nn.Module, *batches: Tensor, bins: Bins = BINS, chunk: int = 1
) -> tuple[LayerRecorder, dict[str, Layer]]:
    """Shows the currents (T, N, ...) of each batch in evaluation mode."""
    model.eval()
    steps = len(batches[0])
    recorder = LayerRecorder(model, steps, bins)
    with recorder.recording(), torch.no_grad():
        for currents in batches:
            with sequence(model, steps=steps):
                for part in currents.split(chunk):
                    model(part)
    return recorder, {layer.name: layer for layer in recorder.layers().layers}


# Firing rates


def spikes_by_hand(current: float, steps: int) -> list[int]:
    """One neuron, τ = 2, θ = 1, soft reset, fed the same current at every step."""
    u, spikes = 0.0, []
    for _ in range(steps):
        u = 0.5 * u + current
        spikes.append(int(u >= 1))
        u -= spikes[-1]
    return spikes


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_firing_rates_by_hand(chunk: int) -> None:
    """Two clips of 2 samples and 1; the n-th sample gets n times the currents."""
    steps = 5
    currents = torch.tensor([0.3, 0.55, 0.7, 0.9, 1.1, 1.6, 2.5])
    samples = [currents * factor for factor in (1.0, 2.0, 3.0)]
    batches = [torch.stack(part).expand(steps, -1, -1) for part in (samples[:2], samples[2:])]
    recorder, layers = record(Two(), *batches, chunk=chunk)
    trains = [[spikes_by_hand(value, steps) for value in sample.tolist()] for sample in samples]
    for name, neurons in (("small", 3), ("large", 7)):
        for step in range(steps):
            count = sum(train[step] for sample in trains for train in sample[:neurons])
            rate = layers[name].firing_rate[step]
            assert rate == pytest.approx(count / (3 * neurons), abs=1e-6)
    total = [
        sum(train[step] for sample in trains for train in [*sample[:3], *sample])
        for step in range(steps)
    ]
    rates = recorder.firing_rate()
    assert rates.per_step == pytest.approx([count / 30 for count in total], abs=1e-6)
    assert rates.gross == pytest.approx(sum(total) / (30 * steps), abs=1e-6)
    assert 0.2 < rates.gross < 0.9  # neither extreme would show anything


# Membrane potentials


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_membranes_by_hand(chunk: int) -> None:
    """τ = 2, θ = 1, soft reset, u before the reset:

    0.6 -> 0.6, 0.3 + 0.6 = 0.9, 0.45 + 0.6 = 1.05
    1.2 -> 1.2, 0.1 + 1.2 = 1.3, 0.15 + 1.2 = 1.35
    -0.7 -> -0.7, -1.05, -1.225
    """
    currents = torch.tensor([[0.6], [1.2], [-0.7]]).expand(3, -1, -1)
    bins = Bins(low=-1, high=1.25, count=9)
    recorder, layers = record(One(), currents, bins=bins, chunk=chunk)
    assert recorder.layers().bins == bins
    layer = layers["neuron"]
    # bins of 0.25: -0.7 in the second, 0.6 in the seventh, 0.9 in the eighth, 1.05 and 1.2 in the
    # ninth, 1.3 and 1.35 above, -1.05 and -1.225 below
    assert layer.counts == [
        [0, 1, 0, 0, 0, 0, 1, 0, 1],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]
    assert layer.below == [0, 1, 1]
    assert layer.above == [0, 1, 1]
    assert layer.firing_rate == pytest.approx([1 / 3, 1 / 3, 2 / 3], abs=1e-6)
    means = [(0.6 + 1.2 - 0.7) / 3, (0.9 + 1.3 - 1.05) / 3, (1.05 + 1.35 - 1.225) / 3]
    assert layer.mean == pytest.approx(means, rel=1e-5)
    deviation = math.sqrt((0.6**2 + 1.2**2 + 0.7**2) / 3 - means[0] ** 2)
    assert layer.std[0] == pytest.approx(deviation, rel=1e-5)
    assert layer.threshold == [1, 1, 1]


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    values = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, -1.0000001, 0.9999999])
    bins = Bins(low=-1, high=1, count=4)
    _, layers = record(One(v_threshold=9.0), values[None, None], bins=bins)
    layer = layers["neuron"]
    assert (layer.below, layer.counts, layer.above) == ([1], [[1, 1, 1, 2]], [1])


@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.floats(0.1, 10),
    st.integers(0, 1000),
)
def test_every_neuron_of_every_sample_is_counted_once_a_step(
    steps: int, sizes: list[int], scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [scale * torch.randn(steps, size, 3, 2, 2, generator=generator) for size in sizes]
    layer = record(One(stabilize_threshold=True), *batches)[1]["neuron"]
    for counts, below, above in zip(layer.counts, layer.below, layer.above, strict=True):
        assert sum(counts) + below + above == 12 * sum(sizes)
        assert min([*counts, below, above]) >= 0
    first = torch.cat([batch[0] for batch in batches], 0).double()
    assert layer.mean[0] == pytest.approx(first.mean().item(), rel=1e-4, abs=1e-5)
    assert layer.std[0] == pytest.approx(first.std(correction=0).item(), rel=1e-4, abs=1e-5)


def test_thresholds_are_the_mean_over_batches() -> None:
    """OTS: θ[t] = mean u[t] + q std u[t], with q such that θ[1] = 1."""
    batches = [torch.randn(3, 4, 5), 2 * torch.randn(3, 2, 5)]
    expected = []
    for batch in batches:
        u, thetas = torch.zeros(batch.shape[1:], dtype=torch.float64), []
        for current in batch.double():
            u = 0.5 * u + current
            std = u.std(correction=0)
            if not thetas:
                quantile = (1 - u.mean()) / std
            thetas.append((u.mean() + quantile * std).item())
            u = u - thetas[-1] * (u >= thetas[-1])
        expected.append(thetas)
    layer = record(One(stabilize_threshold=True), *batches)[1]["neuron"]
    means = [sum(values) / 2 for values in zip(*expected, strict=True)]
    assert layer.threshold == pytest.approx(means, rel=1e-4)
    assert layer.threshold[0] == pytest.approx(1.0, rel=1e-6)


def test_nothing_is_recorded_outside_and_nothing_left_behind() -> None:
    model = One().eval()
    recorder = LayerRecorder(model, 2)

    def show() -> None:
        with torch.no_grad(), sequence(model, steps=2):
            model(torch.full((2, 1, 7), 5.0))

    show()
    with recorder.recording():
        show()
    before = recorder.layers()
    show()
    assert recorder.layers() == before
    with pytest.raises(KeyError), recorder.recording():
        raise KeyError
    assert model.neuron.observer is None
