"""A pickle that would run code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


class Trap:
    """Creates the file ``path`` when a pickle that holds it is loaded without restrictions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)
