"""Freed memory that is kept, and given back."""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from presa.memory import freed_memory_kept

N_BLOCKS, BLOCK = 30, 3 * 1024**2  # bytes; together more than glibc would keep
PAGE = resource.getpagesize()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")


def update():
    """Uses memory and frees it, as the activations of an update do."""
    blocks = [np.ones(BLOCK // 8) for _ in range(N_BLOCKS)]
    return len(blocks)


def n_page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_the_next_update_takes_what_the_last_one_freed():
    with freed_memory_kept():
        update()
        before = n_page_faults()
        for _ in range(5):
            update()
        assert n_page_faults() - before < N_BLOCKS * BLOCK / PAGE / 10


def test_what_is_free_goes_back_at_the_end():
    with freed_memory_kept():
        update()
        kept = resident()
    assert kept - resident() > N_BLOCKS * BLOCK / 2
