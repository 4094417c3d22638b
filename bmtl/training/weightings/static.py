"""Weights that somebody chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
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

    weights: Mapping[str, float] | tuple[tuple[str, float], ...] | None = None

    noise: ClassVar[str] = "fixed"
    pulls: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.weights is not None:
            # Pairs can be hashed and saved.
            object.__setattr__(self, "weights", tuple(dict(self.weights).items()))

    def powers(self, tasks: Tasks) -> np.ndarray:
        """The weights, ``(T,)``."""
        own: np.ndarray = (
            tasks.importance if self.weights is None else check_importance(dict(self.weights), tasks.names)
        )
        return own

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        return torch.zeros_like(like) + torch.tensor(self.powers(tasks), dtype=like.dtype, device=like.device)

    def update(self, state: Any, step: Step) -> tuple[Update, Any]:
        return Update(state), state
