"""What is known of the edges before the data are seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp

from bmtl._frames import listing, quoted
from bmtl.causal.subsets import Array
from bmtl.errors import TaskError

Edge = tuple[str, str]

N_DENSITIES = 5
"""Densities that one which is learned is a mixture of."""


@dataclass(frozen=True, eq=False)
class Densities:
    """What the number of edges counts in the prior of a graph: a mixture of C densities.

    The prior probability of a graph with k edges is Σ_c w_c θ_c^k / Z(θ_c), with Z(θ) the sum of θ^k over all graphs.

    Attributes
    ----------
    log_theta : (C,) array
        log θ_c, increasing.
    log_weight : (C,) array
        log (w_c / Z(θ_c)).
    share : (C,) array
        w_c, of sum 1.
    parents : (C,) array
        Mean parents of a task under each.
    """

    log_theta: Array
    log_weight: Array
    share: Array
    parents: Array

    def log_prior(self, edges: Array) -> Array:
        """Log prior probability of one graph with so many edges, of any shape."""
        found: Array = logsumexp(self.log_weight + np.asarray(edges)[..., None] * self.log_theta, axis=-1)
        return found


@dataclass(frozen=True)
class EdgePrior:
    """A prior on directed acyclic graphs: uniform over those with the same number of edges.

    Every edge multiplies the prior probability of a graph by the same number θ ≤ 1, so that two graphs with the same
    edges but for directions are equally likely. θ is such that a task has ``expected_parents`` parents on average, or
    1, the uniform distribution over graphs, where that has no more. (A graph of T tasks cannot have more than
    (T − 1) / 2 a task.) Edges required and forbidden, and tiers, leave out graphs and change nothing else: the average
    is that without them.

    The density of the graph can be learned instead: the prior is then a mixture over five θ, whose mean numbers of
    edges are the nodes of Gauss–Legendre quadrature between none and that of the uniform distribution and which have
    its weights, so that numbers of edges in between are about equally probable. No θ is above 1: an edge without use
    costs a graph no more than about half the log of the number of rows, which a larger θ would make up for.

    Parameters
    ----------
    required, forbidden : sequence of (cause, effect)
        Names of tasks.
    tiers : sequence of sequences of names, optional
        Groups of tasks in causal order, each task in one: no edge from a later group to an earlier one.
    expected_parents : float or None
        > 0; None to learn how dense the graph is, which takes the sums over all graphs of up to 15 tasks five times.

    Raises
    ------
    TaskError
        If edges are both required and forbidden, required edges form a cycle or lead to an earlier tier, an edge is
        not two different names, or a task is in two tiers.

    Examples
    --------
    >>> import bmtl
    >>> bmtl.EdgePrior(required=[("dose", "effect")], tiers=[["dose"], ["effect", "harm"]], expected_parents=0.5)
    EdgePrior(required=(('dose', 'effect'),), forbidden=(), tiers=(('dose',), ('effect', 'harm')), expected_parents=0.5)
    """

    required: Sequence[Edge] = ()
    forbidden: Sequence[Edge] = ()
    tiers: Sequence[Sequence[str]] | None = None
    expected_parents: float | None = 1.0

    def __post_init__(self) -> None:
        for what in ("required", "forbidden"):
            object.__setattr__(self, what, tuple(_edge(edge, what) for edge in getattr(self, what)))
        if self.tiers is not None:
            if isinstance(self.tiers, str) or any(isinstance(tier, str) for tier in self.tiers):
                raise TaskError(f"tiers must be a list of lists of names, got {self.tiers!r}")
            object.__setattr__(self, "tiers", tuple(tuple(tier) for tier in self.tiers))
        parents = self.expected_parents
        number = isinstance(parents, (int, float)) and not isinstance(parents, bool)
        if parents is not None and not (number and 0 < parents < np.inf):
            raise TaskError(f"expected_parents must be a finite number > 0, or None, got {parents!r}")
        clash = [edge for edge in self.required if edge in self.forbidden]
        if clash:
            raise TaskError(f"edges both required and forbidden: {_shown(clash)}")
        cycle = _cycle(self.required)
        if cycle:
            raise TaskError(f"required edges form a cycle: {' → '.join(cycle)}")
        named = [name for tier in self.tiers or () for name in tier]
        twice = [name for name in dict.fromkeys(named) if named.count(name) > 1]
        if twice:
            raise TaskError(f"tiers name a task twice: {quoted(twice)}")
        tier = self._tier()
        back = [(a, b) for a, b in self.required if a in tier and b in tier and tier[a] > tier[b]]
        if back:
            raise TaskError(f"required edges lead from a later tier to an earlier one: {_shown(back)}")

    def allowed(self, names: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which edges a graph of these tasks may have, and which it must have, (T, T) each, row → column.

        Raises
        ------
        TaskError
            If an edge or a tier names a task that is not one of them, or tiers leave a task out.
        """
        known = {name: t for t, name in enumerate(names)}
        tier = self._tier()
        for what, given in [
            ("required edges name", [name for edge in self.required for name in edge]),
            ("forbidden edges name", [name for edge in self.forbidden for name in edge]),
            ("tiers name", list(tier)),
        ]:
            unknown = [name for name in dict.fromkeys(given) if name not in known]
            if unknown:
                raise TaskError(f"{what} unknown tasks: {quoted(unknown)}; the tasks are {quoted(names, shown=20)}")
        left_out = [name for name in names if name not in tier]
        if self.tiers is not None and left_out:
            raise TaskError(f"tiers leave out tasks: {quoted(left_out)}")
        may = ~np.eye(len(names), dtype=bool)
        if self.tiers is not None:
            rank = np.array([tier[name] for name in names])
            may &= rank[:, None] <= rank
        must = np.zeros_like(may)
        for edges, table, value in ((self.forbidden, may, False), (self.required, must, True)):
            for cause, effect in edges:
                table[known[cause], known[effect]] = value
        # With the opposite of a required edge, no graph would be acyclic.
        return may & ~must.T, must

    def densities(self, n_tasks: int) -> Densities:
        """What edges count in the prior of a graph of so many tasks."""
        return _densities(n_tasks, self.expected_parents)

    def _tier(self) -> dict[str, int]:
        return {name: i for i, tier in enumerate(self.tiers or ()) for name in tier}


