"""What the C library does with memory that was freed; nothing here imports torch."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def give_freed_memory_back() -> None:
    """Ask glibc to give every freed tensor back at once: what is resident is what is in use.

    Otherwise the peak would depend on the gaps between blocks, which differ from run to run.
    `pins.keep_freed_memory` is the opposite, and may follow. Elsewhere than on glibc nothing is
    done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 64 << 10)
        mallopt(_M_TRIM_THRESHOLD, 64 << 10)


def trim() -> None:
    """Give back what was freed before that was asked for."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
