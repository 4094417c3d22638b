"""Fitting: `fit`, and the settings of its methods."""

from __future__ import annotations

from bmtl.fitting._fit import fit
from bmtl.fitting.settings import MAP, NUTS, SVI

__all__ = ["MAP", "NUTS", "SVI", "fit"]
