"""Functions that are related in part: the one is a part of the other, or both have one part in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bmtl.advice.candidate import Candidate
from bmtl.advice.features import SHARE, Theta, mixed, sum_of
from bmtl.advice.leave_out import sharing_gain
from bmtl.advice.pair import P_UNCORRELATED, Integrated, PairStats, integrate, pair_stats
from bmtl.advice.sites import Sites, single_evidence

Array = NDArray[np.float64]

#: Correlations of the common part at which Bayes factors are computed, and the prior of them but 0.
COMMON = np.array([-1.0, -0.7, 0.0, 0.7, 1.0])
P_COMMON = np.array([0.3, 0.2, 0.0, 0.2, 0.3])
#: Kernels of common parts of a pair at which Bayes factors are computed.
N_COMMON = 2
#: A sum of kernels this many nats behind the best kernel of its task is no description of it.
MAX_BEHIND = 6.0


@dataclass(frozen=True)
class OverNoise:
    """Log Bayes factors ``table`` of values of ρ against ρ = 0 without a correlation of the noises, averaged over one
    that may be absent; its posterior mean ``r``; the fits with it ``held`` at 0, and ``best`` of held and free."""

    table: Array
    r: Array
    held: Integrated
    best: Integrated


def over_noise(stats: PairStats, rho: Array, start: Array) -> OverNoise:
    """Integrate with the noise correlation held at 0 and, on shared rows, with it free."""
    held = integrate(stats, rho, start, None)
    zero = int(np.flatnonzero(rho == 0)[0])
    if stats.n_both < 3:
        return OverNoise(held.log_evidence - held.log_evidence[zero], np.zeros(len(rho)), held, held)
    free = integrate(stats, rho[[zero]], start, 0.0)
    # Where the data see no correlation of the noises, hopeless values of ρ need no second look.
    gain = float(free.log_evidence[0] - held.log_evidence[zero])
    hopeful = np.full(len(rho), gain > 2.0) | (held.log_evidence > held.log_evidence.max() - 12.0)
    values, r = held.log_evidence + gain, np.full(len(rho), free.r[0])
    best = held
    if len(rho) > 1 and hopeful.any():
        found = integrate(stats, rho[hopeful], start, 0.0)
        values[hopeful], r[hopeful] = found.log_evidence, found.r
        free = found
    parts = np.stack([np.log(P_UNCORRELATED) + held.log_evidence, np.log1p(-P_UNCORRELATED) + values])
    total = logsumexp(parts, axis=0)
    if gain > 2.0:
        best = free
    return OverNoise(total - held.log_evidence[zero], np.exp(parts[1] - total) * r, held, best)


@dataclass(frozen=True)
class Partly:
    """Two tasks whose functions are related in part.

    Attributes
    ----------
    rho : (m,) array
        Correlations of the part.
    table : (m,) array
        Log Bayes factors against unrelated functions of the same kernels with unrelated noises.
    r : (m,) array
        Correlation of the noises.
    """

    rho: Array
    table: Array
    r: Array
    _fit: Integrated
    _arguments: tuple[Sites, Sites, Array, Array, PairStats]
    _carried: Array

    @property
    def unrelated(self) -> float:
        """Of ρ = 0: what correlated noises alone are worth."""
        return float(self.table[self.rho == 0][0])

    @property
    def r_unrelated(self) -> float:
        """Correlation of the noises at ρ = 0."""
        return float(self.r[self.rho == 0][0])

    @property
    def related(self) -> float:
        """Of all other ρ together."""
        return float(logsumexp(self.table[self.rho != 0]))

    def moments(self) -> tuple[float, float]:
        """Mean and mean square of the functions' correlation, of sums with one common part."""
        weight = np.exp(self.table - self.table.max()) * P_COMMON
        weight /= weight.sum()
        return float(weight @ (SHARE * self.rho)), float(weight @ (SHARE * self.rho) ** 2)

    def gains(self) -> tuple[float, float, float, float]:
        """As `sharing_gain`."""
        return sharing_gain(*self._arguments, self.rho, self._fit, self.table, self._carried)


