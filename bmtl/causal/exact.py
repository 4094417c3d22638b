"""The posterior over all directed acyclic graphs of up to some fifteen tasks, without enumerating them.

A graph has one layering: its roots, the roots of what is left without them, and so on. A task v of the layer after the
tasks S, of which R are the layer just before, has its parents in S and at least one of them in R, so that its factor is
    β_v(S, R) = α_v(S) − α_v(S \\ R),   α_v(S) = Σ_{P ⊆ S} w_v(P),
and the weight of all graphs that go on from there is g(S, R) = Σ_L Π_{v ∈ L} β_v(S, R) g(S ∪ L, L) over the next layers
L (Kuipers & Moffa, "Uniform random generation of large acyclic digraphs", Statistics and Computing, 2015; Talvitie,
Vuoksenmaa & Koivisto, "Exact sampling of directed acyclic graphs from modular distributions", UAI 2019). Every graph
counts once, whatever the number of its orders, and only positive numbers are added: what rounding takes from a β is
relative to the weight of graphs that exist, unlike in inclusion and exclusion over sources or sinks (Tian & He 2009).

Edge probabilities are derivatives of the logarithm of the sum by its weights, found by going through it backwards. Time
is 4^T, memory 3^T, for T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bmtl.causal.subsets import Array, log_weights_of_subsets, pick

Index = NDArray[np.int64]


class ExactGraphs:
    """Sums over all graphs of T tasks whose weights are products over tasks.

    Parameters
    ----------
    log_w : (T, 2^T) array
        Log weight of each set of parents (a bitmask over all tasks) of each task; −∞ where not allowed, as for every
        set that holds the task itself.

    Attributes
    ----------
    log_total : float
        Log of the sum of the weights of all graphs; −∞ if none is allowed.
    """

    def __init__(self, log_w: Array) -> None:
        self.n_tasks = len(log_w)
        # Shifted, so that rounding does not grow with the size of the log weights.
        top = log_w.max(axis=1, keepdims=True)
        self.log_w = log_w - np.where(np.isfinite(top), top, 0.0)
        self._log_alpha = log_weights_of_subsets(self.log_w)
        self._masks = np.arange(1 << self.n_tasks)
        # Where the state (S, R) is kept: digits to the base 3, 0 outside of S, 1 in S but not in R, 2 in R.
        self._base3 = np.zeros(1 << self.n_tasks, dtype=np.int64)
        for v in range(self.n_tasks):
            self._base3[1 << v : 2 << v] = self._base3[: 1 << v] + 3**v
        self._log_g = np.full(3**self.n_tasks, -np.inf)
        self._go_back()
        self.log_total = float(self._log_g[0] + np.where(np.isfinite(top), top, 0.0).sum())

    def _inside(self, S: int) -> Index:
        """Subsets of S, ascending; the complement in S of the i-th is the i-th from behind."""
        found: Index = self._masks[(self._masks & ~S) == 0]
        return found

    def _next(self, S: int) -> tuple[Index, Index, Array]:
        """Tasks outside of S, their subsets L, and log Π_{v ∈ L} α_v(S) g(S ∪ L, L)."""
        outside = np.flatnonzero(~S >> np.arange(self.n_tasks) & 1)
        subsets = self._masks[(self._masks & S) == 0]
        value = np.zeros(1)
        for v in outside:
            value = np.concatenate([value, value + self._log_alpha[v, S]])
        value = value + self._log_g[self._base3[S] + 2 * self._base3[subsets]]
        value[0] = -np.inf
        return outside, subsets, value

    def _reached(self, S: int, outside: Index, inside: Index) -> Array:
        """β_v(S, R) / α_v(S) for the tasks outside of S and all R ⊆ S, (tasks, 2^|S|)."""
        if S == 0:
            return np.ones((len(outside), 1))
        alpha = self._log_alpha[outside, S][:, None]
        without = self._log_alpha[outside][:, inside[::-1]]
        return -np.expm1(without - np.where(np.isfinite(alpha), alpha, np.inf)) * np.isfinite(alpha)

    def _go_back(self) -> None:
        """g of all states, the largest sets first."""
        full = (1 << self.n_tasks) - 1
        inside = self._inside(full)
        self._log_g[self._base3[full] + self._base3[inside[1:]]] = 0.0
        for S in range(full - 1, -1, -1):
            outside, _, value = self._next(S)
            top = value.max()
            if top == -np.inf:
                continue
            inside = self._inside(S)
            x = np.exp(value - top)[:, None]
            for r in self._reached(S, outside, inside)[::-1]:
                half = len(x) // 2
                x = x[:half] + r * x[half:]
            with np.errstate(divide="ignore"):
                self._log_g[self._base3[S] + self._base3[inside]] = top + np.log(x[0])

    def edge_probabilities(self) -> Array:
        """Probability of each edge, (T, T), row → column."""
        n = self.n_tasks
        log_f = np.full(3**n, -np.inf)
        log_f[0] = 0.0
        # Derivative of the log total by log α_v(U).
        derivative = np.zeros((n, 1 << n))
        for S in range((1 << n) - 1):
            inside = self._inside(S)
            log_before = log_f[self._base3[S] + self._base3[inside]]
            outside, subsets, value = self._next(S)
            top, top_before = value.max(), log_before.max()
            if top == -np.inf or top_before == -np.inf:
                continue
            reached = self._reached(S, outside, inside)
            layers = [np.exp(value - top)[:, None]]
            for r in reached[:0:-1]:
                half = len(layers[-1]) // 2
                layers.append(layers[-1][:half] + r * layers[-1][half:])
            adjoint = np.exp(log_before - top_before)[None, :]
            by_reached = np.empty_like(reached)
            for i, x in enumerate(layers[::-1]):
                half = len(x) // 2
                if x.shape[1] == 1:
                    by_reached[i] = x[half:, 0] @ adjoint
                else:
                    by_reached[i] = np.einsum("ij,ij->j", adjoint, x[half:])
                if i + 1 < len(layers):
                    adjoint = np.concatenate([adjoint, adjoint * reached[i]])
            arrived = np.concatenate([adjoint.sum(axis=1), adjoint @ reached[-1]])
            allowed = np.flatnonzero(np.isfinite(value) & (arrived > 0))
            at = self._base3[S] + 2 * self._base3[subsets[allowed]]
            log_f[at] = top_before + np.log(arrived[allowed]) + value[allowed] - self._log_g[at]
            by_reached *= np.exp(top + top_before - self._log_g[0])
            derivative[outside, S] += by_reached.sum(axis=1)
            if S:
                derivative[outside[:, None], inside[::-1]] -= by_reached * (1 - reached)
        return self._edges(derivative)

    def _edges(self, derivative: Array) -> Array:
        probability = np.zeros((self.n_tasks, self.n_tasks))
        for u in range(self.n_tasks):
            held = self._masks[self._masks >> u & 1 == 1]
            own = self._log_alpha[:, held]
            share = -np.expm1(self._log_alpha[:, held ^ (1 << u)] - np.where(np.isfinite(own), own, np.inf))
            probability[u] = np.sum(derivative[:, held] * np.where(np.isfinite(own), share, 0.0), axis=1)
        np.fill_diagonal(probability, 0.0)
        return probability.clip(0.0, 1.0)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Graphs drawn independently, (n, T, T), row → column."""
        parents = np.zeros((n, self.n_tasks), dtype=np.int64)
        waiting: list[tuple[int, int, Index]] = [(0, 0, np.arange(n))]
        while waiting:
            S, R, which = waiting.pop()
            if (1 << self.n_tasks) - 1 == S:
                continue
            outside, subsets, value = self._next(S)
            inside = self._inside(S)
            reached = self._reached(S, outside, inside)[:, np.searchsorted(inside, R)]
            factor = np.ones(1)
            for r in reached:
                factor = np.concatenate([factor, factor * r])
            with np.errstate(divide="ignore"):
                chosen = pick(value + np.log(factor), len(which), rng)
            for L, group in _groups(subsets[chosen], which):
                for v in np.flatnonzero(L >> np.arange(self.n_tasks) & 1):
                    allowed = inside[(inside & R) != 0] if S else inside
                    parents[group, v] = allowed[pick(self.log_w[v, allowed], len(group), rng)]
                waiting.append((S | L, L, group))
        return (parents[:, None, :] >> np.arange(self.n_tasks)[:, None] & 1).astype(bool)


