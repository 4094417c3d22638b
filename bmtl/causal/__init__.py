"""Causes between tasks: which task acts on which, as far as the data can tell."""

from __future__ import annotations

from bmtl.causal.edge_prior import EdgePrior
from bmtl.causal.posterior import DagPosterior, dag_posterior

__all__ = ["DagPosterior", "EdgePrior", "dag_posterior"]
