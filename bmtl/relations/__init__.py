"""Relations: the prior that ties the heads of one model. Each is one file with one `sample`."""

from __future__ import annotations

from bmtl.relations._base import Gaussian, Heads, Relation
from bmtl.relations.correlated import Correlated
from bmtl.relations.exchangeable import Exchangeable
from bmtl.relations.independent import Independent

__all__ = ["Correlated", "Exchangeable", "Gaussian", "Heads", "Independent", "Relation"]
