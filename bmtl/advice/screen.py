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
from scipy.interpolate import PchipInterpolator
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from bmtl.advice.candidate import P_NULL, Candidate, climb
from bmtl.advice.categories import Views, compare
from bmtl.advice.features import Dictionary, Theta
from bmtl.advice.leave_out import sharing_gain
from bmtl.advice.pair import Integrated, informative, pair_stats
from bmtl.advice.partly import nested, one_common_part, over_noise

Array = NDArray[np.float64]

VERDICTS = ("merge", "weight", "decouple")
#: A verdict less probable than this is no verdict: at 15 rows a task, most drawn pairs have none.
THRESHOLD = 0.65
#: Share of *weight* given to unrelated functions with a common selection of inputs.
P_REPRESENTATION = 0.3
#: Common kernels of a pair at which Bayes factors are computed.
N_PAIR = 3
#: Kernels this many nats behind the leading one are left out of Bayes factors.
MAX_GAP = 3.0
#: Share of correlated functions whose remainder has a kernel of its own. One half left strangers of few data undecided
#: (seen at seeds 1100 and 1101 of `benchmarks.drawn_pairs`); no other value was tried.
P_NESTED = 0.15
#: Share of those that are sums with one common part.
P_ONE_COMMON = 0.15
#: How much rarer than no signal is one too weak to be seen in so many cells. At this a permuted outcome is decoupled
#: with a probability of .77, since nothing in the data tells it from a weak sibling. What can be seen is a correlation
#: of the task with its function of order 1 / √n; such small ones are taken to be uniform, so that fewer hide in more.
UNSEEN, UNSEEN_CELLS = 0.1, 300
RHO_LIMITS = (0.3, 0.95)
RHO = np.array([-1.0, -0.95, -0.85, -0.7, -0.5, -0.3, 0.0, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0])
#: Log Bayes factors are divided by this: the dictionary is finite and modes stand for integrals, so the raw ones
#: claim slightly too much where data are few. It has the best log score of eight values between 1 and 3 at 15 rows a
#: task, over 120 drawn pairs (`benchmarks.drawn_pairs`, seeds 200–239), by a small margin: .776 nats a pair against
#: .780 without it. At 150 rows it costs about as little (.045 against .040).
TEMPERATURE = 1.2


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


