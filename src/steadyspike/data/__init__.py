"""Data sets, one file a family; files are checked against checksums before they are read."""

from steadyspike.data.dataset import Dataset, Samples, Split
from steadyspike.data.registry import NAMES, SOURCES, fetch, load, read_image

__all__ = ["NAMES", "SOURCES", "Dataset", "Samples", "Split", "fetch", "load", "read_image"]
