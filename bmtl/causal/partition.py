"""Draws of directed acyclic graphs of many tasks by partition Markov chain Monte Carlo (Kuipers & Moffa, "Partition
MCMC for inference on acyclic digraphs", Journal of the American Statistical Association, 2017).

The state is the layering of a graph (see `bmtl.causal.exact`), whose weight Π_v [α_v(S) − α_v(S \\ R)] is the sum over
all graphs that have it, so that no order is counted twice. One step takes a task out and puts it back into any layer
or between any two, in proportion to the weights of all of these layerings: a Gibbs step, always accepted. Given a
layering, parents are drawn, and edge probabilities computed, exactly. Parents are taken from a few candidates a task,
over whose subsets α is tabulated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmtl.causal.subsets import Array, log_weights_of_subsets, pick

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Tables:
    """Weights of the parent sets within the candidates.

    Parameters
    ----------
    candidates : list of T lists of int
    log_w : list of T arrays
        Log weight of each subset of a task's candidates, a bitmask.
    """

    def __init__(self, candidates: list[list[int]], log_w: list[Array]) -> None:
        self.n_tasks = n = len(candidates)
        self.width = max(max(len(own) for own in candidates), 1)
        self.log_w = np.full((n, 1 << self.width), -np.inf)
        # Where there are fewer candidates, the task itself fills up: it is never before itself.
        self.candidates = np.tile(np.arange(n)[:, None], (1, self.width))
        for v, (own, weights) in enumerate(zip(candidates, log_w, strict=True)):
            self.log_w[v, : len(weights)] = weights
            self.candidates[v, : len(own)] = own
        self.log_alpha = log_weights_of_subsets(self.log_w)
        self.bits = 1 << np.arange(self.width)
        #: Bit of task v among the candidates of u, 0 if it is none, [v, u].
        self.bit_of = np.zeros((n, n), dtype=np.int64)
        for u, own in enumerate(candidates):
            self.bit_of[own, u] = self.bits[: len(own)]


class Chains:
    """Chains over layerings, all moved in one vectorised step.

    Parameters
    ----------
    tables : Tables
    graphs : (C, T, T) bool array
        Where each of C chains starts.
    rng : Generator
    """

    def __init__(self, tables: Tables, graphs: Flags, rng: np.random.Generator) -> None:
        self.tables, self.rng = tables, rng
        self.layer = np.stack([layers(graph) for graph in graphs])
        self._at = np.arange(len(graphs))[:, None]

    def sweep(self) -> None:
        """Every task once, in random order."""
        for v in self.rng.permutation(self.tables.n_tasks):
            self._move(int(v))

    def _masks(self, layer: Index) -> tuple[Index, Index]:
        """Candidates before each task's layer, and before the layer before it, (C, T) bitmasks each."""
        held = layer[:, self.tables.candidates]
        before = (held < layer[:, :, None]) @ self.tables.bits
        long_before = (held < layer[:, :, None] - 1) @ self.tables.bits
        return before, long_before

    def _move(self, v: int) -> None:
        t, n = self.tables, self.tables.n_tasks
        layer = self.layer
        # Without v, layers close up over a layer of its own.
        alone = np.sum(layer == layer[:, [v]], axis=1) == 1
        layer = layer - (alone[:, None] & (layer > layer[:, [v]]))
        layer[:, v] = n
        n_layers = np.max(np.delete(layer, v, axis=1), axis=1) + 1
        S, U = self._masks(layer)
        bit = t.bit_of[v]
        S, U = S & ~bit, U & ~bit
        tasks = np.arange(n)
        first = layer == 0
        a_S, a_U = t.log_alpha[tasks, S], np.where(first, -np.inf, t.log_alpha[tasks, U])
        a_Sv, a_Uv = t.log_alpha[tasks, S | bit], t.log_alpha[tasks, U | bit]
        later, after_joined = log_difference(a_S, a_U)[..., None], log_difference(a_Sv, a_U)[..., None]
        after_new, earlier = log_difference(a_Sv, a_S)[..., None], log_difference(a_Sv, a_Uv)[..., None]
        place, own = np.arange(n), layer[:, :, None]
        joined = np.where(own <= place, later, np.where(own == place + 1, after_joined, earlier))
        new = np.where(own < place, later, np.where(own == place, after_new, earlier))
        joined[:, v] = new[:, v] = self._own(v, layer)
        value = np.concatenate([joined.sum(axis=1), new.sum(axis=1)], axis=1)
        value[:, :n][place >= n_layers[:, None]] = -np.inf
        value[:, n:][place > n_layers[:, None]] = -np.inf
        chosen = np.argmax(value + self.rng.gumbel(size=value.shape), axis=1)
        is_new, at = chosen >= n, chosen % n
        layer = layer + (is_new[:, None] & (layer >= at[:, None]))
        layer[:, v] = at
        self.layer = layer

    def _own(self, v: int, layer: Index) -> Array:
        """log β of task v in each layer, (C, T)."""
        t = self.tables
        before = (layer[:, t.candidates[v], None] < np.arange(t.n_tasks)).transpose(0, 2, 1) @ t.bits
        alpha = t.log_alpha[v, before]
        shifted = np.concatenate([np.full((len(layer), 1), -np.inf), alpha[:, :-1]], axis=1)
        return log_difference(alpha, shifted)

    def edge_probabilities(self) -> Array:
        """Of each chain's layering, (C, T, T)."""
        t = self.tables
        S, U = self._masks(self.layer)
        tasks = np.arange(t.n_tasks)[:, None]
        top = t.log_alpha[tasks[:, 0], S][..., None]
        S, U = S[..., None], U[..., None]

        def share(masks: Index) -> Array:
            found: Array = np.exp(t.log_alpha[tasks, masks] - top)
            return found

        rooted = (self.layer == 0)[..., None]
        long = np.where(rooted, 0.0, share(U))
        with_edge = 1.0 - share(S & ~t.bits) - long + np.where(rooted, 0.0, share(U & ~t.bits))
        probability = np.where(S & t.bits, with_edge / np.maximum(1.0 - long, 1e-300), 0.0).clip(0.0, 1.0)
        out = np.zeros((len(S), t.n_tasks, t.n_tasks))
        chain, child, j = np.nonzero(probability)
        out[chain, t.candidates[child, j], child] = probability[chain, child, j]
        return out

    def graphs(self) -> Flags:
        """A graph drawn given each chain's layering, (C, T, T)."""
        t = self.tables
        S, U = self._masks(self.layer)
        out = np.zeros((len(S), t.n_tasks, t.n_tasks), dtype=bool)
        subsets = np.arange(1 << t.width)
        for c in range(len(S)):
            for v in range(t.n_tasks):
                allowed = subsets[(subsets & ~S[c, v]) == 0]
                if self.layer[c, v]:
                    allowed = allowed[(allowed & ~U[c, v]) != 0]
                own = allowed[pick(t.log_w[v, allowed], 1, self.rng)[0]]
                out[c, t.candidates[v, (own & t.bits) != 0], v] = True
        return out


