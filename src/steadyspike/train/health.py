"""Detects layers that have gone wrong: silent neurons, exploding running variances."""

import torch
from torch import Tensor, nn

from steadyspike.snn.neuron import LIF

#: Currents have a variance of about 1 at first; a running variance over this comes from weights
#: that have grown a thousandfold.
MOST_VARIANCE = 1e6


class SilenceWatch:
    """Which spiking layers have fired in the current epoch.

    The result is copied from the device without waiting and read after a later batch. Once every
    layer has fired, usually after a batch or two, watching stops and costs nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = {name: m for name, m in model.named_modules() if isinstance(m, LIF)}
        device = next(model.parameters()).device
        self.fired = torch.zeros(len(self.layers), dtype=torch.bool, device=device)
        self._copy = torch.zeros(len(self.layers), dtype=torch.bool)  # of `fired`, on the host
        self._copied: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._copy, self._copied = self._copy.pin_memory(), torch.cuda.Event()
            self._copied.record()
        self.watching = False

    def begin_epoch(self, fired: Tensor | None = None) -> None:
        """Watch all layers; ``fired`` (L,) are those known from the part before a resume."""
        self.fired.zero_()
        if fired is not None:
            self.fired.copy_(fired)
        self._copy.zero_()
        self.watch(True)

    def after_batch(self) -> None:
        """Stop watching as soon as every layer is known to have fired."""
        if not self.watching or not (self._copied is None or self._copied.query()):
            return
        if bool(self._copy.all()):  # as requested after an earlier batch
            self.watch(False)
            return
        self._copy.copy_(self.fired, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def silent_layers(self) -> list[str]:
        """The layers that have not fired in this epoch; waits for the device."""
        return [
            name for name, fired in zip(self.layers, self.fired.tolist(), strict=True) if not fired
        ]

    def watch(self, watching: bool) -> None:
        """Watch all layers, or none."""
        self.watching = watching
        for flag, layer in zip(self.fired, self.layers.values(), strict=True):
            layer.fired = flag if watching else None


def exploding_layers(model: nn.Module) -> list[str]:
    """The norms with a running variance over `MOST_VARIANCE` in some channel; waits once."""
    largest = {
        name: module.running_var.max()
        for name, module in model.named_modules()
        if isinstance(getattr(module, "running_var", None), Tensor)
    }
    if not largest:
        return []
    over = (torch.stack(list(largest.values())) > MOST_VARIANCE).tolist()
    return [name for name, exploded in zip(largest, over, strict=True) if exploded]
