"""The posterior over graphs of causes between tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bmtl._frames import quoted
from bmtl.causal.columns import columns
from bmtl.causal.edge_prior import Densities, EdgePrior
from bmtl.causal.equivalence import Splitter
from bmtl.causal.many import GOAL, N_CHAINS, sample
from bmtl.causal.mixture import GraphMixture
from bmtl.causal.scores import LocalScores
from bmtl.causal.subsets import Array
from bmtl.errors import ConvergenceWarning, TaskError
from bmtl.tasks import Tasks

Flags = NDArray[np.bool_]

MOST_EXACT = 15
"""Tasks up to which all graphs are summed over."""

N_CLASSES = 2000
"""Graphs drawn to tell directions that are identified from those that are not."""

MAX_R_HAT = 1.05
LOG_COLUMNS = 20
"""Evidences are tabulated for sets of at most so many parents and groups of inputs: 2²⁰ a task."""

FEWEST_GROUPS, MOST_GROUPS = 4, 8
CANDIDATES, CANDIDATES_FITTED = 12, 9
"""Candidate parents of a task where there are too many tasks to sum over; fewer where each set needs a fit."""

MOST_FITS, FEWEST_PARENTS = 1024, 4
"""Where each set of parents needs a fit: sets a task, unless of up to so few parents there are more."""


@dataclass(frozen=True, eq=False)
class DagPosterior:
    """Probabilities of the directed acyclic graphs of some tasks.

    Attributes
    ----------
    names : tuple of str
        The T tasks.
    edges : DataFrame
        T × T: the probability of the edge from the task of the row to the task of the column.
    map : DataFrame
        T × T booleans: the likeliest graph (of chains: of those drawn). Where directions are not identified others are
        as likely.
    density : DataFrame
        A row for each density of the prior, one unless the prior learns it: columns expected_parents (of a task, on
        average a priori), prior and posterior (its probabilities).
    method : {"exact", "mcmc"}
    diagnostics : dict
        ``rows`` used, ``inputs`` (groups), ``max_parents``; of chains ``r_hat`` (the largest over edges and densities),
        ``sweeps``, ``chains`` and ``converged``.
    """

    names: tuple[str, ...]
    edges: pd.DataFrame
    map: pd.DataFrame
    density: pd.DataFrame
    method: str
    diagnostics: dict[str, Any]
    _draw: Callable[[int, np.random.Generator], Flags] = field(repr=False)
    _score: Callable[[int, tuple[int, ...]], float] = field(repr=False)
    _seed: int = field(repr=False)
    _scores: LocalScores = field(repr=False)

    def draw(self, n: int, seed: int = 0) -> Flags:
        """Graphs from the posterior, (n, T, T), row → column: independent where it is exact, else picked from chains.

        Raises
        ------
        TaskError
            If n is not a whole number ≥ 1.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise TaskError(f"the number of graphs to draw must be a whole number ≥ 1, got {n!r}")
        return self._draw(int(n), np.random.default_rng(seed))

    @cached_property
    def equivalence(self) -> pd.DataFrame:
        """What the data say of each pair of tasks.

        Columns task_a, task_b, p_none (no edge), p_forward (a → b), p_backward (b → a), p_unidentified (an edge whose
        direction is not identified); the four sum to one.

        Every graph belongs to a Markov equivalence class, whose members imply the same independences. An edge that all
        members direct alike is identified. Of the others the posterior within the class is compared with the uniform
        distribution over its members, which it is where nothing tells them apart: if the shares of the two directions
        are p and 1 − p, and u and 1 − u for uniform members, then the edge is *not identified* with probability
        m = min(p / u, (1 − p) / (1 − u)), the largest part of the posterior that is the uniform one, and a → b with
        p − m u. So inputs that act on one task only, noise that is not Gaussian, interventions or the prior break
        ties by as much as they are evidence. Averaged over classes drawn from the posterior; p_none is that of
        `edges`.
        """
        splitter = Splitter(self._score)
        graphs, counts = np.unique(self.draw(N_CLASSES, self._seed), axis=0, return_counts=True)
        directed, unidentified = np.zeros((2, len(self.names), len(self.names)))
        for graph, count in zip(graphs, counts, strict=True):
            one, other = splitter.split(graph)
            directed += one * (count / N_CLASSES)
            unidentified += other * (count / N_CLASSES)
        edge = self.edges.to_numpy()
        rows = []
        for a in range(len(self.names)):
            for b in range(a + 1, len(self.names)):
                joined = min(edge[a, b] + edge[b, a], 1.0)
                parts = np.array([directed[a, b], directed[b, a], unidentified[a, b]])
                # Never seen among the draws, an edge is as good as absent; its direction has not been looked at.
                parts = parts * (joined / parts.sum()) if parts.sum() > 0 else np.array([0.0, 0.0, joined])
                rows.append((self.names[a], self.names[b], 1.0 - joined, *parts.tolist()))
        return pd.DataFrame(
            rows, columns=["task_a", "task_b", "p_none", "p_forward", "p_backward", "p_unidentified"]
        )


