"""What the simulators' importers make of our NIR files without our loader."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steadyspike.deploy.simulators import simulate


def spikes_of_the_importer_alone(simulator: str, path: Path, neurons: list[str], frames: Tensor):
    """The spikes (T, N, ...) of each layer, in float32; N is shown one by one, as NIR has none."""
    network = IMPORTERS[simulator](path)
    network.neurons = neurons
    found: list[list[Tensor]] = [[] for _ in neurons]
    for sample in frames.float().unbind(1):
        if simulator in ("spikingjelly", "sinabs"):
            sample = sample.unsqueeze(1)
        for seen, spikes in zip(found, simulate(network, sample)[1].values(), strict=True):
            seen.append(spikes.reshape(len(frames), 1, -1))
    return [torch.cat(seen, 1) for seen in found]


def _spikingjelly(path: Path) -> Any:
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(path)


def _norse(path: Path) -> Any:
    import nir
    import norse.torch

    return norse.torch.from_nir(nir.read(path), dt=1e-4)


def _sinabs(path: Path) -> Any:
    import nir
    import sinabs.nir

    return sinabs.nir.from_nir(nir.read(path), batch_size=1)


def _snntorch(path: Path) -> Any:
    import nir
    from snntorch.import_nir import import_from_nir

    with redirect_stdout(io.StringIO()):
        return import_from_nir(nir.read(path))


IMPORTERS: dict[str, Callable[[Path], Any]] = {
    "spikingjelly": _spikingjelly,
    "norse": _norse,
    "sinabs": _sinabs,
    "snntorch": _snntorch,
}
