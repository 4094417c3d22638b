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