def dag_posterior(
    tasks: Tasks, prior: EdgePrior | None = None, *, max_parents: int | None = None, seed: int = 0
) -> DagPosterior:
    """The posterior over graphs of which task causes which, given the inputs.

    The model is p(y₁ … y_T | x) = Π p(y_t | x, parents of t), linear in standardised parents and inputs (and in smooth
    curves of an input where some task shows one), with inputs exogenous. Used are the rows on which every task is
    observed. Up to 15 tasks the posterior is exact given the local scores (`bmtl.causal.exact`), beyond it is drawn
    from by partition MCMC (`bmtl.causal.partition`) with 12 candidate parents a task (9 where each set of parents needs
    a fit), which are exchanged for likelier ones before the draws that count. The few edges from other tasks have the
    probability of one more parent in `edges`, and are in no graph drawn. Neither units nor the order of tasks matter.

    Parameters
    ----------
    tasks : Tasks
        Made from one row a unit. Cells marked ``intervened`` act on other tasks and are not explained themselves.
    prior : EdgePrior, optional
        Default: ``EdgePrior()``.
    max_parents : int, optional
        Parents of a task at the most. Default: no limit, but where a task has no closed form (every set of parents then
        needs a fit) 5 of 12 tasks, and 4 of 13 to 15.
    seed : int
        Of chains, and of the graphs drawn for `DagPosterior.equivalence`.

    Raises
    ------
    TaskError
        If tasks are categorical, do not share rows, are constant, an exact linear combination of each other or observed
        on too few common rows; if the prior names unknown tasks, leaves some out of its tiers, or allows no graph.

    Warns
    -----
    TaskWarning
        If rows are left out because a task is missing there.
    ConvergenceWarning
        If the R-hat of an edge or a density is above 1.05.
    """
    prior = EdgePrior() if prior is None else prior
    tasks.require(2, "a posterior over graphs")
    may, must = prior.allowed(tasks.names)
    n = tasks.n_tasks
    limit = _limit(tasks, max_parents, must)
    width = n - 1 if n <= MOST_EXACT else CANDIDATES
    found = columns(tasks, int(np.clip(LOG_COLUMNS - width, FEWEST_GROUPS, MOST_GROUPS)))
    scores = LocalScores(found)
    densities, log_allowed = prior.densities(n), _log_allowed(may, must)

    def tables(edges: Array, best: Flags, share: Array) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        density = {"expected_parents": densities.parents, "prior": densities.share, "posterior": share}
        return _table(edges, tasks.names), _table(best, tasks.names), pd.DataFrame(density)

    diagnostics: dict[str, Any] = {"rows": len(found.rows), "inputs": list(found.input_names), "max_parents": limit}
    if n <= MOST_EXACT:
        graphs, log_w = _exact(n, lambda v, others: scores.table(v, others, limit) + log_allowed(v, others), densities)

        def tabulated(child: int, parents: tuple[int, ...]) -> float:
            return float(log_w[child, sum(1 << u for u in parents)])

        told = tables(graphs.edge_probabilities(), graphs.best(), graphs.share)
        return DagPosterior(tasks.names, *told, "exact", diagnostics, graphs.draw, tabulated, seed, scores)

    def weight(child: int, parents: tuple[int, ...]) -> float:
        own = np.zeros(n, dtype=bool)
        own[list(parents)] = True
        if np.any(own & ~may[:, child]) or np.any(must[:, child] & ~own):
            return -np.inf
        return scores.one(child, list(parents))

    most = CANDIDATES if all(scores.exact(v) for v in range(n)) else CANDIDATES_FITTED
    sampled = sample(scores, log_allowed, densities, may, must, _precedes(prior, must, tasks), most, limit, seed)
    diagnostics |= {
        "r_hat": sampled.r_hat, "sweeps": sampled.sweeps, "chains": N_CHAINS, "converged": sampled.r_hat <= MAX_R_HAT,
    }
    if sampled.r_hat > MAX_R_HAT:
        what = f"edge probabilities have an R-hat of {sampled.r_hat:.3f} after {sampled.sweeps} sweeps (wanted: {GOAL})"
        warnings.warn(what, ConvergenceWarning, stacklevel=2)
    distinct = np.unique(sampled.graphs[:: max(1, len(sampled.graphs) // N_CLASSES)], axis=0)
    totals = [sum(weight(v, tuple(np.flatnonzero(graph[:, v]))) for v in range(n)) for graph in distinct]
    best = distinct[int(np.argmax(totals + densities.log_prior(distinct.sum(axis=(1, 2)))))]

    def picked(count: int, rng: np.random.Generator) -> Flags:
        chosen: Flags = sampled.graphs[rng.integers(len(sampled.graphs), size=count)]
        return chosen

    told = tables(sampled.edges, best, sampled.share)
    return DagPosterior(tasks.names, *told, "mcmc", diagnostics, picked, weight, seed, scores)


def draw_prior(prior: EdgePrior, names: Sequence[str], n: int, seed: int = 0) -> Flags:
    """Graphs from the prior, (n, T, T), row → column, independent.

    Raises
    ------
    TaskError
        If the prior names unknown tasks, leaves some out of its tiers, or allows no graph, or tasks are more than 15.
    """
    if len(names) > MOST_EXACT:
        raise TaskError(f"graphs can be drawn from their prior for up to {MOST_EXACT} tasks, got {len(names)}")
    graphs, _ = _exact(len(names), _log_allowed(*prior.allowed(names)), prior.densities(len(names)))
    return graphs.draw(n, np.random.default_rng(seed))


def _log_allowed(may: Flags, must: Flags) -> Callable[[int, list[int]], Array]:
    """Child and candidates to 0 for the subsets of the candidates that its parents may be, and −∞ for the others."""

    def log_allowed(child: int, candidates: list[int]) -> Array:
        subsets = np.arange(1 << len(candidates))
        needed = sum(1 << i for i, u in enumerate(candidates) if must[u, child])
        barred = sum(1 << i for i, u in enumerate(candidates) if not may[u, child])
        return np.where(((subsets & needed) == needed) & ((subsets & barred) == 0), 0.0, -np.inf)

    return log_allowed


def _exact(n: int, table: Callable[[int, list[int]], Array], densities: Densities) -> tuple[GraphMixture, Array]:
    """Sums over all graphs of n tasks, and their log weights, from each task's by subset of the others."""
    log_w = np.full((n, 1 << n), -np.inf)
    for v in range(n):
        own = np.arange(1 << (n - 1))
        log_w[v, (own & (1 << v) - 1) | (own >> v << v + 1)] = table(v, [u for u in range(n) if u != v])
    graphs = GraphMixture(log_w, densities)
    if not graphs.share.any():
        raise TaskError("the prior allows no graph: its edges and tiers contradict each other")
    return graphs, log_w


def _table(values: NDArray[Any], names: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(values, index=pd.Index(names), columns=pd.Index(names))


def _limit(tasks: Tasks, max_parents: int | None, must: Flags) -> int:
    """Parents of a task at the most."""
    most = tasks.n_tasks - 1
    if max_parents is None:
        closed = all(f.gaussian_scale(y[:1]) is not None for f, y in zip(tasks.families, tasks.y, strict=True))
        width = most if tasks.n_tasks <= MOST_EXACT else CANDIDATES_FITTED
        sets = np.cumsum([comb(width, size) for size in range(width + 1)])
        limit = most if closed or sets[-1] <= MOST_FITS else max(int(np.sum(sets <= MOST_FITS)) - 1, FEWEST_PARENTS)
        return max(limit, int(must.sum(axis=0).max()))
    if isinstance(max_parents, bool) or not isinstance(max_parents, (int, np.integer)) or max_parents < 0:
        raise TaskError(f"max_parents must be a whole number ≥ 0, got {max_parents!r}")
    over = [name for name, count in zip(tasks.names, must.sum(axis=0), strict=True) if count > max_parents]
    if over:
        raise TaskError(f"more parents are required than max_parents={max_parents} allows of {quoted(over)}")
    return min(int(max_parents), most)


def _precedes(prior: EdgePrior, must: Flags, tasks: Tasks) -> Flags:
    """Whether a task has to come before another in every order, by required edges or tiers."""
    before = must.copy()
    if prior.tiers is not None:
        tier = {name: i for i, own in enumerate(prior.tiers) for name in own}
        rank = np.array([tier[name] for name in tasks.names])
        before |= rank[:, None] < rank
    return before
