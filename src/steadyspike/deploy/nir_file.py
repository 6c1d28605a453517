"""A folded network as a NIR graph, the file format that simulators and neuromorphic chips read.

NIR's LIF is τ dv/dt = -v + R I. A step of Euler's method with R = 1 gives

    v[t] = (1 - dt/τ) v[t-½] + dt/τ I[t]

so the weights before neurons are multiplied by τ/dt, the time constant in steps. NIR has no reset
by subtraction and no time step: the metadata names them, and `steadyspike.deploy.simulators` reads
them there.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from steadyspike.deploy.folded import Folded, Neuron, Node, SumPool
from steadyspike.extra import import_extra
from steadyspike.files import atomic_path

DT = 1e-4  # seconds a step: the one that snnTorch assumes, and SpikingJelly if it is not told


def nir_graph(folded: Folded, **metadata: Any) -> Any:
    """The `nir.NIRGraph` of a folded network; its weights have the network's precision.

    Args:
        folded: the network.
        metadata: strings, numbers or arrays to add to the graph's.

    Raises:
        UserError: `nir` is not installed.
        ValueError: the network has a max pooling, which NIR has not.
    """
    nir = import_extra("nir")
    neurons: dict[str, Any] = {name: node.module for name, node in folded.neurons.items()}
    time_constants = {
        source: 1 / (1 - neuron.leak)
        for name, neuron in neurons.items()
        for source in folded.nodes[name].sources
    }
    nodes = {"input": nir.Input(np.array(folded.input_shape))}
    for name, node in folded.nodes.items():
        source = node.sources[0]
        shape = folded.input_shape if source == "input" else folded.nodes[source].shape
        nodes[name] = _node(nir, node, shape, time_constants.get(name, 1.0))
    edges = [(source, name) for name, node in folded.nodes.items() for source in node.sources]
    nodes["output"] = nir.Output(np.array(folded.nodes[name].shape))
    zero_reset = all(neuron.zero_reset for neuron in neurons.values())
    metadata = {"reset": "zero" if zero_reset else "subtract", "dt": DT, **metadata}
    return nir.NIRGraph(nodes, [*edges, (name, "output")], metadata=metadata)


def write_nir(path: Path, folded: Folded, **metadata: Any) -> None:
    """Write `nir_graph` to a file, whole or not at all."""
    graph = nir_graph(folded, **metadata)
    with atomic_path(path) as temporary:
        import_extra("nir").write(temporary, graph)


def _node(nir: Any, node: Node, input_shape: tuple[int, ...], gain: float) -> Any:
    """The NIR node of an operation; ``gain`` multiplies its outputs if it has weights."""
    module = node.module
    match module:
        case Neuron():

            def every(value: float) -> Any:
                return np.full(node.shape, value)

            tau, threshold = DT / (1 - module.leak), module.threshold
            zero = every(0.0)
            return nir.LIF(every(tau), every(1.0), zero, every(threshold), v_reset=zero)
        case nn.Conv2d():
            where = (module.stride, module.padding, module.dilation, module.groups)
            weight, bias = _array(module.weight, gain), _array(module.bias, gain)
            return nir.Conv2d(input_shape[1:], weight, *where, bias)
        case nn.Linear():
            return nir.Affine(_array(module.weight, gain), _array(module.bias, gain))
        case SumPool():
            kernel = np.array(module.kernel)
            return nir.SumPool2d(kernel, kernel, np.array([0, 0]))
        case nn.Flatten():
            return nir.Flatten({"input": np.array(input_shape)}, start_dim=0)
    raise ValueError("NIR has no max pooling")


def _array(tensor: Tensor | None, gain: float) -> Any:
    assert tensor is not None
    return (tensor.detach().double() * gain).to(tensor.dtype).numpy()
