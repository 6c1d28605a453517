"""NIR files: nodes, edges and metadata, and the equation of NIR's neuron."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.networks import SHAPE, clip, learned
from steadyspike.deploy.fold import fold
from steadyspike.deploy.nir_file import DT, nir_graph, write_nir

nir = pytest.importorskip("nir", reason="uv pip install --no-deps -r requirements-export.lock")


def test_a_file_holds_the_graph(tmp_path: Path) -> None:
    folded = fold(learned("vggsnn"), SHAPE)
    write_nir(tmp_path / "net.nir", folded, steps=4, experiment="tiny")
    graph = nir.read(tmp_path / "net.nir")
    chain = ["input", *folded.nodes, "output"]
    assert set(graph.edges) == set(pairwise(chain))
    kinds = {name: type(graph.nodes[name]).__name__ for name in chain}
    convolutions = [name for name, kind in kinds.items() if kind == "Conv2d"]
    neurons = [name for name, kind in kinds.items() if kind == "LIF"]
    assert [len(convolutions), len(neurons)] == [3, 3]
    assert [kind for kind in kinds.values() if kind not in ("Conv2d", "LIF")] == [
        *("Input", "SumPool2d", "SumPool2d", "Flatten", "Affine", "Output")
    ]
    assert all((graph.nodes[name].v_threshold == 1).all() for name in neurons)
    assert graph.metadata == {"reset": "subtract", "dt": DT, "steps": 4, "experiment": "tiny"}
    assert [path.name for path in tmp_path.iterdir()] == ["net.nir"]


def test_the_same_network_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_nir(tmp_path / name, fold(learned("resnet19"), SHAPE))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_weights_have_the_precision_of_the_network(precision: torch.dtype) -> None:
    graph = nir_graph(fold(learned("vggsnn").to(precision), SHAPE))
    weight = graph.nodes["features_0_synapse"].weight
    assert torch.from_numpy(weight).dtype == precision


def test_a_residual_sum_is_two_edges_into_a_node() -> None:
    graph = nir_graph(fold(learned("resnet19", reset="zero"), SHAPE))
    assert graph.metadata["reset"] == "zero"
    sums = {b: sorted(a for a, end in graph.edges if end == b) for _, b in graph.edges}
    assert sums["stage_0_1"] == ["stage_0_1_conv", "stage_0_1_shortcut"]
    diagonal = graph.nodes["stage_0_1_shortcut"].weight[:, :, 0, 0]  # the identity, scaled
    assert np.array_equal(diagonal, np.diag(np.diag(diagonal)))
    assert diagonal.any()


@pytest.mark.parametrize("tau", [2.0, 3.5])
def test_a_step_of_eulers_method_is_our_step(tau: float) -> None:
    """NIR's equation, integrated by hand for the first layer, gives our first layer's spikes."""
    folded = fold(learned("vggsnn", tau=tau, reset="zero"), SHAPE)
    graph = nir_graph(folded)
    synapse, node = graph.nodes["features_0_synapse"], graph.nodes["features_0"]
    weight, bias = torch.from_numpy(synapse.weight), torch.from_numpy(synapse.bias)
    v = torch.zeros(2, *node.v_threshold.shape, dtype=torch.float64)
    membranes = folded.membranes(2)
    for frame in clip(2):
        current = torch.nn.functional.conv2d(frame, weight, bias, padding=1)
        dv = (torch.from_numpy(node.v_leak) - v + torch.from_numpy(node.r) * current) / tau
        v = v + dv * (DT * tau / torch.from_numpy(node.tau))
        fired = v > torch.from_numpy(node.v_threshold)
        v = torch.where(fired, torch.from_numpy(node.v_reset), v)
        with torch.no_grad():
            outputs = folded.outputs(frame, *membranes)
        membranes = [outputs[f"{name} membrane"] for name in folded.neurons]
        assert torch.equal(outputs["features_0"], fired.double())


def test_max_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="no max pooling"):
        nir_graph(fold(learned("sew_resnet34"), SHAPE))
