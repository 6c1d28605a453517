"""Loads our NIR files into simulators so that every spike is the same.

Each simulator reads NIR by its own importer. What that leaves out or does otherwise is mended here,
before or after it: docs/export.md lists it. `load` gives the simulator's own network, called step
by step as ``logits, state = network(frame, state)``, with ``state=None`` at first and frames
(N, C, H, W). `simulate` does that, and gives the spikes.
"""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from graphlib import TopologicalSorter
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadyspike.errors import UserError
from steadyspike.extra import import_extra


def load(path: Path | str, simulator: str) -> nn.Module:
    """The network of a NIR file in a simulator, in the precision of the file.

    Its submodules have the names of the file's nodes; ``neurons`` are those of the layers of
    neurons, first to last.

    Args:
        path: a file that `steadyspike export` wrote.
        simulator: one of `SIMULATORS`.

    Raises:
        UserError: no such simulator, or it is not installed; no such file, or not one of ours.
    """
    if simulator not in SIMULATORS:
        raise UserError(f"simulator: expected one of {', '.join(SIMULATORS)}, got {simulator!r}")
    graph = read(Path(path))
    neurons = tuple(_neurons(graph))
    network: Any = SIMULATORS[simulator](graph).eval()
    network.neurons = neurons
    return network  # type: ignore[no-any-return]


