"""Firing rates and membrane potentials of every LIF layer and time step (Figures 2b and 3)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from steadyspike.evaluate.metrics import Bins, FiringRate, Layer, Layers
from steadyspike.kernels.stable_sqrt import stable_sqrt
from steadyspike.snn.neuron import LIF

BINS = Bins(low=-4.0, high=4.0, count=80)


class LayerRecorder:
    """Counts spikes and membrane potentials of every LIF layer while `recording`.

    Args:
        model: any module with LIF layers; to be run in evaluation mode.
        steps: T of each clip.
        bins: of the histograms of the membrane potential before the reset.
    """

    def __init__(self, model: nn.Module, steps: int, bins: Bins = BINS) -> None:
        self.bins = bins
        device = next(model.parameters()).device
        self._layers = {
            name: module for name, module in model.named_modules() if isinstance(module, LIF)
        }
        # Histogram with a bin at each end for what lies outside: (T, count + 2)
        self._counts = {
            name: torch.zeros(steps, bins.count + 2, dtype=torch.int64, device=device)
            for name in self._layers
        }
        self._spikes = {
            name: torch.zeros(steps, dtype=torch.int64, device=device) for name in self._layers
        }
        # Number of batches, Σu, Σu², Σθ: (T, 4)
        self._sums = {
            name: torch.zeros(steps, 4, dtype=torch.float64, device=device) for name in self._layers
        }

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record every step of the body, as the observer of each LIF layer."""

        def observer(name: str) -> Callable[[Tensor, int, Tensor], None]:
            return lambda u, step, threshold: self._record(name, u, step, threshold)

        for name, layer in self._layers.items():
            layer.observer = observer(name)
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.observer = None

    def _record(self, name: str, u: Tensor, step: int, threshold: Tensor) -> None:
        bins = self.bins
        self._spikes[name][step] += torch.count_nonzero(u - threshold >= 0)
        u = u.reshape(-1)
        place = (u - bins.low).mul_(bins.count / (bins.high - bins.low)).floor_()
        place = place.clamp_(-1, bins.count).add_(1).int()
        self._counts[name][step] += torch.bincount(place, minlength=bins.count + 2)
        total = u.sum(dtype=torch.float64)
        squares = u.square().sum(dtype=torch.float64)
        self._sums[name][step] += torch.stack(
            [torch.ones_like(total), total, squares, threshold.to(total)]
        )

    def firing_rate(self) -> FiringRate:
        """The share of all neurons of the network that spike, to six decimals."""
        spikes = torch.stack(list(self._spikes.values())).sum(0).tolist()
        neurons = torch.stack(list(self._counts.values())).sum((0, 2)).tolist()
        rates = [count / total for count, total in zip(spikes, neurons, strict=True)]
        return FiringRate(
            gross=round(sum(rates) / len(rates), 6), per_step=[round(rate, 6) for rate in rates]
        )

    def layers(self) -> Layers:
        """Histograms, moments and firing rates of each layer."""
        return Layers(bins=self.bins, layers=[self._layer(name) for name in self._layers])

    def _layer(self, name: str) -> Layer:
        counts, sums = self._counts[name], self._sums[name]
        total = counts.sum(1)
        mean = sums[:, 1] / total
        std = stable_sqrt((sums[:, 2] / total - mean.square()).clamp_(min=0))
        spikes = zip(self._spikes[name].tolist(), total.tolist(), strict=True)
        return Layer(
            name=name,
            firing_rate=[round(fired / neurons, 6) for fired, neurons in spikes],
            counts=counts[:, 1:-1].tolist(),
            below=counts[:, 0].tolist(),
            above=counts[:, -1].tolist(),
            mean=_six_digits(mean),
            std=_six_digits(std),
            threshold=_six_digits(sums[:, 3] / sums[:, 0]),
        )


def pooled(measured: Sequence[Layers]) -> Layers:
    """The layers of networks that differ in their seed: counts added up, rates and moments pooled.

    All have the same layers, bins and number of potentials.
    """
    if len(measured) == 1:
        return measured[0]
    layers = [_pooled_layer(each) for each in zip(*(m.layers for m in measured), strict=True)]
    return Layers(bins=measured[0].bins, layers=layers)


def _pooled_layer(seeds: Sequence[Layer]) -> Layer:
    def of_all(key: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor([getattr(layer, key) for layer in seeds], dtype=dtype)

    means = of_all("mean")
    mean = means.mean(0)
    variance = (of_all("std").square() + (means - mean).square()).mean(0)
    counts = {key: of_all(key, torch.int64).sum(0).tolist() for key in ("counts", "below", "above")}
    return Layer(
        name=seeds[0].name,
        firing_rate=[round(rate, 6) for rate in of_all("firing_rate").mean(0).tolist()],
        mean=_six_digits(mean),
        std=_six_digits(stable_sqrt(variance)),
        threshold=_six_digits(of_all("threshold").mean(0)),
        **counts,
    )


def _six_digits(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
