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


class Gaussian(NamedTuple):
    """Intercepts and coefficients as a Gaussian, given what has been drawn.

    The linear predictors are ``η_p(x) = β_p · (1, φ(x)/√k)`` with ``β_p = loc_p + factor_p z_p``, ``z_p ~ Normal(0,
    I)``, or with one z for all tasks where they are coupled.

    Attributes
    ----------
    loc : array, shape (P, k + 1)
    factor : array, shape (P, k + 1, m)
        m is k + 1, or P (k + 1) where coupled.
    coupled : bool
    """

    loc: Any
    factor: Any
    coupled: bool = False


class Relation(Protocol):
    """A prior on the heads of one model.

    Relations whose heads are Gaussian given their other sites have two more methods, so that heads can be integrated
    out: ``gaussian``, with the arguments of `sample`, draws those other sites and gives the `Gaussian`;
    ``sites(plan, design, z)`` gives the sites ``head`` and ``intercept`` of `sample` from draws of z, ``… × P ×
    (k + 1)``.

    A relation that knows something of pairs of tasks has ``pairs(sites, plan)``: from draws of all sites (``draws ×
    event shape``) a dict of arrays ``draws × P × P``, whose posterior means are columns of `Fit.relations`.
    """

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


def free_scale(e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> tuple[Any, Any]:
    """Prior mean and scale of intercepts and coefficients, ``P × (k + 1)``, with free intercepts and amplitudes."""
    a = e.take(free_amplitude(e, design, amplitude), plan.task_of, -1)[..., None]
    first = np.arange(k + 1) == 0
    sign = np.where(first, 0.0, plan.sign[:, None])
    loc = design.intercept_loc[:, None] * first
    return e.asarray(loc), e.asarray(design.intercept_scale[:, None] * first) + a * e.asarray(sign)


def free_sites(plan: Plan, design: Design, z: Any) -> dict[str, Any]:
    """The sites ``head`` and ``intercept`` of free intercepts and heads, from draws of z."""
    intercept = design.intercept_loc + design.intercept_scale * z[..., 0]
    return {"head": z[..., np.argsort(plan.head_of), 1:], "intercept": intercept}


def stick_breaking(e: Any, size: int, concentration: float) -> Any:
    """Log of shares that sum to one, ``v_c Π_{l<c} (1 − v_l)`` with ``v ~ Beta(1, concentration)``, ``(size,)``.

    The site ``head_stick`` is −log(1 − v), which is exponential; the last share is what the others leave.
    """
    if size == 1:
        return e.asarray(np.zeros(1))
    rate = e.asarray(np.full(size - 1, concentration))
    return log_shares(e.xp, e.sample("head_stick", e.dist.Exponential(rate).to_event(1)))


def log_shares(xp: Any, stick: Any) -> Any:
    """Log of the shares of `stick_breaking`, one more than there are sticks."""
    none = xp.zeros_like(stick[..., :1])
    left = xp.concat([none, -xp.cumulative_sum(stick, axis=-1)], axis=-1)
    return left + xp.concat([xp.log(-xp.expm1(-stick)), none], axis=-1)


def heads_of_trunks(plan: Plan) -> list[np.ndarray]:
    """Indices of each trunk's heads, which follow one another."""
    return [np.flatnonzero(plan.trunk_of_head == trunk) for trunk in range(plan.n_trunks)]


def log_sum_exp(xp: Any, values: Any) -> Any:
    """Log of the sum of exponentials over the last dimension."""
    largest = xp.max(values, axis=-1, keepdims=True)
    return xp.log(xp.sum(xp.exp(values - largest), axis=-1)) + largest[..., 0]
