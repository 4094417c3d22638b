"""How far what is said of a graph is from the graph, (T, T) booleans or probabilities, row → column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bmtl.causal.equivalence import essential

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST = 1e-6
"""Probabilities are taken to be at least that far from 0 and 1."""


def pattern(graph: Flags) -> Flags:
    """The essential graph of an acyclic graph's Markov equivalence class: a line is there in both directions."""
    arrows, lines = essential(graph)
    found: Flags = arrows | lines
    return found


def extended(graph: Flags) -> Flags | None:
    """An acyclic graph with the arrows and lines of a partly directed one, and no new collider; None if there is none.

    Lines are there in both directions. Tasks that can be last are taken away one after the other (Dor & Tarsi, 1992).
    """
    found, left = graph & ~graph.T, list(range(len(graph)))
    rest = graph.copy()
    while left:
        joined = rest | rest.T
        for v in left:
            lines = rest[v] & rest[:, v]
            # Whatever a line leads to is joined to all others that v is joined to.
            others = joined[v][:, None] & lines & ~np.eye(len(graph), dtype=bool)
            if not (rest[v] & ~lines).any() and not (others & ~joined).any():
                break
        else:
            return None
        found[lines, v] = True
        rest[v] = rest[:, v] = False
        left.remove(v)
    return found


def hamming(one: Flags, other: Flags) -> int:
    """Structural Hamming distance: pairs joined in one and not in the other, or joined in different ways."""
    differ = one != other
    return int(np.triu(differ | differ.T, 1).sum())


def expected_hamming(graphs: Flags, truth: Flags) -> float:
    """Mean distance of the classes of some acyclic graphs (n, T, T) from that of the true one."""
    distinct, counts = np.unique(graphs, axis=0, return_counts=True)
    true = pattern(truth)
    return float(np.average([hamming(pattern(graph), true) for graph in distinct], weights=counts))


def off_diagonal(table: NDArray[np.generic]) -> NDArray[np.generic]:
    """Entries for pairs of different tasks, (T (T − 1),)."""
    return table[~np.eye(len(table), dtype=bool)]


def auroc(score: Array, truth: Flags) -> float:
    """Probability that an edge has a higher score than a pair without one, ties half; NaN without either."""
    values, there = off_diagonal(score), off_diagonal(truth)
    n, m = int(there.sum()), int((~there).sum())
    return float((rankdata(values)[there].sum() - n * (n + 1) / 2) / (n * m)) if n and m else np.nan


def log_score(probability: Array, truth: Flags) -> float:
    """Mean log probability of what is true of ordered pairs of tasks, an edge or none."""
    p = off_diagonal(probability).clip(LEAST, 1 - LEAST)
    return float(np.mean(np.log(np.where(off_diagonal(truth), p, 1 - p))))
