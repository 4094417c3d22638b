"""Weights that somebody chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bmtl._inputs import check_importance
from bmtl.tasks import Tasks
from bmtl.training.weightings._base import Step, Update


@dataclass(frozen=True)
class Static:
    """``Σ_t w_t L_t`` with constant weights: a linear combination.

    Parameters
    ----------
    weights : mapping of str to float, optional
        Weight of each task, > 0; 1 for those not named. Default: the importance that the tasks have.

    Raises
    ------
    TaskError
        When training starts, if a task is unknown or a weight is not finite and > 0.
    """

    weights: Mapping[str, float] | None = None

    noise: ClassVar[str] = "fixed"
    pulls: ClassVar[bool] = False

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        own = tasks.importance if self.weights is None else check_importance(self.weights, tasks.names)
        return torch.zeros_like(like) + torch.tensor(own, dtype=like.dtype, device=like.device)

    def update(self, state: Any, step: Step) -> tuple[Update, Any]:
        return Update(state), state
