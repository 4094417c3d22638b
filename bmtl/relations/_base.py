"""What every relation gives: heads, with the intercept and the amplitude of each task."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale


class Heads(NamedTuple):
    """Functions of the features, one a head, and how each task follows its head.

    ``η_p(x) = intercept_p ± amplitude_t φ(x)·w_h/√k`` for the linear predictor p of task t on head h. Arrays have
    leading draw dimensions where the engine has any.

    Attributes
    ----------
    w : array, shape (H, k)
    intercept : array, shape (P,)
        On the scale of the linear predictor.
    amplitude : array, shape (T,)
        Positive.
    """

    w: Any
    intercept: Any
    amplitude: Any


class Relation(Protocol):
    """A prior on the heads of one model."""

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        """Draw heads on ``k`` features of about unit scale.

        Parameters
        ----------
        amplitude : Scale
            Prior on the size of a task's function.
        """


def free_amplitude(e: Any, design: Design, amplitude: Scale) -> Any:
    """An amplitude a task, independent of the others, ``(T,)``."""
    return amplitude.sample(e, "amplitude", design.amplitude_scale, np.ones(design.n_tasks))


def free_intercept(e: Any, design: Design) -> Any:
    """An intercept a linear predictor, around where its outcomes are, ``(P,)``."""
    prior = e.dist.Normal(e.asarray(design.intercept_loc), e.asarray(design.intercept_scale))
    return e.sample("intercept", prior.to_event(1))