def _edge(edge: Any, what: str) -> Edge:
    pair = tuple(edge) if isinstance(edge, Iterable) and not isinstance(edge, str) else ()
    if len(pair) != 2 or not all(isinstance(name, str) for name in pair) or pair[0] == pair[1]:
        raise TaskError(f"{what} edges must be pairs (cause, effect) of different tasks, got {edge!r}")
    return pair[0], pair[1]


def _shown(edges: Iterable[Edge]) -> str:
    return listing(f"{cause!r} → {effect!r}" for cause, effect in edges)


def _cycle(edges: Iterable[Edge]) -> list[str]:
    """Names along a cycle, the first again at the end; none if there is no cycle."""
    effects: dict[str, list[str]] = {}
    for cause, effect in edges:
        effects.setdefault(cause, []).append(effect)
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for effect in effects.get(name, []):
            found = search(effect, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for found in (search(name, []) for name in effects) if found), [])


def sums_over_graphs(n: int, log_theta: float) -> tuple[float, float]:
    """Log of the sum over all directed acyclic graphs of n tasks of θ to the number of edges, and the mean number.

    Layer by layer, as `bmtl.causal.exact`: the sum over graphs of n tasks of which k are roots, and its derivative.
    """
    log_no_edge, p = np.logaddexp(0.0, log_theta), 1 / (1 + np.exp(-log_theta))
    k = np.arange(1, n + 1)[:, None]
    # Roots of the rest have at least one of the k as a parent, the others any of them.
    none = np.exp(-k * log_no_edge)
    log_some, d_some = k * log_no_edge + np.log1p(-none), k * p / (1 - none)
    log_sum, mean = np.full((n + 1, n + 1), -np.inf), np.zeros((n + 1, n + 1))
    np.fill_diagonal(log_sum, 0.0)
    for size in range(2, n + 1):
        own, j = k[: size - 1], np.arange(1, size)
        others = own * (size - own - j)
        terms = j * log_some[own - 1, 0] + others * log_no_edge + log_sum[size - own, j]
        top = terms.max(axis=1, keepdims=True)
        mass = np.exp(terms - top)
        total = mass.sum(axis=1)
        choose = (gammaln(size + 1) - gammaln(own + 1) - gammaln(size - own + 1))[:, 0]
        log_sum[size, 1:size] = choose + top[:, 0] + np.log(total)
        edges = j * d_some[own - 1, 0] + others * p + mean[size - own, j]
        mean[size, 1:size] = np.sum(mass * edges, axis=1) / total
    log_total = logsumexp(log_sum[n, 1:])
    return float(log_total), float(np.exp(log_sum[n, 1:] - log_total) @ mean[n, 1:])


@lru_cache(maxsize=64)
def _densities(n_tasks: int, expected_parents: float | None) -> Densities:
    def log_theta_of(parents: float) -> float:
        def excess(log_theta: float) -> float:
            return sums_over_graphs(n_tasks, log_theta)[1] / n_tasks - parents

        return float(brentq(excess, np.log(parents / n_tasks) - 3.0, 30.0))

    most = sums_over_graphs(n_tasks, 0.0)[1] / n_tasks
    if expected_parents is None:
        node, weight = np.polynomial.legendre.leggauss(N_DENSITIES)
        parents, share = most * (1 + node) / 2, weight / 2
    else:
        parents, share = np.array([min(expected_parents, most)]), np.ones(1)
    log_theta = np.array([log_theta_of(own) if own < most else 0.0 for own in parents])
    log_weight = np.log(share) - [sums_over_graphs(n_tasks, own)[0] for own in log_theta]
    return Densities(log_theta, log_weight, share, parents)
