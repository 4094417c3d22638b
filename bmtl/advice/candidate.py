"""One task in the screen, and the search for the kernels that describe it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bmtl.advice.features import Dictionary, Theta, spread_rows
from bmtl.advice.sites import Single, Sites, initial_sites, null_evidence, refined_sites, single_evidence
from bmtl.families import Bernoulli

#: Prior probability that a task has no signal.
P_NULL = 0.3
#: Cells a search looks at; evidences of pairs use all of them.
N_SEARCH = 1000
#: Kernels kept from a search, and how many of them are weighed against no signal on all cells.
N_KEPT, N_ALL_CELLS = 40, 3


class Candidate:
    """One task in the screen: its sites, and its evidence under every kernel looked at so far.

    Parameters
    ----------
    code : int, optional
        Of a categorical task, whose outcomes are then seen as this category or another.
    """

    def __init__(self, tasks: Any, t: int, dictionary: Dictionary, code: int | None = None) -> None:
        self.dictionary = dictionary
        family, y = tasks.families[t], np.asarray(tasks.y_std(t))
        if code is not None:
            family, y = Bernoulli(), (y == code).astype(float)
        sites = initial_sites(family, y, np.asarray(tasks.rows[t]), np.asarray(tasks.exposure[t]))
        keys = np.column_stack([dictionary.Z[sites.rows], sites.y])
        index = spread_rows(keys, N_SEARCH)
        self.cells = sites
        self._use(sites.take(index))
        best = self._search()
        if not sites.exact:
            self.cells = refined_sites(sites, dictionary.features(best, sites.rows))
            self._use(self.cells.take(index))
            self._search()
        self.visited = sorted(self.singles, key=self.score, reverse=True)[:N_KEPT]
        #: Log evidence of no signal over that of signal, on all cells.
        self.log_null_ratio = null_evidence(self.cells) - float(logsumexp(self._on_all_cells(index)))

    def _use(self, sites: Sites) -> None:
        self.sites = sites
        self.singles: dict[Theta, Single] = {}

    def single(self, theta: Theta) -> Single:
        if theta not in self.singles:
            self.singles[theta] = single_evidence(self.sites, self.dictionary.features(theta, self.sites.rows))
        return self.singles[theta]

    def _on_all_cells(self, searched: NDArray[np.intp]) -> list[float]:
        if len(searched) == len(self.cells.y):
            return [self.score(theta) for theta in self.visited]
        return [
            self.dictionary.log_prior(theta)
            + single_evidence(self.cells, self.dictionary.features(theta, self.cells.rows)).log_evidence
            for theta in self.visited[:N_ALL_CELLS]
        ]

    def score(self, theta: Theta) -> float:
        return self.dictionary.log_prior(theta) + self.single(theta).log_evidence

    def _search(self) -> Theta:
        best = climb(self.dictionary, self.score, self.dictionary.starts())
        if splits := self.dictionary.splits(best):
            return max(best, climb(self.dictionary, self.score, [max(splits, key=self.score)]), key=self.score)
        return best

    def signal(self) -> float:
        """Posterior probability of signal, on the task's own cells."""
        odds = np.log1p(-P_NULL) - np.log(P_NULL) - self.log_null_ratio
        return float(1 / (1 + np.exp(-np.clip(odds, -700, 700))))

    def r2(self) -> float:
        """Posterior mean share of explained variance; τ is per unit of weight."""
        score = np.array([self.score(theta) for theta in self.visited])
        weight = np.exp(score - logsumexp(score))
        information = 1.0 if self.sites.free else float(self.sites.weight.mean())
        tau = np.exp([self.single(theta).log_tau for theta in self.visited]) * information
        return self.signal() * float(weight @ (tau / (1 + tau)))


def climb(dictionary: Dictionary, score: Callable[[Theta], float], starts: Iterable[Theta]) -> Theta:
    """Steepest ascent over the dictionary from the best start, and from the last one (all inputs at once)."""
    starts = list(starts)
    best: list[Theta] = []
    for start in dict.fromkeys((max(starts, key=score), starts[-1])):
        current = start
        while True:
            step = max(dictionary.neighbours(current), key=score, default=current)
            if score(step) <= score(current):
                break
            current = step
        best.append(current)
    return max(best, key=score)