def _compare(a: Candidate, b: Candidate, i: int, j: int, tasks: Any, prior: Array) -> PairEvidence:
    """Everything about one pair."""
    dictionary = a.dictionary
    d = dictionary.d

    def shared_score(theta: Theta) -> float:
        return dictionary.log_prior(theta) + a.single(theta).log_evidence + b.single(theta).log_evidence

    looked = list(dict.fromkeys([*a.visited, *b.visited]))
    seen: dict[Theta, float] = {theta: shared_score(theta) for theta in looked}

    def remembered(theta: Theta) -> float:
        if theta not in seen:
            seen[theta] = shared_score(theta)
        return seen[theta]

    climb(dictionary, remembered, [max(looked, key=remembered)])
    # Sorted by value and then by name, so that the order of the two tasks cannot matter.
    ranked = sorted(seen, key=lambda theta: (-seen[theta], theta))
    shared = np.array([seen[theta] for theta in ranked])
    own_a = float(logsumexp([a.score(theta) for theta in ranked]))
    own_b = float(logsumexp([b.score(theta) for theta in ranked]))
    log_shared = shared - own_a - own_b

    # Bayes factors of ρ and r at the leading shared kernels.
    fits = []
    leading = [k for k in range(min(N_PAIR, len(ranked))) if shared[k] > shared[0] - MAX_GAP]
    for theta in (ranked[k] for k in leading):
        start = np.array([a.single(theta).log_tau, b.single(theta).log_tau])
        phi_a, phi_b = informative(
            a.cells, b.cells, dictionary.features(theta, a.cells.rows), dictionary.features(theta, b.cells.rows), start
        )
        stats = pair_stats(a.cells, b.cells, phi_a, phi_b)
        fit = over_noise(stats, RHO, start)
        fits.append((fit, stats, phi_a, phi_b))
    weight = shared[leading] - logsumexp(shared[leading])
    table = logsumexp(np.array([own.table for own, *_ in fits]) + weight[:, None], axis=0)
    fit, stats, phi_a, phi_b = fits[0]

    # Unrelated functions, each under its own kernel, and the one as a part of the other.
    best_a, best_b = (max(ranked, key=t.score) for t in (a, b))
    within_b, within_a = nested(a, b, best_a, best_b, RHO[1:-1]), nested(b, a, best_b, best_a, RHO[1:-1])
    noise_gain = within_b.unrelated
    either = np.logaddexp(within_b.table, within_a.table) - np.log(2)
    log_common, common = one_common_part(a, b, own_a, own_b)

    size = np.array([len(dictionary.inputs(theta)) for theta in ranked])
    sizes = np.arange(1, d + 1)
    selective = 2 * size <= d
    # Priors of the two restricted sets of kernels, each renormalised to one.
    log_selective = -np.log(max(np.sum(2 * sizes <= d), 1) / d)
    log_dense = -np.log(np.sum(2 * sizes > d) / d)
    log_any = float(logsumexp(log_shared))
    with_selective = float(logsumexp(log_shared[selective])) + log_selective if selective.any() else -np.inf
    with_dense = float(logsumexp(log_shared[~selective])) + log_dense if (~selective).any() else -np.inf

    at_zero = table[RHO == 0][0]
    grid, shared_density = _correlated(table[1:-1])
    density = np.logaddexp(
        np.log1p(-P_NESTED - P_ONE_COMMON) + log_any + shared_density, np.log(P_NESTED) + _correlated(either)[1]
    )
    log_merge_signs = np.log(0.5) + log_any + table[[0, -1]]
    log_merge = float(logsumexp(log_merge_signs))
    log_common += np.log(P_ONE_COMMON)
    log_correlated = np.logaddexp(float(logsumexp(density)) - np.log(len(density)), log_common)
    log_representation = with_selective + at_zero
    # Task a without signal, task b, or both.
    nulls = noise_gain + np.array([
        np.log1p(-P_NULL) + np.log(P_NULL) + a.log_null_ratio,
        np.log1p(-P_NULL) + np.log(P_NULL) + b.log_null_ratio,
        2 * np.log(P_NULL) + a.log_null_ratio + b.log_null_ratio,
    ])
    rarity = _log_unseen(np.array([len(a.cells.y), len(b.cells.y), max(len(a.cells.y), len(b.cells.y))]))
    unrelated = np.logaddexp(np.log(0.5) + noise_gain, np.log(0.5) + with_dense + at_zero)
    log_decouple = float(np.logaddexp(2 * np.log1p(-P_NULL) + unrelated, logsumexp(nulls)))

    evidence = np.array([
        log_merge, np.log1p(-P_REPRESENTATION) + log_correlated, np.log(P_REPRESENTATION) + log_representation,
        log_decouple,
    ])
    unseen = float(logsumexp(nulls + rarity))
    verdicts = np.logaddexp(
        [evidence[0], np.logaddexp(evidence[1], evidence[2]), evidence[3]], [unseen, unseen, -np.inf]
    ) / TEMPERATURE
    with np.errstate(divide="ignore"):
        p = verdicts + np.log(prior)
    p = np.exp(p - logsumexp(p))
    p_correlated = float(p[1] * np.exp(evidence[1] - np.logaddexp(evidence[1], evidence[2])))

    sign_weight = np.exp(log_merge_signs - log_merge)
    rho_weight = np.exp(density - logsumexp(density))
    p_common = p_correlated * float(np.exp(log_common - log_correlated))
    p_density = p_correlated - p_common
    common_mean, common_square = common.moments() if common else (0.0, 0.0)
    mean = p[0] * (sign_weight[1] - sign_weight[0]) + p_density * float(rho_weight @ grid) + p_common * common_mean
    square = p[0] + p_density * float(rho_weight @ grid**2) + p_common * common_square
    r_shared = float(np.exp(table - logsumexp(table)) @ fit.r)
    residual = (1 - p[2]) * r_shared + p[2] * within_b.r_unrelated if stats.n_both else float("nan")
    ratio, ratio_sd, sign = _ratio(fit.held, log_merge_signs)
    scale, kind = _name(tasks, i, j, ratio, ratio_sd, sign)
    if common and log_common > np.logaddexp(log_correlated, log_merge) - np.log(2.0):
        gains = common.gains()
    elif log_any + float(logsumexp(table[RHO != 0])) >= max(within_b.related, within_a.related):
        gains = sharing_gain(a.cells, b.cells, phi_a, phi_b, stats, RHO, fit.best, table)
    elif within_b.related >= within_a.related:
        gains = within_b.gains()
    else:
        gain_b, se_b, gain_a, se_a = within_a.gains()
        gains = gain_a, se_a, gain_b, se_b
    return PairEvidence(
        i, j, float(p[0]), float(p[1]), float(p[2]), p_correlated, float(p[1]) - p_correlated, float(mean),
        float(np.sqrt(max(square - mean**2, 0.0))), residual, scale, kind, *gains,
        len(a.cells.y), len(b.cells.y), dictionary.inputs(ranked[0]),
    )


def _log_unseen(n: Array) -> Array:
    """Log of how much rarer than no signal is one too weak to be seen in n cells."""
    return np.minimum(np.log(UNSEEN) + 0.5 * np.log(UNSEEN_CELLS / n), 0.0)


def _correlated(table: Array) -> tuple[Array, Array]:
    """Log Bayes factors over a fine grid of the correlations of *weight*, (m,) each, interpolated from the nodes."""
    fine = np.linspace(*RHO_LIMITS, 66)
    grid = np.concatenate([-fine[::-1], fine])
    # Without ±1, where the evidence can fall without bound; monotone between nodes, so that nothing rings.
    return grid, PchipInterpolator(RHO[1:-1], table)(grid)


def _ratio(held: Integrated, log_signs: Array) -> tuple[float, float, float]:
    """Log ratio of the amplitudes of b and a, its standard deviation, and the sign, if the two are one function."""
    k = 0 if log_signs[0] > log_signs[1] else len(RHO) - 1
    return float(held.log_ratio[k]), float(held.log_ratio_sd[k]), float(RHO[k])


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
                return compare(views[i], views[j], lambda a, b: _compare(a, b, i, j, tasks, shares))

            pairs = list(pool.map(judged, numbers))
    return Screen(pairs, np.array([own.signal for own in views]), np.array([own.r2 for own in views]))
