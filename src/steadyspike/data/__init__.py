"""Data sets, one file a family; files are checked against checksums before they are read."""

from steadyspike.data.dataset import Dataset, Samples, Split
from steadyspike.data.registry import NAMES, fetch, load

__all__ = ["NAMES", "Dataset", "Samples", "Split", "fetch", "load"]
