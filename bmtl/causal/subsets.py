"""Sums over subsets, indexed by bitmasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def log_weights_of_subsets(log_w: Array) -> Array:
    """Log of the sum of the weights of all subsets of each set, along the last axis (of length 2^k)."""
    total = np.array(log_w)
    for u in range(total.shape[-1].bit_length() - 1):
        view = total.reshape(*total.shape[:-1], -1, 2, 1 << u)
        view[..., 1, :] = np.logaddexp(view[..., 0, :], view[..., 1, :])
    return total


def pick(log_weight: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions drawn in proportion to their weights, with replacement, (n,)."""
    mass = np.cumsum(np.exp(log_weight - log_weight.max()))
    found: NDArray[np.int64] = np.searchsorted(mass, rng.random(n) * mass[-1], side="right")
    return found.clip(max=len(mass) - 1)
