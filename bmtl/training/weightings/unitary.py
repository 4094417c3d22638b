"""The plain sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bmtl.tasks import Tasks
from bmtl.training.weightings._base import Step, Update


@dataclass(frozen=True)
class Unitary:
    """``Σ_t L_t``: every task's weight is 1.

    The baseline that no comparison may leave out (Kurin et al., "In defense of the unitary scalarization for deep
    multi-task learning", NeurIPS 2022). Outcomes are standardised, so that units do not weigh tasks.
    """

    noise: ClassVar[str] = "fixed"
    pulls: ClassVar[bool] = False

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        return torch.ones_like(like)

    def update(self, state: Any, step: Step) -> tuple[Update, Any]:
        return Update(state), state
