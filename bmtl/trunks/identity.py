"""The inputs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Identity:
    """The standardised inputs themselves: heads are then the coefficients of linear models."""

    linear: ClassVar[bool] = True
    learned: ClassVar[bool] = False

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        return x[None]
