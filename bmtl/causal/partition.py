"""Draws of directed acyclic graphs of many tasks by partition Markov chain Monte Carlo (Kuipers & Moffa, "Partition
MCMC for inference on acyclic digraphs", Journal of the American Statistical Association, 2017).

The state is the layering of a graph (see `bmtl.causal.exact`), whose weight Π_v [α_v(S) − α_v(S \\ R)] is the sum over
all graphs that have it, so that no order is counted twice. One step takes a task out and puts it back into any layer
or between any two, in proportion to the weights of all of these layerings: a Gibbs step, always accepted. Given a
layering, parents are drawn, and edge probabilities computed, exactly. Parents are taken from a few candidates a task,
over whose subsets α is tabulated.

Each chain runs at several temperatures at once: at power b < 1 of the evidence the prior weighs more and layerings
change freely, and neighbouring temperatures exchange their states (Geyer 1991, "Markov chain Monte Carlo maximum
likelihood"), so that the chain at b = 1 is not held by the mode it fell into.

Where the prior is a mixture of densities the state has a density too, drawn given the layering after each sweep.

To direct a tree of edges the other way a whole branch would have to change its layers at once. So graphs are drawn at
b = 1 now and then, covered edges of theirs are turned, which leads to every graph of the same equivalence class
(Chickering, "A transformational characterization of equivalent Bayesian network structures", UAI 1995), and chains go
on from their layerings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from bmtl.causal.edge_prior import Densities
from bmtl.causal.subsets import Array, log_weights_of_subsets, pick

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

TURNS = 2
"""Covered edges that are tried to be turned, times the tasks."""


class Tables:
    """Weights of the parent sets within the candidates.

    Parameters
    ----------
    candidates : list of T lists of int
    log_evidence, log_allowed : lists of T arrays
        Of each subset of a task's candidates, a bitmask.
    densities : Densities
        C of them.
    powers : (B,) array
        Of the evidence, the first 1.
    """

    def __init__(
        self, candidates: list[list[int]], log_evidence: list[Array], log_allowed: list[Array], densities: Densities,
        powers: Array,
    ) -> None:
        self.n_tasks = n = len(candidates)
        self.densities = densities
        self.width = max(max(len(own) for own in candidates), 1)
        weights = np.full((len(powers), n, 1 << self.width), -np.inf)
        # Where there are fewer candidates, the task itself fills up: it is never before itself.
        self.candidates = np.tile(np.arange(n)[:, None], (1, self.width))
        for v, (own, evidence, allowed) in enumerate(zip(candidates, log_evidence, log_allowed, strict=True)):
            weights[:, v, : len(evidence)] = powers[:, None] * (evidence - evidence[0]) + allowed
            self.candidates[v, : len(own)] = own
        edges = np.bitwise_count(np.arange(1 << self.width))
        by_density = weights[:, None] + densities.log_theta[:, None, None] * edges
        #: At power 1, [density, task, subset].
        self.log_w = by_density[0]
        #: [power, density, task, set].
        self.log_alpha = log_weights_of_subsets(by_density)
        self.bits = 1 << np.arange(self.width)
        #: Bit of task v among the candidates of u, 0 if it is none, [v, u].
        self.bit_of = np.zeros((n, n), dtype=np.int64)
        for u, own in enumerate(candidates):
            self.bit_of[own, u] = self.bits[: len(own)]


class Chains:
    """Chains over layerings, all of them and all their temperatures moved in one vectorised step.

    Parameters
    ----------
    tables : Tables
    graphs : (C, T, T) bool array
        Where each of C chains starts.
    rng : Generator
    """

    def __init__(self, tables: Tables, graphs: Flags, rng: np.random.Generator) -> None:
        self.tables, self.rng = tables, rng
        self.n_powers = len(tables.log_alpha)
        #: One row a chain and temperature, the temperatures of a chain side by side.
        self.layer = np.repeat(np.stack([layers(graph) for graph in graphs]), self.n_powers, axis=0)
        #: Which density each row has.
        self.density = np.zeros(len(self.layer), dtype=np.int64)
        self._power = np.tile(np.arange(self.n_powers), len(graphs))
        self._parity = 0

    def sweep(self) -> None:
        """Every task once, in random order, and an exchange between temperatures."""
        for v in self.rng.permutation(self.tables.n_tasks):
            self._move(int(v))
        self._redraw()
        self._exchange()

    def _masks(self, layer: Index) -> tuple[Index, Index]:
        """Candidates before each task's layer, and before the layer before it, (rows, T) bitmasks each."""
        ahead = layer[:, :, None] - layer[:, self.tables.candidates]
        return (ahead > 0) @ self.tables.bits, (ahead > 1) @ self.tables.bits

    def _move(self, v: int) -> None:
        t, n = self.tables, self.tables.n_tasks
        layer, at = self.layer, (self._power[:, None], self.density[:, None])
        rows = len(layer)
        # Without v, layers close up over a layer of its own.
        alone = np.sum(layer == layer[:, [v]], axis=1) == 1
        layer = layer - (alone[:, None] & (layer > layer[:, [v]]))
        layer[:, v] = -1
        n_layers = np.max(layer, axis=1) + 1
        layer[:, v] = n
        S, U = self._masks(layer)
        bit, tasks = t.bit_of[v], np.arange(n)
        a_S, a_Sv = t.log_alpha[*at, tasks, S], t.log_alpha[*at, tasks, S | bit]
        a_U = np.where(layer == 0, -np.inf, t.log_alpha[*at, tasks, U])
        a_Uv = t.log_alpha[*at, tasks, U | bit]
        # log β of every other task where v comes later or beside it, just before it in a layer with others, just
        # before it in a layer of its own, and longer before.
        beta = log_difference(np.stack([a_S, a_Sv, a_Sv, a_Sv]), np.stack([a_U, a_U, a_S, a_Uv]))
        beta[:, :, v] = 0.0
        bins = (np.arange(4 * rows) * (n + 3)).reshape(4, rows, 1) + np.where(layer == n, n + 2, layer)
        by_layer = np.bincount(bins.ravel(), beta.ravel(), 4 * rows * (n + 3)).reshape(4, rows, n + 3)
        later = np.cumsum(by_layer[0], axis=1)
        earlier = np.cumsum(by_layer[3, :, ::-1], axis=1)[:, ::-1]
        own = self._own(v, layer)
        joined = later[:, :n] + by_layer[1, :, 1 : n + 1] + earlier[:, 2 : n + 2] + own
        new = by_layer[2, :, :n] + earlier[:, 1 : n + 1] + own
        new[:, 1:] += later[:, : n - 1]
        place = np.arange(n)
        joined[place >= n_layers[:, None]] = -np.inf
        new[place > n_layers[:, None]] = -np.inf
        value = np.concatenate([joined, new], axis=1)
        chosen = np.argmax(value + self.rng.gumbel(size=value.shape), axis=1)
        is_new, to = chosen >= n, chosen % n
        layer = layer + (is_new[:, None] & (layer >= to[:, None]))
        layer[:, v] = to
        self.layer = layer

    def _own(self, v: int, layer: Index) -> Array:
        """log β of task v in each layer, (rows, T)."""
        t = self.tables
        before = (layer[:, None, t.candidates[v]] < np.arange(t.n_tasks)[:, None]) @ t.bits
        alpha = t.log_alpha[self._power[:, None], self.density[:, None], v, before]
        shifted = np.concatenate([np.full((len(layer), 1), -np.inf), alpha[:, :-1]], axis=1)
        return log_difference(alpha, shifted)

    def _redraw(self) -> None:
        """The density of every row, given its layering."""
        if len(self.tables.densities.share) > 1:
            value = self._log_densities(np.arange(len(self.layer)))
            self.density = np.argmax(value + self.rng.gumbel(size=value.shape), axis=1)

    def _log_densities(self, rows: Index) -> Array:
        """Log weights of the densities given the layerings of m rows, (m, C)."""
        densities = self.tables.densities.log_weight
        return densities + self._log_weights(rows, self._power[rows, None], np.arange(len(densities))[None])

    def _log_weights(self, rows: Index, power: Index, density: Index) -> Array:
        """Log weights of the layerings of m rows at powers and densities that broadcast to (m, k)."""
        layer = self.layer[rows]
        (S, U), tasks = self._masks(layer), np.arange(self.tables.n_tasks)
        at = power[..., None], density[..., None], tasks
        below = np.where(layer[:, None] == 0, -np.inf, self.tables.log_alpha[*at, U[:, None]])
        total: Array = log_difference(self.tables.log_alpha[*at, S[:, None]], below).sum(axis=-1)
        return total

    def _exchange(self) -> None:
        """Exchange the states of every second pair of neighbouring temperatures, by Metropolis."""
        low = np.arange(len(self.layer)).reshape(-1, self.n_powers)[:, self._parity : -1 : 2].ravel()
        self._parity = 1 - self._parity
        if not len(low):
            return
        ends = np.concatenate([low, low + 1])
        power, density = self._power[ends, None], self.density[ends, None]
        other = np.roll(power, len(low))
        gain = (self._log_weights(ends, other, density) - self._log_weights(ends, power, density))[:, 0]
        swapped = low[np.log(self.rng.random(len(low))) < gain[: len(low)] + gain[len(low) :]]
        for state in (self.layer, self.density):
            state[swapped], state[swapped + 1] = state[swapped + 1], state[swapped]

    def turned(self) -> Flags:
        """Graphs drawn given the layering of each chain at power 1, some covered edges turned; chains go on from there.

        Edges are turned by Metropolis and Hastings: one of the covered ones, in which all parents of the child but one
        are parents of this one, against the number of covered ones afterwards.

        Returns
        -------
        (C, T, T) bool array
        """
        t, graph = self.tables, self.graphs()
        # There are as many edges afterwards: any density does.
        log_w = t.log_w[0]
        rows, n = np.arange(len(graph)), t.n_tasks
        masks = (graph * t.bit_of).sum(axis=1)
        covered = _covered(graph)
        for _ in range(TURNS * n):
            count = covered.reshape(len(rows), -1).sum(axis=1)
            chosen = np.argmax(covered.reshape(len(rows), -1) * (1.0 - self.rng.random((len(rows), n * n))), axis=1)
            u, v = np.divmod(chosen, n)
            new_u, new_v = masks[rows, u] | t.bit_of[v, u], masks[rows, v] & ~t.bit_of[u, v]
            gain = log_w[u, new_u] + log_w[v, new_v] - log_w[u, masks[rows, u]] - log_w[v, masks[rows, v]]
            other = graph.copy()
            other[rows, u, v], other[rows, v, u] = False, True
            after = _covered(other)
            # Where there is no covered edge, or the child is no candidate, nothing is turned.
            log_odds = gain + np.log(np.maximum(count, 1) / np.maximum(after.reshape(len(rows), -1).sum(axis=1), 1))
            turn = (count > 0) & (t.bit_of[v, u] > 0) & (np.log(self.rng.random(len(rows))) < log_odds)
            graph, covered = np.where(turn[:, None, None], other, graph), np.where(turn[:, None, None], after, covered)
            masks[rows[turn], u[turn]], masks[rows[turn], v[turn]] = new_u[turn], new_v[turn]
        self.layer[:: self.n_powers] = np.stack([layers(own) for own in graph])
        return graph

    def theta(self) -> Array:
        """By what an edge multiplies the prior in each chain at power 1, (C,)."""
        found: Array = np.exp(self.tables.densities.log_theta[self.density[:: self.n_powers]])
        return found

    def _cold(self) -> tuple[Index, Index, Index]:
        """Layers and masks of the chains at power 1."""
        layer = self.layer[:: self.n_powers]
        return layer, *self._masks(layer)

    def density_probabilities(self) -> Array:
        """Of each density given the layering of each chain at power 1, (C, densities)."""
        # Finite where all are rounded to nothing.
        return softmax(np.maximum(self._log_densities(np.flatnonzero(self._power == 0)), -1e300), axis=1)

    def edge_probabilities(self) -> Array:
        """Given the layering and density of each chain at power 1, (C, T, T)."""
        t, log_alpha = self.tables, self.tables.log_alpha[0]
        layer, S, U = self._cold()
        tasks, density = np.arange(t.n_tasks)[:, None], self.density[:: self.n_powers, None, None]
        top = log_alpha[density[..., 0], tasks[:, 0], S][..., None]
        S, U = S[..., None], U[..., None]

        def share(masks: Index) -> Array:
            found: Array = np.exp(log_alpha[density, tasks, masks] - top)
            return found

        rooted = (layer == 0)[..., None]
        long = np.where(rooted, 0.0, share(U))
        with_edge = 1.0 - share(S & ~t.bits) - long + np.where(rooted, 0.0, share(U & ~t.bits))
        probability = np.where(S & t.bits, with_edge / np.maximum(1.0 - long, 1e-300), 0.0).clip(0.0, 1.0)
        out = np.zeros((len(S), t.n_tasks, t.n_tasks))
        chain, child, j = np.nonzero(probability)
        out[chain, t.candidates[child, j], child] = probability[chain, child, j]
        return out

    def graphs(self) -> Flags:
        """A graph drawn given the layering and density of each chain at power 1, (C, T, T)."""
        t = self.tables
        layer, S, U = self._cold()
        out = np.zeros((len(S), t.n_tasks, t.n_tasks), dtype=bool)
        subsets = np.arange(1 << t.width)
        for c, density in enumerate(self.density[:: self.n_powers]):
            for v in range(t.n_tasks):
                allowed = subsets[(subsets & ~S[c, v]) == 0]
                if layer[c, v]:
                    allowed = allowed[(allowed & ~U[c, v]) != 0]
                own = allowed[pick(t.log_w[density, v, allowed], 1, self.rng)[0]]
                out[c, t.candidates[v, (own & t.bits) != 0], v] = True
        return out


