"""What two tasks can have to do with each other, weighed by marginal likelihoods in closed form.

Log evidences are relative to those of both tasks unrelated, each under its own kernels and with noises of its own.
`bmtl.advice.screen` says in words what the hypotheses are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import logsumexp

from bmtl.advice.candidate import P_NULL, Candidate, climb
from bmtl.advice.features import Theta
from bmtl.advice.leave_out import sharing_gain
from bmtl.advice.pair import PairStats, informative, pair_stats
from bmtl.advice.partly import OverNoise, Partly, nested, one_common_part, over_noise

Array = NDArray[np.float64]

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


@dataclass(frozen=True, eq=False)
class OneKernel:
    """Two tasks under one kernel.

    Attributes
    ----------
    a, b : Candidate
    ranked : list of Theta
        Kernels looked at, the best for both tasks together first.
    log_own : tuple of two float
        Log evidence of each task under all of them.
    log_shared : (K,) array
        Log evidence of each kernel for both, relative to kernels of their own.
    table : (m,) array
        Log Bayes factors of the correlations `RHO` against 0, averaged over the leading kernels.
    fit, stats, phi_a, phi_b
        At the leading kernel: integrals over noises, sufficient statistics, and features of each task's cells.
    """

    a: Candidate
    b: Candidate
    ranked: list[Theta]
    log_own: tuple[float, float]
    log_shared: Array
    table: Array
    fit: OverNoise
    stats: PairStats
    phi_a: Array
    phi_b: Array

    @classmethod
    def of(cls, a: Candidate, b: Candidate) -> OneKernel:
        dictionary = a.dictionary
        looked = list(dict.fromkeys([*a.visited, *b.visited]))
        seen: dict[Theta, float] = {}

        def score(theta: Theta) -> float:
            if theta not in seen:
                both = a.single(theta).log_evidence + b.single(theta).log_evidence
                seen[theta] = dictionary.log_prior(theta) + both
            return seen[theta]

        climb(dictionary, score, [max(looked, key=score)])
        # Sorted by value and then by name, so that the order of the two tasks cannot matter.
        ranked = sorted(seen, key=lambda theta: (-seen[theta], theta))
        shared = np.array([seen[theta] for theta in ranked])
        own_a, own_b = (float(logsumexp([task.score(theta) for theta in ranked])) for task in (a, b))
        leading = [k for k in range(min(N_PAIR, len(ranked))) if shared[k] > shared[0] - MAX_GAP]
        fits = [cls._at(a, b, ranked[k]) for k in leading]
        weight = shared[leading] - logsumexp(shared[leading])
        table = logsumexp(np.array([own.table for own, *_ in fits]) + weight[:, None], axis=0)
        return cls(a, b, ranked, (own_a, own_b), shared - own_a - own_b, table, *fits[0])

    @staticmethod
    def _at(a: Candidate, b: Candidate, theta: Theta) -> tuple[OverNoise, PairStats, Array, Array]:
        features = a.dictionary.features
        start = np.array([a.single(theta).log_tau, b.single(theta).log_tau])
        phi = informative(a.cells, b.cells, features(theta, a.cells.rows), features(theta, b.cells.rows), start)
        stats = pair_stats(a.cells, b.cells, *phi)
        return over_noise(stats, RHO, start), stats, *phi

    @property
    def log_any(self) -> float:
        """Of all kernels together."""
        return float(logsumexp(self.log_shared))

    @property
    def at_zero(self) -> float:
        """Of unrelated functions, whose noises may be correlated."""
        return float(self.table[RHO == 0][0])

    @property
    def inputs(self) -> tuple[int, ...]:
        """Those that the leading kernel uses."""
        return self.a.dictionary.inputs(self.ranked[0])

    def restricted(self, selective: bool) -> float:
        """Of kernels that select at most half of the inputs, or of all others: priors renormalised to one."""
        d = self.a.dictionary.d
        size = np.array([len(self.a.dictionary.inputs(theta)) for theta in self.ranked])
        few, sizes = 2 * size <= d, np.arange(1, d + 1)
        if selective:
            kept, log_prior = few, -np.log(max(np.sum(2 * sizes <= d), 1) / d)
        else:
            kept, log_prior = ~few, -np.log(np.sum(2 * sizes > d) / d)
        return float(logsumexp(self.log_shared[kept])) + log_prior if kept.any() else -np.inf

    def gains(self) -> tuple[float, float, float, float]:
        """As `sharing_gain`."""
        return sharing_gain(
            self.a.cells, self.b.cells, self.phi_a, self.phi_b, self.stats, RHO, self.fit.best, self.table
        )


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """All that two tasks can have to do with each other.

    Attributes
    ----------
    shared : OneKernel
    within_b, within_a : Partly
        Task a's function as a part of task b's, and the reverse.
    log_common : float
        Log evidence of sums with one common part.
    common : Partly, optional
        The likeliest of them.
    """

    shared: OneKernel
    within_b: Partly
    within_a: Partly
    log_common: float
    common: Partly | None

    @classmethod
    def of(cls, a: Candidate, b: Candidate) -> Hypotheses:
        shared = OneKernel.of(a, b)
        best_a, best_b = (max(shared.ranked, key=task.score) for task in (a, b))
        within_b, within_a = nested(a, b, best_a, best_b, RHO[1:-1]), nested(b, a, best_b, best_a, RHO[1:-1])
        log_common, common = one_common_part(a, b, *shared.log_own)
        return cls(shared, within_b, within_a, log_common + np.log(P_ONE_COMMON), common)

    @cached_property
    def log_signs(self) -> Array:
        """Of one function, with signs opposite or the same, (2,)."""
        return np.log(0.5) + self.shared.log_any + self.shared.table[[0, -1]]

    @cached_property
    def correlated(self) -> tuple[Array, Array]:
        """Correlations of *weight*, and the log evidence of each as if it were alone, (m,) each."""
        either = np.logaddexp(self.within_b.table, self.within_a.table) - np.log(2)
        grid, density = over_correlations(self.shared.table[1:-1])
        density = np.logaddexp(
            np.log1p(-P_NESTED - P_ONE_COMMON) + self.shared.log_any + density,
            np.log(P_NESTED) + over_correlations(either)[1],
        )
        return grid, density

    @cached_property
    def log_correlated(self) -> float:
        """Of functions that correlate, as a whole or in part."""
        density = self.correlated[1]
        return float(np.logaddexp(float(logsumexp(density)) - np.log(len(density)), self.log_common))

    @cached_property
    def log_representation(self) -> float:
        """Of unrelated functions of the same few inputs."""
        return self.shared.restricted(selective=True) + self.shared.at_zero

    @cached_property
    def log_nulls(self) -> Array:
        """Of task a without signal, task b, or both, (3,)."""
        null_a, null_b = self.shared.a.log_null_ratio, self.shared.b.log_null_ratio
        one = np.log1p(-P_NULL) + np.log(P_NULL)
        return self.within_b.unrelated + np.array([one + null_a, one + null_b, 2 * np.log(P_NULL) + null_a + null_b])

    @cached_property
    def log_unseen(self) -> float:
        """Of a signal that is too weak to be seen."""
        n = np.array([len(task.cells.y) for task in (self.shared.a, self.shared.b)])
        rarity = np.log(UNSEEN) + 0.5 * np.log(UNSEEN_CELLS / np.append(n, n.max()))
        return float(logsumexp(self.log_nulls + np.minimum(rarity, 0.0)))

    @cached_property
    def log_decouple(self) -> float:
        """Of unrelated functions, each with its own kernel or with one dense kernel, or no signal."""
        own = np.log(0.5) + self.within_b.unrelated
        dense = np.log(0.5) + self.shared.restricted(selective=False) + self.shared.at_zero
        signals = 2 * np.log1p(-P_NULL) + np.logaddexp(own, dense)
        return float(np.logaddexp(signals, float(logsumexp(self.log_nulls))))

    @cached_property
    def log_weight(self) -> tuple[float, float]:
        """The two parts of *weight*: correlated functions, and a common representation."""
        correlated = np.log1p(-P_REPRESENTATION) + self.log_correlated
        return float(correlated), float(np.log(P_REPRESENTATION) + self.log_representation)

    def probabilities(self, prior: Array) -> tuple[Array, float]:
        """Of merge, weight and decouple, (3,), and of the part of weight that is correlated functions."""
        log_weight = np.logaddexp(*self.log_weight)
        verdicts = np.logaddexp(
            [float(logsumexp(self.log_signs)), log_weight, self.log_decouple],
            [self.log_unseen, self.log_unseen, -np.inf],
        ) / TEMPERATURE
        with np.errstate(divide="ignore"):
            p = verdicts + np.log(prior)
        p = np.exp(p - logsumexp(p))
        return p, float(p[1] * np.exp(self.log_weight[0] - log_weight))

    def correlation(self, p_merge: float, p_correlated: float) -> tuple[float, float]:
        """Posterior mean and standard deviation of the functions' correlation."""
        grid, density = self.correlated
        sign = np.exp(self.log_signs - float(logsumexp(self.log_signs)))
        weight = np.exp(density - logsumexp(density))
        p_common = p_correlated * float(np.exp(self.log_common - self.log_correlated))
        p_density = p_correlated - p_common
        common_mean, common_square = self.common.moments() if self.common else (0.0, 0.0)
        mean = p_merge * (sign[1] - sign[0]) + p_density * float(weight @ grid) + p_common * common_mean
        square = p_merge + p_density * float(weight @ grid**2) + p_common * common_square
        return float(mean), float(np.sqrt(max(square - mean**2, 0.0)))

    def residual_correlation(self, p_decouple: float) -> float:
        """Posterior mean of the correlation of the noises on shared rows; nan without any."""
        if not self.shared.stats.n_both:
            return float("nan")
        table = self.shared.table
        related = float(np.exp(table - logsumexp(table)) @ self.shared.fit.r)
        return (1 - p_decouple) * related + p_decouple * self.within_b.r_unrelated

    def ratio(self) -> tuple[float, float, float]:
        """Log ratio of the amplitudes of b and a, its standard deviation, and the sign, if the two are one function."""
        k = 0 if self.log_signs[0] > self.log_signs[1] else len(RHO) - 1
        held = self.shared.fit.held
        return float(held.log_ratio[k]), float(held.log_ratio_sd[k]), float(RHO[k])

    def gains(self) -> tuple[float, float, float, float]:
        """As `sharing_gain`, under the likeliest way of being related."""
        rest = np.logaddexp(self.log_correlated, float(logsumexp(self.log_signs)))
        if self.common and self.log_common > rest - np.log(2.0):
            return self.common.gains()
        whole = self.shared.log_any + float(logsumexp(self.shared.table[RHO != 0]))
        if whole >= max(self.within_b.related, self.within_a.related):
            return self.shared.gains()
        if self.within_b.related >= self.within_a.related:
            return self.within_b.gains()
        gain_b, se_b, gain_a, se_a = self.within_a.gains()
        return gain_a, se_a, gain_b, se_b


def over_correlations(table: Array) -> tuple[Array, Array]:
    """Log Bayes factors over a fine grid of the correlations of *weight*, (m,) each, interpolated from the nodes."""
    fine = np.linspace(*RHO_LIMITS, 66)
    grid = np.concatenate([-fine[::-1], fine])
    # Without ±1, where the evidence can fall without bound; monotone between nodes, so that nothing rings.
    return grid, PchipInterpolator(RHO[1:-1], table)(grid)
