"""What is compared: our training step, fused and in plain torch, and other libraries' steps."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Framework:
    """One row of the comparison.

    Args:
        key: its name in the JSON file.
        label: its name in tables and figures.
        factory: ``module:function`` that maps a Setting to `training_step.Variants`.
        package: the library it needs; None for ours.
        fused: whether it runs with our fused kernels.
        one_step: whether ours gives one step per call, as the peers' online rules do.
        through_time: whether one call sees all T steps, as in BPTT.
        convolutions: whether the step's convolutions are also timed alone.
        cuda_only: whether it is left out on a CPU.
        environment: variables, each ``NAME=value``, that its process starts with.
        note: how its network and training differ from ours.
        style: its colour, marker and dashes in figures (plotting.py).
    """

    key: str
    label: str
    factory: str
    package: str | None = None
    fused: bool = False
    one_step: bool = False
    through_time: bool = False
    convolutions: bool = False
    cuda_only: bool = False
    environment: tuple[str, ...] = ()
    note: str = ""
    style: tuple[str, str, tuple[float, ...]] = ("slate", "o", ())

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed: uv pip install -r requirements-peers.lock"
        return None


FUSED = Framework(
    "steadyspike",
    "steadyspike (fused)",
    "steadyspike.bench.training_step:online",
    fused=True,
    convolutions=True,
    style=("crimson", "o", ()),
)
PLAIN = Framework(
    "steadyspike-plain",
    "steadyspike (plain torch)",
    "steadyspike.bench.training_step:online",
    convolutions=True,
    note="the same training without fused kernels",
    style=("amber", "s", (5, 2)),
)
#: Our rules with what the peers' online rules have in place of OSR and OTS.
AS_PEERS = (
    Framework(
        "steadyspike-ottt",
        "steadyspike (OTTT)",
        "steadyspike.bench.training_step:ottt",
        fused=True,
        one_step=True,
        note="as SpikingJelly (OTTT): traces, one step per call, batch normalization of each step, "
        "no threshold stabilizer",
        style=("olive", "o", ()),
    ),
    Framework(
        "steadyspike-sltt",
        "steadyspike (SLTT)",
        "steadyspike.bench.training_step:sltt",
        fused=True,
        one_step=True,
        note="as SpikingJelly (SLTT): one step per call, batch normalization of each step, no "
        "threshold stabilizer",
        style=("olive", "s", (5, 2)),
    ),
)
SPIKINGJELLY = Framework(
    "spikingjelly-bptt",
    "SpikingJelly (BPTT)",
    "steadyspike.bench.peers:spikingjelly_bptt",
    package="spikingjelly",
    through_time=True,
    convolutions=True,
    note="LIFNode in multi-step mode with the library's choice of kernels; batch normalization "
    "over all steps together; no threshold stabilizer",
    style=("blue", "D", (7, 2, 1.5, 2)),
)
PEERS = (
    SPIKINGJELLY,
    Framework(
        "spikingjelly-bptt-graph",
        "SpikingJelly (BPTT, CUDA graph)",
        "steadyspike.bench.peers:spikingjelly_graph",
        package="spikingjelly",
        through_time=True,
        cuda_only=True,
        note="the same replayed as a CUDA graph, as the library's own trainer can do it",
        style=("blue", "s", ()),
    ),
    Framework(
        "spikingjelly-bptt-torch",
        "SpikingJelly (BPTT, torch kernels)",
        "steadyspike.bench.peers:spikingjelly_bptt",
        package="spikingjelly",
        through_time=True,
        cuda_only=True,
        environment=("SJ_LIF_CUDA_IMPLEMENTATION=torch",),
        note="LIFNode in plain torch in place of the library's Triton or CUDA kernels",
        style=("wash", "o", (4, 2)),
    ),
    Framework(
        "spikingjelly-bptt-compiled",
        "SpikingJelly (BPTT, compiled)",
        "steadyspike.bench.peers:spikingjelly_compiled",
        package="spikingjelly",
        through_time=True,
        cuda_only=True,
        note="the same through torch.compile",
        style=("wash", "d", (2, 2)),
    ),
    Framework(
        "spikingjelly-ottt",
        "SpikingJelly (OTTT)",
        "steadyspike.bench.peers:spikingjelly_ottt",
        package="spikingjelly",
        note="OTTTLIFNode in OTTTSequential, one step per call: every convolution runs twice "
        "forward, on spikes and on traces; batch normalization of each step in place of the "
        "library's weight standardization; no threshold stabilizer",
        style=("teal", "^", (2, 1.5)),
    ),
    Framework(
        "spikingjelly-sltt",
        "SpikingJelly (SLTT)",
        "steadyspike.bench.peers:spikingjelly_sltt",
        package="spikingjelly",
        note="SLTTLIFNode, one step per call; batch normalization of each step; no threshold "
        "stabilizer",
        style=("violet", "v", (1, 1.2)),
    ),
    Framework(
        "snntorch",
        "snnTorch (BPTT)",
        "steadyspike.bench.peers:snntorch_bptt",
        package="snntorch",
        through_time=True,
        note="Leaky in a loop over the steps; its reset by subtraction comes a step later and "
        "does not leak; batch normalization of each step; no threshold stabilizer",
        style=("slate", "X", (4, 1.2, 1, 1.2, 1, 1.2)),
    ),
)
FRAMEWORKS = {framework.key: framework for framework in (FUSED, PLAIN, *AS_PEERS, *PEERS)}


def versions(*more: str) -> dict[str, str]:
    """Version of each library that a measurement depends on, and of ``more``, if installed."""
    found = {}
    for name in ("steadyspike", "torch", "triton", "numpy", "spikingjelly", "snntorch", *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
