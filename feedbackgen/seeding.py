"""Independent random streams from one seed: a stream is named by what it is for, never by when it was drawn."""

import hashlib

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the name alone, so order and process do not matter.

    Args:
        seed: the user's seed, >= 0.
        name: what the stream is for, for example ``"rollout", policy, episode_index``.
    """
    return np.random.default_rng(_entropy(seed, name))


def derived_seed(seed: int, *name: str | int) -> int:
    """A 31-bit seed for code that takes an integer (environment resets, torch)."""
    return int(np.random.SeedSequence(_entropy(seed, name)).generate_state(1, np.uint32)[0] >> 1)


def _entropy(seed: int, name: tuple[str | int, ...]) -> int:
    if seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed}")
    # repr keeps 1 and "1" apart and separates the parts; numpy integers print differently.
    parts = [part if isinstance(part, str) else int(part) for part in name]
    text = repr((int(seed), *parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