def best_graph(log_w: Array) -> NDArray[np.bool_]:
    """The graph of the largest weight, (T, T); one of them where several are (Silander & Myllymäki, UAI 2006).

    Parameters
    ----------
    log_w : (T, 2^T) array
        As of `ExactGraphs`.
    """
    n, highest = len(log_w), log_w.copy()
    for u in range(n):
        view = highest.reshape(n, -1, 2, 1 << u)
        np.maximum(view[:, :, 1], view[:, :, 0], out=view[:, :, 1])
    masks = np.arange(1 << n)
    total = np.full(1 << n, -np.inf)
    total[0] = 0.0
    sizes = np.bitwise_count(masks)
    for size in range(1, n + 1):
        for v in range(n):
            at = masks[(sizes == size) & (masks >> v & 1 == 1)]
            total[at] = np.maximum(total[at], total[at ^ (1 << v)] + highest[v, at ^ (1 << v)])
    graph = np.zeros((n, n), dtype=bool)
    S = (1 << n) - 1
    while S:
        sinks = np.flatnonzero(S >> np.arange(n) & 1)
        rest = S ^ (1 << sinks)
        v = sinks[np.argmax(total[rest] + highest[sinks, rest])]
        S ^= 1 << int(v)
        inside = masks[(masks & ~S) == 0]
        own = inside[np.argmax(log_w[v, inside])]
        graph[:, v] = own >> np.arange(n) & 1
    return graph


def _groups(keys: Index, members: Index) -> Iterator[tuple[int, Index]]:
    """Each distinct key with the members that have it."""
    for key in np.unique(keys):
        yield int(key), members[keys == key]
