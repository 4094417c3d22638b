"""Relations: the prior that ties the heads of one model. Each is one file with one `sample`."""

from __future__ import annotations

from bmtl.relations._base import Heads, Relation
from bmtl.relations.independent import Independent

__all__ = ["Heads", "Independent", "Relation"]
