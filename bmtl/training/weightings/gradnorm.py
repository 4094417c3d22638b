"""Gradients of equal size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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
        rate = step.excess / first
        rate = rate / torch.clamp(_mean(rate, active), min=TINY)
        target = _mean(weights * size, active) * rate**self.alpha
        moved = weights - self.learning_rate * torch.sign(weights * size - target) * size
        moved = torch.clamp(moved, min=SMALLEST)
        moved = torch.where(active, moved / _mean(moved, active), weights)
        return Update(weights), _State(moved, first)


def _mean(values: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Mean over the active tasks, ``runs × 1``."""
    return torch.where(active, values, 0.0).sum(-1, keepdim=True) / torch.clamp(active.sum(-1, keepdim=True), min=1)
