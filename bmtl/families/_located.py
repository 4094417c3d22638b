"""Outcomes that are a location and a scale times noise of a known shape."""

from __future__ import annotations

import numpy as np

from bmtl.families._base import Family


class Located(Family):
    """``y = eta + noise · u`` with u symmetric around 0."""

    link = "identity"
    noise_is_scale = True
    standardised = True
    support = "finite numbers"

    def valid(self, y):
        return np.isfinite(y)

    def mean(self, xp, eta, noise, exposure):
        return eta
