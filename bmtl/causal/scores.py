"""Local scores: the log evidence of one task given its parents, what inputs do to it integrated out; and coefficients.

Each group of inputs acts on a task or does not: the evidence is averaged over all sets γ of groups, uniformly over
their sizes and then over the sets of a size, with coefficients of those in γ integrated out. The sets of two tasks are
independent a priori. An input that acts on one task only can so tell cause from effect: turned round, the edge needs an
effect on the other task too, and is less likely by the price of one more coefficient, which grows with the root of the
number of rows. Inputs without effect change next to nothing, and none is selected.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bmtl.causal import laplace, normal
from bmtl.causal.columns import Columns
from bmtl.causal.subsets import Array, pick


@dataclass(frozen=True, eq=False)
class Coefficients:
    """m draws of one task's coefficients on standardised columns.

    Attributes
    ----------
    intercepts : (m,) array
    parents : (m, k) array
    inputs : (m, P) array
        Of all columns of inputs; zero where their group does not act.
    noises : (m, …) array
    """

    intercepts: Array
    parents: Array
    inputs: Array
    noises: Array


@dataclass(frozen=True, eq=False)
class Acting:
    """The sets of columns of inputs that may act on one task.

    Attributes
    ----------
    order : (P,) int array
        The columns of inputs, those that act together side by side.
    sizes : list of int
        How many act together.
    log_prior : (2^g,) array
        Of each set of those.
    """

    order: NDArray[np.int64]
    sizes: list[int]
    log_prior: Array

    @classmethod
    def of(cls, columns: Columns, child: int) -> Acting:
        together = columns.together[child]
        n = len(columns.inputs)
        ends = np.cumsum([0, *(block.shape[1] for block in columns.inputs)])
        parts = [[j for g in part for j in range(ends[g], ends[g + 1])] for part in together]
        used = np.zeros(1, dtype=np.int64)
        for part in together:
            used = np.concatenate([used, used + len(part)])
        order = np.array([j for part in parts for j in part], dtype=np.int64)
        return cls(order, [len(part) for part in parts], -np.log([(n + 1) * comb(n, size) for size in used.tolist()]))


class LocalScores:
    """Local scores of some tasks, and the posteriors behind them.

    Parameters
    ----------
    columns : Columns
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.acting = [Acting.of(columns, child) for child in range(columns.n_tasks)]
        self._known: dict[tuple[int, tuple[int, ...]], float] = {}
        self._models: dict[int, laplace.Model] = {}

    def exact(self, child: int) -> bool:
        """Whether the task's evidence has a closed form."""
        return self.columns.families[child].gaussian_scale(self.columns.y[:1, child]) is not None

    def table(self, child: int, candidates: list[int], max_parents: int) -> Array:
        """Log evidence of a task given every subset of the candidates, (2^k,); −∞ for more than ``max_parents``."""
        size = np.bitwise_count(np.arange(1 << len(candidates))).astype(int)
        if self.exact(child):
            return np.where(size <= max_parents, self._averaged(child, self._closed(child, candidates, [])), -np.inf)
        out = np.full(1 << len(candidates), -np.inf)
        for mask in np.flatnonzero(size <= max_parents):
            out[mask] = self.one(child, [c for i, c in enumerate(candidates) if mask >> i & 1])
        return out

    def one(self, child: int, parents: list[int]) -> float:
        """Log evidence of a task given its parents."""
        key = child, tuple(sorted(parents))
        if key not in self._known:
            self._known[key] = float(self._averaged(child, self._local(child, list(key[1])).log_evidences()))
        return self._known[key]

    def gains(self, child: int, given: list[int], others: list[int]) -> dict[int, float]:
        """Gain in log evidence from each of some other parents beside those given and all inputs, as if Gaussian."""
        own = self.columns
        cells = own.own[:, child]
        X = np.hstack([own.z[:, given], *own.inputs, own.z[:, others]])[cells]
        sizes = [block.shape[1] for block in own.inputs]
        precision = normal.precisions([*[1] * len(given), *sizes, *[1] * len(others)])
        A = normal.moments(own.z[cells, child], X, precision)
        m = len(given) + own.design.shape[1]
        swept = A[m:, m:] - A[m:, :m] @ np.linalg.solve(A[:m, :m], A[:m, m:])
        n, log_det = int(cells.sum()), float(np.linalg.slogdet(A[:m, :m])[1])
        prior = float(np.sum(np.log(precision[:m])))
        pivot, cross, corner = np.diagonal(swept)[:-1], swept[:-1, -1], swept[-1, -1]
        q = np.full(len(others) + 1, m + 1)
        q[-1] = m
        value = normal.log_density(
            n, q, np.append(np.full(len(others), prior + np.log(normal.PRECISION)), prior),
            np.append(log_det + np.log(pivot), log_det), np.append(corner - cross**2 / pivot, corner),
        )
        return dict(zip(others, (value[:-1] - value[-1]).tolist(), strict=True))

    def draw(
        self, child: int, parents: list[int], m: int, rng: np.random.Generator, *, gaussian: bool = False
    ) -> Coefficients:
        """Draws of a task's coefficients given its parents, and of which groups of inputs act.

        Parameters
        ----------
        m : int
            Draws.
        gaussian : bool
            Take the task for a Gaussian one of its standardised outcomes.
        """
        local, acting = self._local(child, parents, gaussian=gaussian), self.acting[child]
        sets = pick(local.log_evidences() + acting.log_prior, m, rng)
        group, k = np.repeat(np.arange(len(acting.sizes)), acting.sizes), len(parents)
        order, intercepts, noises = [], [], []
        slopes = np.zeros((m, k + len(group)))
        for mask in np.unique(sets):
            at, used = np.flatnonzero(sets == mask), np.flatnonzero(mask >> group & 1)
            intercept, drawn, noise = local.draw(used, len(at), rng)
            slopes[np.ix_(at, np.concatenate([np.arange(k), k + acting.order[used]]))] = drawn
            order.append(at)
            intercepts.append(intercept)
            noises.append(noise)
        back = np.argsort(np.concatenate(order))
        return Coefficients(
            np.concatenate(intercepts)[back], slopes[:, :k], slopes[:, k:], np.concatenate(noises)[back]
        )

    def _closed(self, child: int, candidates: list[int], fixed: list[int]) -> Array:
        """Log evidences by set of groups of inputs and subset of the candidates, beside fixed parents, (2^g, 2^k)."""
        A, _, n = self._moments(child, [*fixed, *candidates])
        log_det, corner = 0.0, A
        m = len(fixed)
        if m:
            log_det = float(np.linalg.slogdet(A[:m, :m])[1])
            corner = A[m:, m:] - A[m:, :m] @ np.linalg.solve(A[:m, :m], A[:m, m:])
        sizes, k = self.acting[child].sizes, len(candidates)
        # Inputs first: a wide group is swept once, and not for every subset of the candidates.
        P = len(corner) - 1 - k
        order = [*range(k, k + P), *range(k), k + P]
        corner = corner[np.ix_(order, order)]
        log_dets, corners = normal.subset_forms(corner, sizes + [1] * k)
        q, prior = np.zeros(1, dtype=np.int64), np.zeros(1)
        for size in sizes + [1] * k:
            q = np.concatenate([q, q + size])
            prior = np.concatenate([prior, prior + size * np.log(normal.PRECISION * size)])
        prior = prior + m * np.log(normal.PRECISION)
        value = normal.log_density(n, q + m, prior, log_det + log_dets, corners)
        return value.reshape(1 << k, -1).T

    def _moments(self, child: int, parents: list[int]) -> tuple[Array, Array, int]:
        """`normal.moments` of parents, all inputs and a task, their means over the task's own cells, and how many."""
        own, acting = self.columns, self.acting[child]
        cells = own.own[:, child]
        X, z = np.hstack([own.z[:, parents], own.design[:, acting.order]])[cells], own.z[cells, child]
        precision = normal.precisions([*[1] * len(parents), *acting.sizes])
        return normal.moments(z, X, precision), np.append(X.mean(axis=0), z.mean()), len(z)

    def _local(self, child: int, parents: list[int], *, gaussian: bool = False) -> normal.Closed | laplace.Form:
        """The posterior of a task given its parents."""
        if gaussian or self.exact(child):
            A, mean, n = self._moments(child, parents)
            return normal.Closed(A, mean, n, len(parents), self._closed(child, [], parents)[:, 0])
        own = self.columns
        cells = own.own[:, child]
        if child not in self._models:
            everything = np.hstack([np.delete(own.z, child, axis=1), *own.inputs])[cells]
            self._models[child] = laplace.model(
                own.families[child], own.y[cells, child], own.z[cells, child], own.exposure[cells, child], everything
            )
        acting = self.acting[child]
        return self._models[child].form(own.z[cells][:, parents], own.design[cells][:, acting.order], acting.sizes)

    def _averaged(self, child: int, evidences: Array) -> Array:
        """Log evidences averaged over the sets of groups of inputs, which come first."""
        prior = self.acting[child].log_prior.reshape(-1, *[1] * (evidences.ndim - 1))
        found: Array = logsumexp(evidences + prior, axis=0)
        return found
