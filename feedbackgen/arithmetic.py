"""One arithmetic on every x86-64 processor with AVX2, so that a seed gives the same bytes wherever it is used.

Where there is AVX-512 too, numpy's functions and the BLAS below it take other code, which rounds in other places: an
angle's last bit is another, and some steps later so is the episode. The simulators' own Python code does its sums in
numpy as well, so what numpy takes is set as a whole, and can only be set before it is imported.
"""

import os
from importlib.metadata import version

BLAS, NUMPY = "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"  # read when numpy is imported


def common() -> dict[str, str]:
    """The environment of a process that is to add, multiply and round as all processors do."""
    names = "X86_V4" if _numpy_version() >= (2, 4) else "AVX512F AVX512_SKX"
    return {BLAS: "Haswell", NUMPY: names}


def choose_common() -> None:
    """Have numpy, imported hereafter or in a child process, do as on other processors; what the user has set stands."""
    if _has_avx512():
        for name, value in common().items():
            os.environ.setdefault(name, value)


def came_too_late() -> bool:
    """Whether numpy had been imported before the choice was made; a new process starts with it."""
    from numpy.lib.introspect import opt_func_info

    taken = opt_func_info(func_name="^arctan2$", signature="float64")["arctan2"]
    return any(code["current"] in os.environ.get(NUMPY, "").split() for code in taken.values())


def _has_avx512() -> bool:
    return "avx512vl" in processor_flags()


def processor_flags() -> list[str]:
    """What the processor can do, by Linux's names; empty elsewhere."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return []


def _numpy_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version("numpy").split(".")[:2])
