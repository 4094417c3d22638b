"""The closed-form screen: for every pair of tasks, the probabilities of merge, weight and decouple.

Three verdicts are compared by their marginal likelihoods:

merge
    One function, up to sign and scale: correlation ρ = ±1 under one kernel.
weight
    Correlated functions, f_b / b = ρ f_a / a + √(1 − ρ²) g with |ρ| uniform on [.3, .95] and either sign, where the
    remainder g has the kernel of f_a or one of its own; or sums of two functions each, one of which they have in
    common; or unrelated functions (ρ = 0) that share a kernel which selects at most half of the inputs.
decouple
    Unrelated functions, each with its own kernel or with one dense kernel; or a task without any signal.

A task in which no signal is seen may also have one that is too weak to show, under any verdict.

Kernels come from the dictionary of `bmtl.advice.features`, with a prior that is uniform over the number of inputs in
use and then over subsets of that size, so that having the same few of many inputs in use is itself evidence. The
correlation of the noises on shared rows is a parameter of every verdict, and never read as one of functions.
Categorical tasks are seen category by category (`bmtl.advice.categories`).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bmtl.advice.candidate import Candidate
from bmtl.advice.categories import Views, compare
from bmtl.advice.features import Dictionary
from bmtl.advice.hypotheses import Hypotheses

Array = NDArray[np.float64]

VERDICTS = ("merge", "weight", "decouple")
#: A verdict less probable than this is no verdict: at 15 rows a task, most drawn pairs have none.
THRESHOLD = 0.65

@dataclass(frozen=True)
class PairEvidence:
    """What the data say about two tasks.

    Attributes
    ----------
    a, b : int
        The tasks, a < b.
    p_merge, p_weight, p_decouple : float
        Posterior probabilities of the verdicts, summing to one.
    p_correlated, p_representation : float
        The two parts of ``p_weight``: correlated functions; unrelated functions of the same few inputs.
    correlation, correlation_sd : float
        Posterior mean and standard deviation of the correlation of the functions.
    residual_correlation : float
        Posterior mean of the correlation of the noises on shared rows; nan without shared rows.
    scale : float
        Task b's function in units of task a's, were the two one function; in the users' units.
    kind : str
        How the two functions differ if they are one.
    gain_a, se_a, gain_b, se_b : float
        Leave-one-cell-out gain in expected log predictive density of each task, in nats over all its cells, from
        knowing the other one, and its standard error.
    n_a, n_b : int
        Cells.
    shared_inputs : tuple of int
        The inputs that the most probable common kernel uses.
    """

    a: int
    b: int
    p_merge: float
    p_weight: float
    p_decouple: float
    p_correlated: float
    p_representation: float
    correlation: float
    correlation_sd: float
    residual_correlation: float
    scale: float
    kind: str
    gain_a: float
    se_a: float
    gain_b: float
    se_b: float
    n_a: int
    n_b: int
    shared_inputs: tuple[int, ...]


@dataclass(frozen=True)
class Screen:
    """The screen of a set of tasks.

    Attributes
    ----------
    pairs : list of PairEvidence
        In the order (0, 1), (0, 2), …, (T − 2, T − 1).
    signal : (T,) array
        Posterior probability that a task depends on the inputs at all.
    r2 : (T,) array
        Posterior mean of the share of variance explained, on the scale of the linear predictor.
    """

    pairs: list[PairEvidence]
    signal: Array
    r2: Array


def verdict(p_merge: float, p_weight: float, p_decouple: float, threshold: float = THRESHOLD) -> str:
    """The most probable verdict, or ``"undecided"`` where its probability is below the threshold."""
    p = (p_merge, p_weight, p_decouple)
    best = int(np.argmax(p))
    return VERDICTS[best] if p[best] >= threshold else "undecided"


def _judge(a: Candidate, b: Candidate, i: int, j: int, tasks: Any, prior: Array) -> PairEvidence:
    """Everything about one pair."""
    found = Hypotheses.of(a, b)
    p, p_correlated = found.probabilities(prior)
    p_merge, p_weight, p_decouple = (float(own) for own in p)
    correlation, sd = found.correlation(p_merge, p_correlated)
    scale, kind = _name(tasks, i, j, *found.ratio())
    return PairEvidence(
        i, j, p_merge, p_weight, p_decouple, p_correlated, p_weight - p_correlated, correlation, sd,
        found.residual_correlation(p_decouple), scale, kind, *found.gains(),
        len(a.cells.y), len(b.cells.y), found.shared.inputs,
    )


def _name(tasks: Any, i: int, j: int, log_ratio: float, sd: float, sign: float) -> tuple[float, str]:
    """Scale of task j in units of task i, and what the two are if they are one function."""
    flipped = sign < 0
    families = [tasks.families[t] for t in (i, j)]
    units = np.log(float(tasks.y_scale[j]) / float(tasks.y_scale[i]))
    scale = sign * float(np.exp(log_ratio + units))
    if families[0].link != families[1].link:
        return scale, "same up to scale"
    rescaled = abs(log_ratio + units) > 2 * sd
    if rescaled:
        return scale, "sign-flipped and rescaled" if flipped else "rescaled"
    return scale, "sign-flipped" if flipped else "same"


def screen(tasks: Any, *, linear: bool = False, seed: int = 0, prior: Any = None) -> Screen:
    """Probabilities of merge, weight and decouple for every pair of tasks, in closed form.

    Parameters
    ----------
    tasks : Tasks
        At least one task.
    linear : bool
        Use linear functions of the inputs only.
    seed : int
        Accepted for symmetry with the other steps of the advice; nothing here is random.
    prior : sequence of 3 floats, optional
        Prior weights of merge, weight and decouple; equal by default.

    Returns
    -------
    Screen
    """
    del seed
    weights = np.full(3, 1 / 3) if prior is None else np.asarray(prior, dtype=float)
    if weights.shape != (3,) or not np.all(weights >= 0) or not weights.sum() > 0:
        raise ValueError("prior needs three weights (merge, weight, decouple), none negative and not all zero")
    # Thousands of small factorisations: threads inside each would only wait for one another, threads over them help.
    with threadpool_limits(limits=1, user_api="blas"):
        dictionary = Dictionary(np.asarray(tasks.Z), linear=linear)
        n, shares = len(tasks.names), weights / weights.sum()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            views = list(pool.map(lambda t: Views.of(tasks, t, dictionary), range(n)))
            numbers = [(i, j) for i in range(n) for j in range(i + 1, n)]

            def judged(pair: tuple[int, int]) -> PairEvidence:
                i, j = pair
                return compare(views[i], views[j], lambda a, b: _judge(a, b, i, j, tasks, shares))

            pairs = list(pool.map(judged, numbers))
    return Screen(pairs, np.array([own.signal for own in views]), np.array([own.r2 for own in views]))
