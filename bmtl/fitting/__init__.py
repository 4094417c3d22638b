"""Fitting: the settings of each method. The function itself is `bmtl.fit`."""

from __future__ import annotations

from bmtl.fitting.settings import MAP, NUTS, SVI

__all__ = ["MAP", "NUTS", "SVI"]
