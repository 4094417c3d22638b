"""The posterior over all graphs where the prior is a mixture of densities: sums for each, averaged by evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bmtl.causal.edge_prior import Densities
from bmtl.causal.exact import ExactGraphs, best_graph
from bmtl.causal.subsets import Array

Flags = NDArray[np.bool_]

LEAST = 1e-12
"""Densities of smaller posterior probability are left out."""


class GraphMixture:
    """Sums over all graphs of T tasks whose weights are products over tasks, times a prior of the number of edges.

    Parameters
    ----------
    log_w : (T, 2^T) array
        As of `ExactGraphs`, without the prior of edges.
    densities : Densities

    Attributes
    ----------
    share : (C,) array
        Posterior probability of each density; zeros if no graph is allowed.
    """

    def __init__(self, log_w: Array, densities: Densities) -> None:
        self._log_w, self._densities = log_w, densities
        evidence = np.full(len(densities.share), -np.inf)
        held: dict[int, ExactGraphs] = {}
        for c in range(len(evidence)):
            graphs = ExactGraphs(self._weighted(densities.log_theta[c]))
            evidence[c] = graphs.log_total + densities.log_weight[c]
            # The sums are large, and most densities soon out of the question.
            held = {d: own for d, own in (held | {c: graphs}).items() if evidence[d] > evidence.max() + np.log(LEAST)}
        self.share = np.zeros(len(evidence))
        self.share[list(held)] = np.exp(evidence[list(held)] - logsumexp(evidence[list(held)]))
        self._held = held

    def edge_probabilities(self) -> Array:
        """Probability of each edge, (T, T), row → column."""
        found: Array = np.sum([self.share[c] * graphs.edge_probabilities() for c, graphs in self._held.items()], axis=0)
        return found

    def draw(self, n: int, rng: np.random.Generator) -> Flags:
        """Graphs drawn independently, (n, T, T), row → column: first their densities."""
        counts = rng.multinomial(n, self.share[list(self._held)])
        drawn = np.concatenate([
            graphs.draw(count, rng) for graphs, count in zip(self._held.values(), counts, strict=True) if count
        ])
        return drawn if len(self._held) == 1 else drawn[rng.permutation(n)]

    def best(self) -> Flags:
        """The graph of the largest weight, (T, T); one of them where several are.

        The log prior is convex in the number of edges, so that the graph is also the best one for some slope of it,
        between log θ of the first density and the last. Graphs that are best for a slope are found from two of them:
        those for the slope at which the two are as good, until there are none between.
        """
        low, high = (best_graph(self._weighted(slope)) for slope in self._densities.log_theta[[0, -1]])
        found, waiting = [low, high], [(low, high)]
        while waiting:
            one, other = waiting.pop()
            (sparse, score), (dense, better) = self._edges_and_score(one), self._edges_and_score(other)
            if dense - sparse < 2:
                continue
            between = best_graph(self._weighted((score - better) / (dense - sparse)))
            if sparse < between.sum() < dense:
                found.append(between)
                waiting += [(one, between), (between, other)]
        edges, scores = np.transpose([self._edges_and_score(graph) for graph in found])
        return found[int(np.argmax(scores + self._densities.log_prior(edges)))]

    def _weighted(self, log_theta: float) -> Array:
        """Log weights of parent sets where each edge counts θ."""
        edges = np.bitwise_count(np.arange(self._log_w.shape[1]))
        found: Array = self._log_w + log_theta * edges
        return found

    def _edges_and_score(self, graph: Flags) -> tuple[int, float]:
        tasks = np.arange(len(graph))
        return int(graph.sum()), float(self._log_w[tasks, (1 << tasks) @ graph].sum())
