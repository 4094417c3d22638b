"""Graphs, and tasks drawn from them."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

import bmtl
from bmtl.causal.normal import FREEDOM, PRECISION
from bmtl.causal.partition import layers

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@lru_cache(maxsize=8)
def all_graphs(n_tasks: int) -> Flags:
    """Every directed acyclic graph, by looking at all directions of all pairs, (graphs, T, T)."""
    pairs = list(combinations(range(n_tasks), 2))
    found = []
    for directions in product(range(3), repeat=len(pairs)):
        graph = np.zeros((n_tasks, n_tasks), dtype=bool)
        for (a, b), direction in zip(pairs, directions, strict=True):
            graph[a, b], graph[b, a] = direction == 1, direction == 2
        if is_acyclic(graph):
            found.append(graph)
    out = np.stack(found)
    out.flags.writeable = False
    return out


def is_acyclic(graph: Flags) -> bool:
    """Whether taking away tasks without causes ends with none."""
    left = np.arange(len(graph))
    while left.size:
        caused = graph[np.ix_(left, left)].any(axis=0)
        if caused.all():
            return False
        left = left[caused]
    return True


def enumerated(graphs: Flags, log_w: Array) -> tuple[float, Array]:
    """Log of the sum of all graphs' weights, and the probabilities of edges, one graph at a time."""
    n = graphs.shape[1]
    parents = np.sum(graphs * (1 << np.arange(n))[:, None], axis=1)
    weights = log_w[np.arange(n), parents].sum(axis=1)
    mass = np.exp(weights - weights.max())
    return float(weights.max() + np.log(mass.sum())), np.tensordot(mass / mass.sum(), graphs, axes=1)


def random_weights(n_tasks: int, rng: np.random.Generator) -> Array:
    """Log weights of parent sets as no data would have them: from nearly equal to hundreds apart, some forbidden."""
    log_w = rng.normal(size=(n_tasks, 1 << n_tasks)) * rng.choice([0.3, 3.0, 30.0, 300.0])
    log_w[rng.random(log_w.shape) < 0.1] = -np.inf
    log_w[:, 0] = rng.normal(size=n_tasks)
    for v in range(n_tasks):
        log_w[v, np.arange(1 << n_tasks) >> v & 1 == 1] = -np.inf
    return log_w


def random_graph(n_tasks: int, expected_parents: float, rng: np.random.Generator) -> Flags:
    """An Erdős–Rényi graph along a random order."""
    order = rng.permutation(n_tasks)
    upper = np.triu(rng.random((n_tasks, n_tasks)) < 2 * expected_parents / (n_tasks - 1), 1)
    graph = np.zeros((n_tasks, n_tasks), dtype=bool)
    graph[np.ix_(order, order)] = upper
    return graph


def linear_tasks(graph: Flags, n_rows: int, rng: np.random.Generator, n_inputs: int = 3) -> bmtl.Tasks:
    """Gaussian tasks with unit noise: slopes of .5 to 1.5 of either sign, and one input on every third task."""
    n = len(graph)
    X, Y = rng.normal(size=(n_rows, n_inputs)), np.zeros((n_rows, n))
    for v in np.argsort(layers(graph), kind="stable"):
        slopes = np.where(graph[:, v], rng.uniform(0.5, 1.5, n) * rng.choice([-1, 1], n), 0.0)
        acts = rng.random() < 1 / 3
        Y[:, v] = Y @ slopes + rng.normal(size=n_rows) + acts * X[:, rng.integers(n_inputs)]
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * n)


def standardised(
    graph: Flags, n_rows: int, rng: np.random.Generator, *, tails: bool, instruments: bool
) -> tuple[Array, Array]:
    """Linear tasks in units of their standard deviations (n, T), and their inputs (n, T) or (n, 0).

    Slopes are .5 to 1.5 of either sign, noises standard normal or, with ``tails``, Student-t with 3 degrees of freedom
    (variance 3) divided by √3. With ``instruments`` each task has a normal input that acts on it alone, by .5 to 1.5.
    """
    n = len(graph)

    def slopes() -> Array:
        found: Array = rng.uniform(0.5, 1.5, n) * rng.choice([-1, 1], n)
        return found

    X = rng.normal(size=(n_rows, n if instruments else 0))
    noise = rng.standard_t(3, size=(n_rows, n)) / np.sqrt(3) if tails else rng.normal(size=(n_rows, n))
    Y = noise + X * slopes() if instruments else noise
    for v in np.argsort(layers(graph), kind="stable"):
        Y[:, v] += Y @ np.where(graph[:, v], slopes(), 0.0)
    return (Y - Y.mean(axis=0)) / Y.std(axis=0), X


def from_prior(graph: Flags, n_rows: int, rng: np.random.Generator, n_inputs: int = 2) -> bmtl.Tasks:
    """Gaussian tasks whose slopes, noises and acting inputs are drawn from the prior that local scores integrate over.

    Inputs have a variance from it too: what is drawn is in no units that matter once it is standardised.
    """
    return with_slopes(graph, n_rows, rng, n_inputs)[0]


def with_slopes(
    graph: Flags, n_rows: int, rng: np.random.Generator, n_inputs: int = 2
) -> tuple[bmtl.Tasks, Array]:
    """As `from_prior`, and the slopes (T, T), row → column."""
    n = len(graph)

    def sigma(columns: int) -> float:
        return float(np.sqrt(0.5 * PRECISION / rng.gamma((FREEDOM + columns + 1) / 2)))

    X = rng.normal(size=(n_rows, n_inputs)) * [sigma(0) for _ in range(n_inputs)]
    Y, B = np.zeros((n_rows, n)), np.zeros((n, n))
    for v in np.argsort(layers(graph), kind="stable"):
        acting = rng.permutation(n_inputs)[: rng.integers(n_inputs + 1)]
        columns = np.hstack([Y[:, graph[:, v]], X[:, acting]])
        noise = sigma(columns.shape[1])
        slopes = rng.normal(size=columns.shape[1]) * noise / np.sqrt(PRECISION)
        B[graph[:, v], v] = slopes[: graph[:, v].sum()]
        Y[:, v] = columns @ slopes + noise * (rng.normal() + rng.normal(size=n_rows))
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * n), B