def simulate(network: Any, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Present frames (T, N, C, H, W), from membranes at rest, to a network that `load` gave.

    Returns:
        The logits (T, N, classes), and the spikes (T, N, ...) of each layer of neurons by name.
    """
    for layer in network.modules():
        for reset in ("reset_mem", "reset_states"):  # snnTorch and sinabs keep it in their layers
            getattr(layer, reset, lambda: None)()
    seen: dict[str, list[Tensor]] = {name: [] for name in network.neurons}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda layer, inputs, output: seen[name].append(
            (output[0] if isinstance(output, tuple) else output).detach()
        )

    hooks = [network.get_submodule(name).register_forward_hook(watch(name)) for name in seen]
    logits, state = [], None
    try:
        with torch.no_grad():
            for frame in frames:
                out, state = network(frame, state)
                logits.append(out)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(logits), {name: torch.stack(spikes) for name, spikes in seen.items()}


def read(path: Path) -> Any:
    """The graph of a NIR file that `steadyspike export` wrote, a `nir.NIRGraph`."""
    nir = import_extra("nir")
    try:
        graph = nir.read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (OSError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())  # HDF5's messages may have several lines
        raise UserError(f"{path}: not a NIR file: {reason}") from None
    reset, dt = (graph.metadata.get(key) for key in ("reset", "dt"))
    ours = {"reset": reset in ("subtract", "zero"), "dt": isinstance(dt, float)}
    for key, known in ours.items():
        if not known:
            raise UserError(f"{path}: metadata.{key}: expected a file that steadyspike exported")
    return graph


def spikingjelly(graph: Any) -> nn.Module:
    """SpikingJelly 2. Its neurons take v_reset None as reset by subtraction."""
    neuron = import_extra("spikingjelly.activation_based.neuron")
    importer = import_extra("spikingjelly.activation_based.nir_exchange")
    network: nn.Module = importer.import_from_nir(graph, dt=_dt(graph), dtype=_dtype(graph))
    for layer in network.modules():
        if isinstance(layer, neuron.LIFNode) and _subtracts(graph):
            layer.v_reset = None
    return network


def norse(graph: Any) -> nn.Module:
    """Norse. The reset is not passed on, and the order of a sum's branches has to be right."""
    importer = import_extra("norse.torch.utils.import_nir")
    reset = import_extra("norse.torch.functional.reset")
    _flatten_samples(graph)
    network = importer.from_nir(graph, dt=_dt(graph))
    _in_order(network, graph)
    _keep_precision(network, graph)
    for name, node in _neurons(graph).items():
        cell = network.get_submodule(name)
        rate = torch.from_numpy(1 / node.tau).to(_dtype(graph))
        if _subtracts(graph):
            cell.p = cell.p._replace(reset_method=reset.reset_subtract)
        cell.p = cell.p._replace(tau_mem_inv=rate, v_leak=torch.zeros_like(rate))
    return network.to(_dtype(graph))  # type: ignore[no-any-return]


def sinabs(graph: Any) -> nn.Module:
    """sinabs. Its neurons have no R, decay by exp(-1/τ) and may fire several spikes a step."""
    importer = import_extra("sinabs.nir")
    activation = import_extra("sinabs.activation")
    neurons, dt = _neurons(graph), _dt(graph)
    leaks = {name: float(1 - dt / node.tau.flat[0]) for name, node in neurons.items()}
    thresholds = {name: float(node.v_threshold.flat[0]) for name, node in neurons.items()}
    for node in neurons.values():
        node.v_leak = np.zeros(1)
    network = importer.from_nir(graph, num_timesteps=1)
    _in_order(network, graph)
    _keep_precision(network, graph)
    for name, leak in leaks.items():
        layer = network.get_submodule(name)
        dtype = _dtype(graph)
        tau = -1 / log(leak) if leak else 0.0
        layer.tau_mem = nn.Parameter(torch.tensor(tau, dtype=dtype))
        # With R = 1 the current is the τ-fold, so a threshold τ-fold too is the same neuron.
        scaled = torch.tensor(thresholds[name] / (1 - leak), dtype=dtype)
        layer.spike_threshold = nn.Parameter(scaled, requires_grad=False)
        layer.spike_fn = activation.SingleSpike
        if not _subtracts(graph):
            layer.reset_fn = activation.MembraneReset()
        layer.register_forward_hook(_as_its_input)
    return network  # type: ignore[no-any-return]


def snntorch(graph: Any) -> nn.Module:
    """snnTorch. Its reset looks at the membrane before the step too, where a reset by subtraction
    may leave more than the threshold; so it is told that nothing is left to reset.
    """
    importer = import_extra("snntorch.import_nir")
    _flatten_samples(graph)
    with redirect_stdout(io.StringIO()):  # it prints every array of the neurons
        network = importer.import_from_nir(graph)
    _keep_precision(network, graph)
    for name in _neurons(graph):
        layer = network.get_submodule(name)
        layer.register_forward_hook(_as_its_input)
        if _subtracts(graph):
            layer.reset_mechanism = "subtract"
            layer.state_function = layer._base_sub
            layer.mem_reset = torch.zeros_like
    return network.to(_dtype(graph))  # type: ignore[no-any-return]


SIMULATORS: dict[str, Callable[..., nn.Module]] = {
    "spikingjelly": spikingjelly,
    "norse": norse,
    "sinabs": sinabs,
    "snntorch": snntorch,
}


def _neurons(graph: Any) -> dict[str, Any]:
    nir = import_extra("nir")
    nodes = {name: graph.nodes[name] for name in _order(graph)}
    return {name: node for name, node in nodes.items() if isinstance(node, nir.LIF)}


def _subtracts(graph: Any) -> bool:
    return bool(graph.metadata["reset"] == "subtract")


def _dt(graph: Any) -> float:
    return float(graph.metadata["dt"])


def _dtype(graph: Any) -> torch.dtype:
    """The precision of the weights in the file."""
    weights = (node.weight for node in graph.nodes.values() if hasattr(node, "weight"))
    return torch.from_numpy(next(weights)).dtype


def _flatten_samples(graph: Any) -> None:
    """NIR's shapes have no batch, so some importers flatten it too."""
    for node in graph.nodes.values():
        if hasattr(node, "start_dim"):
            node.start_dim += 1


def _order(graph: Any) -> list[str]:
    """The names of the nodes, each after all of its sources."""
    sources: dict[str, list[str]] = {}
    for source, name in graph.edges:
        sources.setdefault(name, []).append(source)
    return list(TopologicalSorter(sources).static_order())


def _in_order(executor: Any, graph: Any) -> None:
    """Run each node after its sources: nirtorch's executor follows one branch to its end first."""
    order = _order(graph)
    executor.execution_order.sort(key=lambda node: order.index(node.name))


def _keep_precision(network: nn.Module, graph: Any) -> None:
    """Importers that convert weights to float32 get those of the file again."""
    for name, node in graph.nodes.items():
        if hasattr(node, "weight"):
            layer: Any = network.get_submodule(name)
            layer.weight.data = torch.from_numpy(node.weight)
            layer.bias.data = torch.from_numpy(node.bias)


def _as_its_input(layer: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> Tensor:
    """Spikes in the precision of the currents, where a simulator gives float32."""
    return spikes.to(inputs[0].dtype)