def log_difference(a: Array, b: Array) -> Array:
    """log(eᵃ − eᵇ) for a ≥ b; −∞ where they are equal, up to rounding."""
    finite = np.isfinite(a)
    gap = np.where(finite, np.minimum(b - np.where(finite, a, 0.0), 0.0), 0.0)
    with np.errstate(divide="ignore"):
        return np.where(finite, a, 0.0) + np.log(-np.expm1(gap))


def layers(graph: Flags) -> Index:
    """The layer of each task: 0 of roots, else one more than the latest of its parents'."""
    layer = np.zeros(len(graph), dtype=np.int64)
    for _ in range(len(graph)):
        layer = np.max(np.where(graph, layer[:, None] + 1, 0), axis=0)
    return layer


def start(tables: Tables, precedes: Flags, rng: np.random.Generator) -> Flags:
    """A graph with parents drawn along a random order that keeps to ``precedes`` (T, T), row before column."""
    n = tables.n_tasks
    graph, before = np.zeros((n, n), dtype=bool), np.zeros(n, dtype=bool)
    subsets = np.arange(1 << tables.width)
    while not before.all():
        free = np.flatnonzero(~before & ~np.any(precedes & ~before[:, None], axis=0))
        v = int(rng.choice(free))
        S = int(before[tables.candidates[v]] @ tables.bits)
        allowed = subsets[(subsets & ~S) == 0]
        own = allowed[pick(tables.log_w[v, allowed], 1, rng)[0]]
        graph[tables.candidates[v, (own & tables.bits) != 0], v] = True
        before[v] = True
    return graph


def r_hat(probability: Array) -> float:
    """Largest split R-hat (Gelman et al., Bayesian Data Analysis, 2013, section 11.4) over edges, from (C, D, T, T).

    Of edges whose conditional probabilities vary by more than .01 (standard deviation) over all draws.
    """
    C, D = probability.shape[:2]
    half = D // 2
    split = probability[:, : 2 * half].reshape(2 * C, half, -1)
    within, between = split.var(axis=1, ddof=1).mean(axis=0), split.mean(axis=1).var(axis=0, ddof=1)
    total = (half - 1) / half * within + between
    varies = total > 1e-4
    return float(np.sqrt(np.max(total[varies] / np.maximum(within[varies], 1e-12)))) if varies.any() else 1.0
