"""What is known of the edges before the data are seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lgamma
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmtl._frames import listing, quoted
from bmtl.errors import TaskError

Edge = tuple[str, str]


@dataclass(frozen=True)
class EdgePrior:
    """A prior on directed acyclic graphs: uniform over those with the same number of edges, fewer edges likelier.

    Every edge multiplies the prior probability of a graph by the same number θ ≤ 1, so that two graphs with the same
    edges but for directions are equally likely. θ is such that a task has ``expected_parents`` parents on average, or
    1, the uniform distribution over graphs, where that has no more. (A graph of T tasks cannot have more than
    (T − 1) / 2 a task.) Edges required and forbidden, and tiers, leave out graphs and change nothing else: the average
    is that without them.

    Parameters
    ----------
    required, forbidden : sequence of (cause, effect)
        Names of tasks.
    tiers : sequence of sequences of names, optional
        Groups of tasks in causal order, each task in one: no edge from a later group to an earlier one.
    expected_parents : float
        > 0.

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
    expected_parents: float = 1.0

    def __post_init__(self) -> None:
        for what in ("required", "forbidden"):
            object.__setattr__(self, what, tuple(_edge(edge, what) for edge in getattr(self, what)))
        if self.tiers is not None:
            if isinstance(self.tiers, str) or any(isinstance(tier, str) for tier in self.tiers):
                raise TaskError(f"tiers must be a list of lists of names, got {self.tiers!r}")
            object.__setattr__(self, "tiers", tuple(tuple(tier) for tier in self.tiers))
        parents = self.expected_parents
        if isinstance(parents, bool) or not isinstance(parents, (int, float)) or not 0 < parents < np.inf:
            raise TaskError(f"expected_parents must be a finite number > 0, got {parents!r}")
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

    def log_edge(self, n_tasks: int) -> float:
        """log θ, what one more edge adds to the log prior of a graph of so many tasks."""
        return _log_edge(n_tasks, float(self.expected_parents))

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


def log_graphs(n: int, log_theta: float) -> float:
    """Log of the sum over all directed acyclic graphs of n tasks of θ to the number of edges.

    Layer by layer, as `bmtl.causal.exact`: the sum over graphs of n tasks of which k are roots.
    """
    log_no_edge = np.log1p(np.exp(log_theta))
    table = np.full((n + 1, n + 1), -np.inf)
    for size in range(1, n + 1):
        for k in range(1, size + 1):
            choose = lgamma(size + 1) - lgamma(k + 1) - lgamma(size - k + 1)
            if k == size:
                table[size, k] = 0.0
                continue
            j = np.arange(1, size - k + 1)
            # Roots of the rest have at least one of the k as a parent, the others any of them.
            log_some = k * log_no_edge + np.log(-np.expm1(-k * log_no_edge))
            terms = j * log_some + (size - k - j) * k * log_no_edge + table[size - k, j]
            table[size, k] = choose + float(np.logaddexp.reduce(terms))
    return float(np.logaddexp.reduce(table[n, 1:]))


@lru_cache(maxsize=64)
def _log_edge(n_tasks: int, expected_parents: float) -> float:
    def mean_parents(log_theta: float) -> float:
        step = 1e-4
        slope = (log_graphs(n_tasks, log_theta + step) - log_graphs(n_tasks, log_theta - step)) / (2 * step)
        return slope / n_tasks

    if n_tasks < 2 or mean_parents(0.0) <= expected_parents:
        return 0.0
    low, high = np.log(expected_parents / n_tasks) - 3.0, 0.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean_parents(middle) < expected_parents else (low, middle)
    return float(0.5 * (low + high))