def _covered(graph: Flags) -> Flags:
    """Edges u → v with which v has no parent but u and the parents of u, and all of these."""
    G = graph.astype(np.float32)
    parents = G.sum(axis=1)
    apart = parents[:, :, None] + parents[:, None, :] - 2.0 * (G.transpose(0, 2, 1) @ G)
    # u itself is a parent of v, and none of u.
    covered: Flags = graph & (apart < 1.5)
    return covered


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
        own = allowed[pick(tables.log_w[0, v, allowed], 1, rng)[0]]
        graph[tables.candidates[v, (own & tables.bits) != 0], v] = True
        before[v] = True
    return graph


def r_hat(probability: Array) -> float:
    """Largest split R-hat (Gelman et al., Bayesian Data Analysis, 2013, section 11.4) over events, from (C, D, events).

    Of those whose conditional probabilities vary by more than .01 (standard deviation) over all draws.
    """
    C, D = probability.shape[:2]
    half = D // 2
    split = probability[:, : 2 * half].reshape(2 * C, half, -1)
    within, between = split.var(axis=1, ddof=1).mean(axis=0), split.mean(axis=1).var(axis=0, ddof=1)
    total = (half - 1) / half * within + between
    varies = total > 1e-4
    return float(np.sqrt(np.max(total[varies] / np.maximum(within[varies], 1e-12)))) if varies.any() else 1.0
