"""Training: configuration, the training loop, checkpoints, several processes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadyspike.snn.loss import tet_loss as tet_loss

__all__ = ["tet_loss"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `launch` sets environment variables before torch is imported.
    if name != "tet_loss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from steadyspike.snn.loss import tet_loss

    return tet_loss