def _partly(
    a: Candidate, b: Candidate, phi_a: Array, phi_b: Array, carried: Array, rho: Array, start: Array,
    n_related: int | None = None,
) -> Partly:
    stats = pair_stats(a.cells, b.cells, phi_a, phi_b, carried, n_related)
    fit = over_noise(stats, rho, start)
    return Partly(rho, fit.table, fit.r, fit.best, (a.cells, b.cells, phi_a, phi_b, stats), carried)


def nested(a: Candidate, b: Candidate, theta_a: Theta, theta_b: Theta, rho: Array) -> Partly:
    """Task a's function as a part of task b's, each with its own kernel.

    Where task b would be better described by the sum of both kernels even if the functions were unrelated, that is no
    evidence of a relation: it is taken off.
    """
    features = a.dictionary.features
    start = np.array([a.single(theta_a).log_tau, b.single(theta_b).log_tau])
    phi_b, carried = features(theta_b, b.cells.rows), features(theta_a, b.cells.rows)
    found = _partly(a, b, features(theta_a, a.cells.rows), phi_b, carried, rho, start)
    plain = single_evidence(b.cells, phi_b).log_evidence
    credit = {
        share: max(single_evidence(b.cells, mixed(carried, phi_b, share)).log_evidence - plain, 0.0)
        for share in set(rho**2) - {0.0}
    }
    return replace(found, table=found.table - [credit.get(share, 0.0) for share in rho**2])


def one_common_part(a: Candidate, b: Candidate, own_a: float, own_b: float) -> tuple[float, Partly | None]:
    """Log evidence of two sums of which one part is common, relative to unrelated tasks, and the likeliest of them.

    The common part has the kernel of a part of either task, in both; the other parts stay as they are. ``own_a`` and
    ``own_b`` are the log evidences of the tasks under all kernels known before.
    """
    dictionary = a.dictionary
    sums = [[theta for theta in task.visited if len(theta) > dictionary.d][:1] for task in (a, b)]
    if not all(own and task.score(own[0]) > task.score(task.visited[0]) - MAX_BEHIND
               for own, task in zip(sums, (a, b), strict=True)):
        return -np.inf, None
    parts = [dictionary.parts(own[0]) for own in sums]
    scores: dict[tuple[Theta, Theta, Theta], float] = {}
    for i, j in product((0, 1), repeat=2):
        rests = parts[0][1 - i], parts[1][1 - j]
        if not set(dictionary.inputs(parts[0][i])) & set(dictionary.inputs(parts[1][j])):
            continue
        for common in {parts[0][i], parts[1][j]} - set(rests):
            both = [sum_of(common, rest) for rest in rests]
            # Kernels that would describe the tasks better than any before even if unrelated are no evidence.
            known = float(np.logaddexp(own_a, a.score(both[0])) + np.logaddexp(own_b, b.score(both[1])))
            scores[common, *rests] = (
                sum(dictionary.log_part(own) for own in (common, *rests))
                + a.single(both[0]).log_evidence + b.single(both[1]).log_evidence - known
            )
    leading = sorted(scores, key=lambda own: (-scores[own], own))[:N_COMMON]
    found = []
    for common, *others in leading:
        phi_a, phi_b = (
            mixed(dictionary.part(common, task.cells.rows), dictionary.part(rest, task.cells.rows))
            for task, rest in zip((a, b), others, strict=True)
        )
        n_common = dictionary.part(common, a.cells.rows).shape[1]
        start = np.array([task.single(sum_of(common, rest)).log_tau for task, rest in zip((a, b), others, strict=True)])
        carried = np.hstack([phi_b[:, :n_common], np.zeros((len(phi_b), phi_a.shape[1] - n_common))])
        found.append(_partly(a, b, phi_a, phi_b, carried, COMMON, start, n_common))
    if not found:
        return -np.inf, None
    with np.errstate(divide="ignore"):
        values = [scores[own] + float(logsumexp(one.table + np.log(P_COMMON)))
                  for own, one in zip(leading, found, strict=True)]
    return float(logsumexp(values)), found[int(np.argmax(values))]
