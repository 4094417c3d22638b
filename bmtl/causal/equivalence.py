"""Which directions the data identify: graphs that imply the same independences, and how they share their probability.

A Markov equivalence class is written as its essential graph, in which the edges that all its members direct alike are
arrows, and the others lines (Andersson, Madigan & Perlman, Annals of Statistics, 1997). Lines form chain components,
each directed independently of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bmtl.causal.subsets import Array

Flags = NDArray[np.bool_]
Score = Callable[[int, tuple[int, ...]], float]

MOST_MEMBERS = 2000
"""Directions of one chain component that are looked at; where there are more, those nearest to the graph drawn."""


def essential(graph: Flags) -> tuple[Flags, Flags]:
    """Arrows and lines of the essential graph of a graph's class, (T, T) each; lines are symmetric."""
    joined = graph | graph.T
    apart = ~joined & ~np.eye(len(graph), dtype=bool)
    # a → b ← c with a and c apart.
    colliding = graph & (apart.astype(int) @ graph > 0)
    found = directed(joined & ~colliding.T)
    return found & ~found.T, found & found.T


def directed(graph: Flags) -> Flags:
    """A graph whose lines, there in both directions, are made arrows where the other direction is impossible.

    By the first three rules of Meek (UAI 1995): no new collider, no cycle, and no line that either would follow from.
    """
    apart = ~(graph | graph.T) & ~np.eye(len(graph), dtype=bool)
    while True:
        lines, arrows = graph & graph.T, (graph & ~graph.T).astype(int)
        found = lines & (arrows.T @ apart > 0)
        found |= lines & (arrows @ arrows > 0)
        for a, b in zip(*np.nonzero(lines & ~found & ~found.T), strict=True):
            through = np.flatnonzero(lines[a] & (arrows[:, b] > 0))
            found[a, b] = len(through) > 1 and bool(apart[np.ix_(through, through)].any())
        # Both directions are impossible of no class's essential graph, but of what tests of independence find.
        found &= ~found.T
        if not found.any():
            return graph
        graph = graph & ~found.T


def components(lines: Flags) -> list[list[int]]:
    """Chain components of more than one task."""
    out, seen = [], set()
    for v in range(len(lines)):
        if v in seen or not lines[v].any():
            continue
        own, waiting = {v}, [v]
        while waiting:
            for u in np.flatnonzero(lines[waiting.pop()]):
                if int(u) not in own:
                    own.add(int(u))
                    waiting.append(int(u))
        seen |= own
        out.append(sorted(own))
    return out


def members(inner: Flags) -> list[Flags]:
    """All directions of a component that its class has, from one of them (k, k), at most `MOST_MEMBERS`.

    Turning round an edge a → b where b has the parents of a, and a, leads from any to any (Chickering, UAI 1995).
    """
    found = {inner.tobytes(): inner}
    waiting = [inner]
    while waiting and len(found) < MOST_MEMBERS:
        graph = waiting.pop(0)
        for a, b in zip(*np.nonzero(graph), strict=True):
            others = graph[:, b].copy()
            others[a] = False
            if np.array_equal(graph[:, a], others):
                turned = graph.copy()
                turned[a, b], turned[b, a] = False, True
                if turned.tobytes() not in found:
                    found[turned.tobytes()] = turned
                    waiting.append(turned)
    return list(found.values())


class Splitter:
    """How much of each edge's probability is a direction, and how much is none.

    Parameters
    ----------
    score : callable
        Log weight of a task's parents.
    """

    def __init__(self, score: Score) -> None:
        self.score = score
        self._known: dict[tuple[object, ...], tuple[Array, Array]] = {}

    def split(self, graph: Flags) -> tuple[Array, Array]:
        """Of a graph's class: the probability that each edge is directed, row → column, and that it is not, (T, T)."""
        arrows, lines = essential(graph)
        directed, undirected = arrows.astype(float), np.zeros(graph.shape)
        for own in components(lines):
            at = np.ix_(own, own)
            # All tasks of a component have the same parents outside of it.
            outside = tuple(int(u) for u in np.flatnonzero(arrows[:, own[0]]))
            key = tuple(own), outside, lines[at].tobytes()
            if key not in self._known:
                self._known[key] = self._component(own, outside, graph[at] & lines[at])
            directed[at] += self._known[key][0]
            undirected[at] += self._known[key][1]
        return directed, undirected

    def _component(self, own: list[int], outside: tuple[int, ...], inner: Flags) -> tuple[Array, Array]:
        found = np.stack(members(inner))
        weights = np.array([
            sum(
                self.score(v, tuple(sorted((*outside, *(own[i] for i in np.flatnonzero(graph[:, j]))))))
                for j, v in enumerate(own)
            )
            for graph in found
        ])
        mass = np.exp(weights - weights.max())
        posterior = np.tensordot(mass / mass.sum(), found, axes=1)
        uniform = found.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(uniform > 0, posterior / uniform, np.inf)
        undirected = np.where(inner | inner.T, np.minimum(ratio, ratio.T).clip(max=1.0), 0.0)
        return posterior - undirected * uniform, undirected
