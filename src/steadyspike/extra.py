"""Packages that only exports and logs need."""

import importlib
from typing import Any

from steadyspike.errors import UserError


def import_extra(package: str) -> Any:
    """The imported package; UserError with the remedy if it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: "
            "uv pip install --no-deps --requirement requirements-export.lock"
        ) from None
