import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from steadyspike.evaluate.membranes import Bins, Membranes
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


def observe(
    model: nn.Module, *batches: Tensor, bins: Bins | None = None, chunk: int = 1
) -> dict[str, Any]:
    """Currents (T, N, ...) of each batch shown in evaluation mode; the summary of what was seen."""
    model.eval()
    steps = len(batches[0])
    membranes = Membranes(model, steps, bins)
    with membranes.observed(), torch.no_grad():
        for currents in batches:
            with sequence(model, steps=steps):
                for part in currents.split(chunk):
                    model(part)
    summary: dict[str, Any] = json.loads(json.dumps(membranes.summary()))
    return summary


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_case_by_hand(chunk: int) -> None:
    """τ = 2, θ = 1, soft reset, u before the fire:

    0.6 -> 0.6, 0.3 + 0.6 = 0.9, 0.45 + 0.6 = 1.05
    1.2 -> 1.2, 0.1 + 1.2 = 1.3, 0.15 + 1.2 = 1.35
    -0.7 -> -0.7, -1.05, -1.225
    """
    currents = torch.tensor([[0.6], [1.2], [-0.7]]).expand(3, -1, -1)
    summary = observe(One(), currents, bins=Bins(-1, 1.25, 9), chunk=chunk)
    assert summary["bins"] == {"low": -1, "high": 1.25, "count": 9}
    (layer,) = summary["layers"]
    assert layer["name"] == "neuron"
    # bins of 0.25: -0.7 in the second, 0.6 in the seventh, 0.9 in the eighth, 1.05 and 1.2 in the
    # ninth, 1.3 and 1.35 above, -1.05 and -1.225 below
    assert layer["counts"] == [
        [0, 1, 0, 0, 0, 0, 1, 0, 1],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]
    assert layer["below"] == [0, 1, 1]
    assert layer["above"] == [0, 1, 1]
    means = [(0.6 + 1.2 - 0.7) / 3, (0.9 + 1.3 - 1.05) / 3, (1.05 + 1.35 - 1.225) / 3]
    assert layer["mean"] == pytest.approx(means, rel=1e-5)
    deviation = math.sqrt((0.6**2 + 1.2**2 + 0.7**2) / 3 - means[0] ** 2)
    assert layer["std"][0] == pytest.approx(deviation, rel=1e-5)
    assert layer["threshold"] == [1, 1, 1]


def test_edges_belong_to_the_bin_above_them() -> None:
    values = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, -1.0000001, 0.9999999])
    summary = observe(One(v_threshold=9.0), values[None, None], bins=Bins(-1, 1, 4))
    (layer,) = summary["layers"]
    assert (layer["below"], layer["counts"], layer["above"]) == ([1], [[1, 1, 1, 2]], [1])


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
    (layer,) = observe(One(stabilize_threshold=True), *batches)["layers"]
    for counts, below, above in zip(layer["counts"], layer["below"], layer["above"], strict=True):
        assert sum(counts) + below + above == 12 * sum(sizes)
        assert min([*counts, below, above]) >= 0
    first = torch.cat([batch[0] for batch in batches], 0).double()
    assert layer["mean"][0] == pytest.approx(first.mean().item(), rel=1e-4, abs=1e-5)
    assert layer["std"][0] == pytest.approx(first.std(correction=0).item(), rel=1e-4, abs=1e-5)


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
    (layer,) = observe(One(stabilize_threshold=True), *batches)["layers"]
    means = [sum(values) / 2 for values in zip(*expected, strict=True)]
    assert layer["threshold"] == pytest.approx(means, rel=1e-4)
    assert layer["threshold"][0] == pytest.approx(1.0, rel=1e-6)


def test_observers_are_gone_afterwards() -> None:
    model = One()
    observe(model, torch.zeros(1, 1, 1))
    assert model.neuron.observer is None
    seen = []

    def fail() -> None:
        with Membranes(model, 1).observed():
            seen.append(model.neuron.observer)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen != [None]
    assert model.neuron.observer is None


def test_every_layer_by_its_name() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))
            self.layers = nn.Sequential(LIF(), LIF(), nn.Sequential(LIF()))

        def forward(self, currents: Tensor) -> Tensor:
            spikes: Tensor = self.layers(currents)
            return spikes

    summary = observe(Three(), torch.full((2, 3, 4), 1.5))
    assert [layer["name"] for layer in summary["layers"]] == ["layers.0", "layers.1", "layers.2.0"]
    assert all(sum(layer["counts"][0]) == 12 for layer in summary["layers"])
