"""What is measured side by side: each with its factory, its look in figures, and how it differs."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass, field

from steadyspike.bench.setting import Setting

INSTALL_PEERS = "uv pip install -r requirements-peers.lock"


@dataclass(frozen=True)
class Contender:
    """One framework.

    Args:
        key: its name in JSON.
        label: its name for readers.
        factory: ``module:function``, which maps a Setting to `work.Variants`.
        whole: whether it sees all T steps before a backward pass, as BPTT does.
        package: the library it needs; None is ours.
        device: where it can run, if only on one.
        environment: variables of its process.
        ink, marker, dashes: its line in figures (report/theme.py).
        note: in what it is not the same network and training as ours.
        replayed: whether its convolutions are also timed alone.
        curve: whether its memory is measured at other T too.
    """

    key: str
    label: str
    factory: str
    whole: bool = False
    package: str | None = None
    device: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    ink: str = "slate"
    marker: str = "o"
    dashes: tuple[float, ...] = ()
    note: str = ""
    replayed: bool = False
    curve: bool = True

    @property
    def ours(self) -> bool:
        return self.package is None


FUSED = Contender(
    "steadyspike",
    "steadyspike (fused)",
    "steadyspike.bench.ours:online",
    ink="crimson",
    replayed=True,
)
PLAIN = Contender(
    "steadyspike-plain",
    "steadyspike (plain torch)",
    "steadyspike.bench.ours:online",
    environment={"STEADYSPIKE_KERNELS": "off"},
    ink="amber",
    marker="s",
    dashes=(5, 2),
    note="the same training with its kernels switched off",
    replayed=True,
)
BPTT = Contender(
    "steadyspike-bptt",
    "steadyspike (BPTT)",
    "steadyspike.bench.ours:through_time",
    whole=True,
    ink="olive",
    marker="P",
    dashes=(4, 1.5),
    note="through time with the framework's batch normalization, in plain torch",
)
PEERS = (
    Contender(
        "spikingjelly-bptt",
        "SpikingJelly (BPTT)",
        "steadyspike.bench.peer_spikingjelly:bptt",
        whole=True,
        package="spikingjelly",
        ink="blue",
        marker="D",
        dashes=(7, 2, 1.5, 2),
        note="LIFNode in multi-step mode; batch normalization over all steps together; no "
        "threshold stabilizer; kernels by the library's own choice",
        replayed=True,
    ),
    Contender(
        "spikingjelly-bptt-compiled",
        "SpikingJelly (BPTT, compiled)",
        "steadyspike.bench.peer_spikingjelly:bptt_compiled",
        whole=True,
        package="spikingjelly",
        device="cuda",
        ink="wash",
        marker="d",
        dashes=(2, 2),
        note="the same through torch.compile",
        curve=False,  # it would compile anew for each T
    ),
    Contender(
        "spikingjelly-ottt",
        "SpikingJelly (OTTT)",
        "steadyspike.bench.peer_spikingjelly:ottt",
        package="spikingjelly",
        ink="teal",
        marker="^",
        dashes=(2, 1.5),
        note="OTTTLIFNode in OTTTSequential, a call a step: every convolution runs twice forward, "
        "of spikes and of traces; batch normalization step by step in place of the library's "
        "weight standardization; no threshold stabilizer",
    ),
    Contender(
        "spikingjelly-sltt",
        "SpikingJelly (SLTT)",
        "steadyspike.bench.peer_spikingjelly:sltt",
        package="spikingjelly",
        ink="violet",
        marker="v",
        dashes=(1, 1.2),
        note="SLTTLIFNode, a call a step; batch normalization step by step; no threshold "
        "stabilizer",
    ),
    Contender(
        "snntorch",
        "snnTorch (BPTT)",
        "steadyspike.bench.peer_snntorch:leaky",
        whole=True,
        package="snntorch",
        ink="slate",
        marker="X",
        dashes=(4, 1.2, 1, 1.2, 1, 1.2),
        note="Leaky in a loop over the steps; its reset by subtraction comes a step later and "
        "does not leak; batch normalization step by step; no threshold stabilizer",
    ),
)
ALL = {contender.key: contender for contender in (FUSED, PLAIN, BPTT, *PEERS)}


def why_not(contender: Contender, setting: Setting) -> str | None:
    """Why this one cannot be measured here, or None."""
    if contender.device not in (None, setting.device):
        return f"only on {contender.device}"
    if contender.package is None:
        return None
    if setting.model != "vggsnn":
        return f"{setting.model} is built of our own layers alone"
    if importlib.util.find_spec(contender.package) is None:
        return f"{contender.package} is not installed: {INSTALL_PEERS}"
    return None


def versions() -> dict[str, str]:
    """Of every library that a figure depends on, as far as they are installed."""
    names = ("steadyspike", "torch", "triton", "numpy", "spikingjelly", "snntorch")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
