"""Paths in graphs: which tasks stand between, before and behind two of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bmtl.causal.draws import Draws
from bmtl.causal.intervene import summary
from bmtl.causal.subsets import Array

Flags = NDArray[np.bool_]

LIKELY = 0.5
"""Probability from which a task is named that plays a part."""


def reachable(graph: Flags) -> Flags:
    """Whether a directed path leads from row to column, (T, T)."""
    found = graph.copy()
    while True:
        further = found | (found.astype(int) @ found > 0)
        if np.array_equal(further, found):
            return found
        found = further


def directed(graph: Flags, a: int, b: int) -> list[tuple[int, ...]]:
    """All directed paths from a to b."""
    leads = reachable(graph)[:, b]
    leads[b] = True
    found: list[tuple[int, ...]] = []
    waiting: list[tuple[int, ...]] = [(a,)]
    while waiting:
        path = waiting.pop()
        if path[-1] == b:
            found.append(path)
        else:
            waiting += [(*path, int(u)) for u in np.flatnonzero(graph[path[-1]] & leads)]
    return found


def table(draws: Draws, a: int, b: int) -> pd.DataFrame:
    """Directed paths from a to b, likeliest first."""
    own = draws.columns
    where: dict[tuple[int, ...], list[NDArray[np.int64]]] = {}
    for graph, at, _ in draws.distinct:
        for path in directed(graph, a, b):
            where.setdefault(path, []).append(at)
    rows = []
    for path, pieces in where.items():
        at = np.concatenate(pieces)
        effect = draws.along(at, path)
        rows.append((
            " → ".join(own.names[t] for t in path), len(at) / len(draws), *summary(effect),
            *summary(effect * draws.standardised[a, b]),
        ))
    columns = ["path", "p", "slope", "slope_low", "slope_high", "std", "std_low", "std_high"]
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("p", ascending=False, kind="stable", ignore_index=True)


def relations(draws: Draws, a: int, b: int) -> pd.DataFrame:
    """What two tasks are to each other, with the tasks that play a part."""
    names = draws.columns.names
    n = len(names)
    kinds = [
        ("edge", f"{names[a]} → {names[b]}"), ("edge", f"{names[b]} → {names[a]}"),
        ("pipe", f"{names[a]} → … → {names[b]}"), ("pipe", f"{names[b]} → … → {names[a]}"),
        ("fork", f"{names[a]} ← … → {names[b]}"), ("collider", f"{names[a]} → … ← {names[b]}"),
        ("descendant", f"{names[b]} of {names[a]}"), ("descendant", f"{names[a]} of {names[b]}"),
        ("apart", "no path but through colliders"),
    ]
    p = np.zeros(len(kinds))
    via: Array = np.zeros((len(kinds), n))
    for graph, at, _ in draws.distinct:
        share = len(at) / len(draws)
        leads, past_a, past_b = reachable(graph), reachable(_without(graph, a)), reachable(_without(graph, b))
        parts = np.stack([
            leads[a] & leads[:, b], leads[b] & leads[:, a], past_b[:, a] & past_a[:, b], past_b[a] & past_a[b],
        ])
        via[2:6] += share * parts
        apart = not (leads[a, b] or leads[b, a] or parts[2].any())
        p += share * np.array([graph[a, b], graph[b, a], *np.max(parts, axis=1), leads[a, b], leads[b, a], apart])
    told = [", ".join(names[t] for t in np.argsort(-own, kind="stable") if own[t] >= LIKELY) for own in via]
    return pd.DataFrame({
        "relation": [kind for kind, _ in kinds], "form": [form for _, form in kinds], "p": p, "via": told,
        "p_via": via.max(axis=1),
    })


def _without(graph: Flags, t: int) -> Flags:
    """The graph without the edges of one task."""
    found = graph.copy()
    found[t], found[:, t] = False, False
    return found
