"""Diagnostics: convergence and predictive checks, and what goes wrong while networks are trained, as tables."""

from __future__ import annotations

from bmtl.diagnostics.branching import Branching, branching
from bmtl.diagnostics.capacity import Capacity, capacity
from bmtl.diagnostics.conflict import Conflict, conflict
from bmtl.diagnostics.convergence import checks, guide_k
from bmtl.diagnostics.drift import Drift, drift
from bmtl.diagnostics.loo import TaskLOO, psis_loo
from bmtl.diagnostics.pit import calibrated, loo_pit
from bmtl.diagnostics.restarts import Restarts, restarts
from bmtl.diagnostics.sbc import Calibration, simulation_based_calibration
from bmtl.diagnostics.trajectory import Trajectory, trajectory

__all__ = [
    "Branching", "Calibration", "Capacity", "Conflict", "Drift", "Restarts", "TaskLOO", "Trajectory", "branching",
    "calibrated", "capacity", "checks", "conflict", "drift", "guide_k", "loo_pit", "psis_loo", "restarts",
    "simulation_based_calibration", "trajectory",
]
