"""Diagnostics: convergence and predictive checks, as tables."""

from __future__ import annotations

from bmtl.diagnostics.convergence import checks, guide_k
from bmtl.diagnostics.loo import TaskLOO, psis_loo
from bmtl.diagnostics.sbc import Calibration, simulation_based_calibration

__all__ = ["Calibration", "TaskLOO", "checks", "guide_k", "psis_loo", "simulation_based_calibration"]
