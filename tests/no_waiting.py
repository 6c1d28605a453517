"""What fails where a GPU would be waited for, on the CPU and on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class NoReading(TorchDispatchMode):
    """Fails on what moves values between the host and a tensor: a GPU would be waited for.

    Counts the operations that a GPU would launch kernels for.
    """

    FREE = frozenset(
        (
            *("view", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose", "permute"),
            *("unbind", "split", "split_with_sizes", "_unsafe_view", "as_strided", "alias"),
            *("detach", "empty", "empty_like", "new_empty", "empty_strided"),
        )
    )

    READING = frozenset(
        (
            *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"),
            *("nonzero", "masked_select", "repeat_interleave", "bincount"),
            *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
            "lift_fresh",  # a tensor made of numbers, as of a list that is an index
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0

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
            raise AssertionError(f"{func} reads a tensor on the host, or copies to one")
        self.launches += name not in self.FREE
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
