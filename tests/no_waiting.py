"""What fails where a GPU would be waited for, on the CPU and on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class NoReading(TorchDispatchMode):
    """Fails on what needs a tensor's values on the host, where a GPU would be waited for."""

    READING = frozenset(
        (
            *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"),
            *("nonzero", "masked_select", "repeat_interleave", "bincount"),
            *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
        )
    )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        # Indexing with a mask finds its nonzero positions
        masks = args[1] if name.startswith(("index", "_index")) and len(args) > 1 else ()
        masked = isinstance(masks, list | tuple) and any(
            isinstance(mask, Tensor) and mask.dtype in (torch.bool, torch.uint8) for mask in masks
        )
        if name in self.READING or masked:
            raise AssertionError(f"{func} reads a tensor on the host")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fails on what waits for the GPU, itself idle at the start."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
