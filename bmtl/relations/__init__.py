"""Relations: the prior that ties the heads of one model. Each is one file with one `sample`."""

from __future__ import annotations

from bmtl.relations._base import Gaussian, Heads, Relation
from bmtl.relations.clustered import Clustered
from bmtl.relations.correlated import Correlated
from bmtl.relations.exchangeable import Exchangeable
from bmtl.relations.independent import Independent
from bmtl.relations.low_rank import LowRank
from bmtl.relations.sparse import Sparse

__all__ = [
    "Clustered", "Correlated", "Exchangeable", "Gaussian", "Heads", "Independent", "LowRank", "Relation", "Sparse",
]
