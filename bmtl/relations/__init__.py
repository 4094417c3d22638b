"""Relations: the prior that ties the heads of one model. Each is one file with one `sample`."""

from __future__ import annotations

from typing import Any, Protocol

from bmtl.relations.independent import Independent


class Relation(Protocol):
    """A prior on the heads."""

    def sample(self, e: Any, n_heads: int, n_features: int) -> Any:
        """Unit-scale heads, ``heads × features`` (with leading draw dimensions where the engine has any)."""


__all__ = ["Independent", "Relation"]
