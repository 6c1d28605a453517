"""Online training of spiking neural networks, with stable normalization and thresholds.

The public names are loaded on first use, so that the command line starts without loading torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadyspike.snn.loss import tet_loss as tet_loss
    from steadyspike.snn.neuron import LIF as LIF
    from steadyspike.snn.norm import OSR as OSR
    from steadyspike.snn.norm import LinearNorm as LinearNorm
    from steadyspike.snn.norm import PerStepBatchNorm as PerStepBatchNorm
    from steadyspike.snn.sequence import sequence as sequence

__version__ = "0.1.0"

_DEFINED_IN = {
    "LIF": "neuron",
    "OSR": "norm",
    "LinearNorm": "norm",
    "PerStepBatchNorm": "norm",
    "sequence": "sequence",
    "tet_loss": "loss",
}
__all__ = ["LIF", "OSR", "LinearNorm", "PerStepBatchNorm", "__version__", "sequence", "tet_loss"]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"steadyspike.snn.{_DEFINED_IN[name]}"), name)
