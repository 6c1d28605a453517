"""Firing rates: how many of a layer's neurons spike, by layer and step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from steadyspike.snn.neuron import LIF


class FiringRates:
    """Spikes of every LIF layer, counted step by step within `counted`."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.layers = {
            name: module for name, module in model.named_modules() if isinstance(module, LIF)
        }
        device = next(model.parameters()).device
        self.spikes = {
            name: torch.zeros(steps, dtype=torch.int64, device=device) for name in self.layers
        }
        self.neurons = dict.fromkeys(self.layers, 0)  # of one sample
        self.samples = dict.fromkeys(self.layers, 0)
        self._step = dict.fromkeys(self.layers, 0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the spikes of the body's presentations, each of T steps."""
        handles = [
            layer.register_forward_hook(
                lambda _module, _args, spikes, name=name: self._count(name, spikes)
            )
            for name, layer in self.layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, name: str, spikes: Tensor) -> None:
        first = self._step[name]
        if first == 0:
            self.samples[name] += spikes.shape[1]
        self.spikes[name][first : first + len(spikes)] += torch.count_nonzero(
            spikes.flatten(1), dim=1
        )  # (K,)
        self._step[name] = (first + len(spikes)) % len(self.spikes[name])
        self.neurons[name] = spikes[0, 0].numel()

    def per_layer(self) -> dict[str, list[float]]:
        """The share of each layer's neurons that spike, at each step."""
        return {
            name: [count / (self.samples[name] * self.neurons[name]) for count in spikes.tolist()]
            for name, spikes in self.spikes.items()
        }

    def per_step(self) -> list[float]:
        """The share of all the network's neurons that spike, at each step."""
        total = torch.stack(list(self.spikes.values())).sum(0)
        possible = sum(self.samples[name] * self.neurons[name] for name in self.layers)
        return [count / possible for count in total.tolist()]

    def gross(self) -> float:
        """The share of all neurons that spike, mean over steps: layers weigh by their neurons."""
        rates = self.per_step()
        return sum(rates) / len(rates)
