"""Memory that an update frees stays with the process for the next one, where glibc would give it back and ask again."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as mallopt knows them
LARGEST_BLOCK = 32 * 1024**2  # bytes; glibc maps every larger one by itself
KEPT = 1024**3  # bytes that are free, at most


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Set glibc's thresholds, which hold for the whole process; at the end, what is free goes back to the system.

    Without it an update on whole segments unmaps its activations and maps them anew, and the kernel clears every page:
    15 to 30 % of its time. Where there is no glibc, nothing happens.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else object()
    set_option, give_back = getattr(library, "mallopt", None), getattr(library, "malloc_trim", None)
    if set_option is None or give_back is None:
        yield
        return
    set_option(MMAP_THRESHOLD, LARGEST_BLOCK)
    set_option(TRIM_THRESHOLD, KEPT)
    try:
        yield
    finally:
        set_option(TRIM_THRESHOLD, 2 * LARGEST_BLOCK)  # as glibc itself does, once a block of that size was freed
        give_back(0)
