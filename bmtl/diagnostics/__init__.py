"""Diagnostics: convergence and predictive checks, as tables."""

from __future__ import annotations

from bmtl.diagnostics.convergence import checks, guide_k
from bmtl.diagnostics.loo import TaskLOO, psis_loo

__all__ = ["TaskLOO", "checks", "guide_k", "psis_loo"]
