import pytest
import torch
from torch import Tensor, nn

from steadyspike.evaluate.rates import FiringRates
from steadyspike.snn.neuron import LIF
from steadyspike.snn.sequence import sequence


def spikes_by_hand(current: float, steps: int, threshold: float = 1.0) -> list[int]:
    """One neuron, τ = 2, soft reset, fed the same current at every step."""
    u, spikes = 0.0, []
    for _ in range(steps):
        u = 0.5 * u + current
        spikes.append(int(u >= threshold))
        u -= threshold * spikes[-1]
    return spikes


class Two(nn.Module):
    """Two layers side by side: `small` has the first 3 inputs, `large` all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.small, self.large = LIF(), LIF()

    def forward(self, currents: Tensor) -> Tensor:
        return self.small(currents[..., :3] * self.gain).mean(2) + self.large(currents).mean(2)


CURRENTS = torch.tensor([0.3, 0.55, 0.7, 0.9, 1.1, 1.6, 2.5])
STEPS = 5


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_against_a_count_by_hand(chunk: int) -> None:
    """Two presentations of 2 and 1 samples; the n-th sample gets n times the currents."""
    model = Two().eval()
    rates = FiringRates(model, STEPS)
    samples = [CURRENTS * factor for factor in (1.0, 2.0, 3.0)]
    with rates.counted():
        for batch in (samples[:2], samples[2:]):
            clip = torch.stack(batch).expand(STEPS, -1, -1)
            with torch.no_grad(), sequence(model, steps=STEPS):
                for part in clip.split(chunk):
                    model(part)
    trains = [[spikes_by_hand(value, STEPS) for value in sample.tolist()] for sample in samples]
    for name, neurons in (("small", 3), ("large", 7)):
        for step in range(STEPS):
            count = sum(train[step] for sample in trains for train in sample[:neurons])
            assert rates.per_layer()[name][step] == pytest.approx(count / (3 * neurons))
    total = [
        sum(train[step] for sample in trains for train in [*sample[:3], *sample])
        for step in range(STEPS)
    ]
    assert rates.per_step() == pytest.approx([count / 30 for count in total])
    assert rates.gross() == pytest.approx(sum(total) / (30 * STEPS))
    assert 0.2 < rates.gross() < 0.9  # neither extreme, or it would show nothing


def test_layers_weigh_by_their_neurons() -> None:
    model = Two().eval()
    rates = FiringRates(model, 1)
    with rates.counted(), torch.no_grad(), sequence(model, steps=1):
        model(torch.tensor([[[2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]]]))
    assert rates.per_layer() == {"small": [1.0], "large": [pytest.approx(3 / 7)]}
    assert rates.gross() == pytest.approx(6 / 10)


def test_nothing_is_counted_outside_and_nothing_left_behind() -> None:
    model = Two().eval()
    rates = FiringRates(model, 2)

    def present() -> None:
        with torch.no_grad(), sequence(model, steps=2):
            model(torch.full((2, 1, 7), 5.0))

    present()
    with rates.counted():
        present()
    before = rates.per_step()
    present()
    assert rates.per_step() == before == [1.0, 1.0]
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_removed_when_the_body_raises() -> None:
    model = Two()
    with pytest.raises(KeyError), FiringRates(model, 2).counted():
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())


def test_images_count_every_place() -> None:
    class Map(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))
            self.neuron = LIF()

        def forward(self, currents: Tensor) -> Tensor:
            return self.neuron(currents)

    model = Map().eval()
    currents = torch.zeros(1, 2, 3, 4, 5)
    currents[0, 1, 2, 3, 4] = 2.0
    rates = FiringRates(model, 1)
    with rates.counted(), sequence(model, steps=1):
        model(currents)
    assert rates.gross() == pytest.approx(1 / 120)
    assert rates.neurons == {"neuron": 60}
