"""Heads that know nothing of each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Independent:
    """Unit heads ``w_h ~ Normal(0, I)``, independent: tasks meet in the trunk only."""

    def sample(self, e: Any, n_heads: int, n_features: int) -> Any:
        """Heads, ``heads × features``."""
        zero, one = e.asarray(0.0), e.asarray(1.0)
        return e.sample("head", e.dist.Normal(zero, one).expand([n_heads, n_features]).to_event(2))
