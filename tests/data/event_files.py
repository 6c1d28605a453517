"""Archives of the event data sets, for tests."""

import gzip
from collections.abc import Mapping
from pathlib import Path

from .formats import tar_of, zip_of


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_of(members))


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(tar_of(members)))
