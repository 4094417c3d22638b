"""Causes between tasks: which task acts on which, as far as the data can tell, and what follows."""

from __future__ import annotations

from bmtl.causal.consequences import Consequences, Effects, effects
from bmtl.causal.edge_prior import EdgePrior
from bmtl.causal.intervene import Intervention
from bmtl.causal.posterior import DagPosterior, dag_posterior

__all__ = ["Consequences", "DagPosterior", "EdgePrior", "Effects", "Intervention", "dag_posterior", "effects"]
