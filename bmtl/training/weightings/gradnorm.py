"""Gradients of equal size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import array_api_compat.torch as xp
import numpy as np
import torch

from bmtl.tasks import Tasks
from bmtl.training.weightings._base import Step, Update, gradients

SMALLEST = 1e-3
"""Weights do not fall below: one that reached 0 would leave its task for good."""

TINY = 1e-12
"""Losses that are 0 at the start are taken for this."""


class _State(NamedTuple):
    weights: torch.Tensor
    first: torch.Tensor | None


@dataclass(frozen=True)
class GradNorm:
    """Weights that make the tasks' gradients on the trunk alike in size, more so for tasks that train slowly.

    With G_t = w_t‖∇L_t‖, their mean Ḡ and relative inverse training rates r_t = (L_t/L_t⁰) / mean, the weights descend
    ``Σ_t |G_t − Ḡ r_t^α|`` with the targets held, and are scaled to sum to T after every step (Chen et al., "GradNorm:
    gradient normalization for adaptive loss balancing in deep multitask networks", ICML 2018, algorithm 1). Norms are
    over all of the trunk. L is the loss above that of a perfect fit, so that constants of the likelihood do not count.

    Parameters
    ----------
    alpha : float
        ≥ 0: how strongly slow tasks are pulled up.
    learning_rate : float
        > 0, of the weights.

    Raises
    ------
    ValueError
        If a constant is out of range.
    """

    alpha: float = 1.5
    learning_rate: float = 0.025

    noise: ClassVar[str] = "fixed"
    pulls: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ValueError(f"GradNorm needs alpha ≥ 0, got {self.alpha}")
        if not self.learning_rate > 0:
            raise ValueError(f"GradNorm needs a learning_rate > 0, got {self.learning_rate}")

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        return _State(torch.ones_like(like), None)

    def update(self, state: _State, step: Step) -> tuple[Update, _State]:
        assert step.excess is not None
        weights, active = state.weights, step.active
        first = torch.clamp(step.excess, min=TINY) if state.first is None else state.first
        size = torch.linalg.vector_norm(gradients(step), dim=-1)
        return Update(weights), _State(self.moved(xp, weights, size, step.excess / first, active), first)

    def powers(self, tasks: Tasks) -> np.ndarray:
        """The first weights, ``(T,)``."""
        return np.ones(tasks.n_tasks)

    def moved(self, xp: Any, weights: Any, size: Any, rate: Any, active: Any) -> Any:
        """The next weights, in any array namespace.

        Parameters
        ----------
        xp : module
        weights, size, rate : array, shape (…, T)
            Weights now, lengths of the gradients of unweighted losses, and L_t/L_t⁰.
        active : array of bool, shape (…, T)
            Tasks that take part; the others keep their weight.
        """

        def mean(values: Any) -> Any:
            count = xp.sum(xp.astype(active, values.dtype), axis=-1, keepdims=True)
            total = xp.sum(xp.where(active, values, xp.zeros_like(values)), axis=-1, keepdims=True)
            return total / xp.clip(count, 1.0, None)

        rate = rate / xp.clip(mean(rate), TINY, None)
        target = mean(weights * size) * rate**self.alpha
        moved = weights - self.learning_rate * xp.sign(weights * size - target) * size
        moved = xp.clip(moved, SMALLEST, None)
        return xp.where(active, moved / mean(moved), weights)
