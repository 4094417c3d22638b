"""What every weighting is: from the tasks' losses, and their gradients where it wants them, to one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch

from bmtl.tasks import Tasks


class Step(NamedTuple):
    """What a weighting sees of a step. Several runs are trained side by side, in the first dimension.

    Attributes
    ----------
    losses : tensor, shape (runs, T)
        Mean negative log-likelihood of each task's cells in the batch times its share by the sampling, without
        gradient; 0 for tasks that have stopped.
    active : tensor of bool, shape (runs, T)
        Tasks that have not stopped.
    excess : tensor, shape (runs, T), or None
        Losses above those of a perfect fit, ≥ 0; only for weightings with ``pulls``.
    pulls : tensor, shape (runs, T, D), or None
        Gradient of each task's loss by the parameters of the trunk; only for weightings with ``pulls``.
    """

    losses: torch.Tensor
    active: torch.Tensor
    excess: torch.Tensor | None = None
    pulls: torch.Tensor | None = None


class Update(NamedTuple):
    """What a step does: descend ``Σ_t weights_t · loss_t``.

    Attributes
    ----------
    weights : tensor, shape (runs, T)
    trunk : tensor, shape (runs, D), or None
        What the trunk descends instead of the gradient of that sum.
    """

    weights: torch.Tensor
    trunk: torch.Tensor | None = None


class Weighting(Protocol):
    """A frozen dataclass of a method's constants. What changes while training is its state.

    Attributes
    ----------
    noise : {"fixed", "learned", "profiled"}
        What becomes of the tasks' noises. Fixed: scales and temperatures stay at 1 on the modelled scale, so that
        losses are squared errors and plain cross-entropies; dispersions and cutpoints, which shape the likelihood, are
        learned. Learned: all by gradient descent. Profiled: at their optimum given the network, found anew at every
        epoch (vectors and probabilities are learned).
    pulls : bool
        Whether it needs the gradient of each task's loss by the trunk: a backward pass a task.
    """

    noise: ClassVar[str]
    pulls: ClassVar[bool]

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        """The first state.

        Parameters
        ----------
        seeds : sequence of int, one a run
        like : tensor, shape (runs, T)
            For dtype and device.
        """

    def update(self, state: Any, step: Step) -> tuple[Update, Any]:
        """One step's update, and the next state."""


def gradients(step: Step) -> torch.Tensor:
    """The tasks' gradients by the trunk, which a weighting with ``pulls`` is given."""
    assert step.pulls is not None
    return step.pulls
