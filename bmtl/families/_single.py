"""Single precision, in which programs run: its limits, and special functions that must hold within them."""

from __future__ import annotations

from typing import Any

import numpy as np

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Positive numbers outside of these become 0 or infinite in float32."""

BELOW_ONE = 1.0 - float(np.finfo(np.float32).epsneg)
"""The largest number below 1 in float32."""

LOGIT_LIMIT = 80.0
"""Logits are cut there: their exponential is still finite in float32, and their probability 1 far sooner."""


def log_logistic(xp: Any, logit: Any) -> Any:
    """log of 1 / (1 + exp(−logit))."""
    return -xp.log1p(xp.exp(-xp.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT)))


def logistic(xp: Any, logit: Any) -> Any:
    """1 / (1 + exp(−logit)), never 0."""
    return 1.0 / (1.0 + xp.exp(-xp.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT)))


def trigamma(x: Any) -> Any:
    """ψ′(x) for x > 0: eight steps up, then the asymptotic series (Abramowitz & Stegun 6.4.12)."""
    total = 0.0 * x
    for k in range(8):
        total = total + (x + k) ** -2
    z = 1.0 / (x + 8)
    return total + z * (1 + z * (0.5 + z * (1 / 6 - z**2 * (1 / 30 - z**2 * (1 / 42 - z**2 / 30)))))
