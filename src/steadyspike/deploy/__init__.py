"""Released checkpoints in."""

from steadyspike.deploy.convert import import_released
from steadyspike.deploy.released import load_released

__all__ = ["import_released", "load_released"]
