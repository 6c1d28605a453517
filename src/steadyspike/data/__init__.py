"""Data sets, one file a family; files are checked against checksums before they are read."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadyspike.data.dataset import Dataset as Dataset
    from steadyspike.data.dataset import Samples as Samples
    from steadyspike.data.dataset import Split as Split
    from steadyspike.data.registry import NAMES as NAMES
    from steadyspike.data.registry import SOURCES as SOURCES
    from steadyspike.data.registry import fetch as fetch
    from steadyspike.data.registry import load as load
    from steadyspike.data.registry import read_image as read_image

_DEFINED_IN = {
    **dict.fromkeys(("Dataset", "Samples", "Split"), "dataset"),
    **dict.fromkeys(("NAMES", "SOURCES", "fetch", "load", "read_image"), "registry"),
}
__all__ = ["NAMES", "SOURCES", "Dataset", "Samples", "Split", "fetch", "load", "read_image"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `doctor --brief` checks files without loading torch.
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"steadyspike.data.{_DEFINED_IN[name]}"), name)
