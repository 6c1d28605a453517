"""Layers that have gone wrong: silent ones, and ones whose running variance explodes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from steadyspike.snn.neuron import LIF

#: Currents are sums of spikes times weights, of a variance about 1; a running variance over this
#: is a network whose weights have grown a thousandfold.
MOST_VARIANCE = 1e6


class SilenceWatch:
    """Which spiking layers have fired in this epoch.

    Nothing waits for the device: whether a layer has fired is learned when its answer is there.
    Once all have, which takes a batch or two, nobody looks any more and it costs nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = {name: m for name, m in model.named_modules() if isinstance(m, LIF)}
        device = next(model.parameters()).device
        self.fired = torch.zeros(len(self.layers), dtype=torch.bool, device=device)
        self._told = torch.zeros(len(self.layers), dtype=torch.bool)  # what the processor knows
        self._arrived: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._told, self._arrived = self._told.pin_memory(), torch.cuda.Event()
            self._arrived.record()
        self.looking = False

    def begin(self, fired: Tensor | None = None) -> None:
        """A new epoch, or the rest of one in which these layers have ``fired`` (L,) already."""
        self.fired.zero_()
        if fired is not None:
            self.fired.copy_(fired)
        self._told.zero_()
        self._look(True)

    def after_batch(self) -> None:
        """Stop looking as soon as every layer is known to have fired."""
        if not self.looking or not (self._arrived is None or self._arrived.query()):
            return
        if bool(self._told.all()):  # what was asked for after an earlier batch
            self._look(False)
            return
        self._told.copy_(self.fired, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def silent(self, fired: Tensor | None = None) -> list[str]:
        """The layers that have not; waits for the device. ``fired``: as all processes saw it."""
        told = (self.fired if fired is None else fired).tolist()
        return [
            name for name, layer_fired in zip(self.layers, told, strict=True) if not layer_fired
        ]

    def _look(self, looking: bool) -> None:
        self.looking = looking
        for flag, layer in zip(self.fired, self.layers.values(), strict=True):
            layer.fired = flag if looking else None


def exploding(model: nn.Module) -> list[str]:
    """The norms with a running variance over `MOST_VARIANCE` in some channel; waits once."""
    largest = {name: variance.max() for name, variance in _running_variances(model)}
    if not largest:
        return []
    over = (torch.stack(list(largest.values())) > MOST_VARIANCE).tolist()
    return [name for name, is_over in zip(largest, over, strict=True) if is_over]


def _running_variances(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        variance = getattr(module, "running_var", None)
        if isinstance(variance, Tensor):
            yield name, variance
