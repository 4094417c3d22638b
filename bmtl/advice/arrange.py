"""From what is known of every pair to an arrangement of all tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bmtl.arrangement import Arrangement

EXACT_UP_TO = 7
"""Tasks up to which all arrangements are scored: there are 19,302 of seven tasks, 167,894 of eight."""

RELATIONS = ("merge", "weight", "decouple")
SMALLEST = 1e-6
"""Floor of pair probabilities, so that one pair cannot forbid an arrangement outright."""

Labels = tuple[tuple[int, int], ...]
"""Trunk and head of each task."""


@dataclass(frozen=True)
class Ranked:
    """Arrangements by probability.

    Attributes
    ----------
    labels : list of Labels
        Most probable first.
    probability : ndarray
        Of each, among all that were scored.
    kind : dict
        Probability that the whole set is ``merge`` (one head), ``weight`` (one trunk, a head each), ``decouple`` (a
        trunk each) or ``mixed``.
    """

    labels: list[Labels]
    probability: np.ndarray
    kind: dict[str, float]


def rank(log_p: np.ndarray, mergeable: np.ndarray | None = None) -> Ranked:
    """Score arrangements by their pairs.

    The score of an arrangement is the sum of its pairs' log probabilities, times 2/T: each of T tasks stands in
    T − 1 pairs, but only T − 1 of the T(T − 1)/2 relations can be independent.

    Parameters
    ----------
    log_p : ndarray, shape (3, T, T)
        Log probability of merge, weight, decouple for each pair; symmetric, the diagonal is ignored.
    mergeable : ndarray of bool, shape (T, T), optional
        Which pairs can share a head at all; arrangements in which others do are left out. Default: all.
    """
    log_p = np.maximum(log_p, np.log(SMALLEST))
    if mergeable is not None:
        log_p[0, ~mergeable] = -np.inf
    n = log_p.shape[1]
    visited = list(_all(n)) if n <= EXACT_UP_TO else _climb(log_p)
    scores = np.array([_score(labels, log_p) for labels in visited]) * (2.0 / n)
    visited = [labels for labels, score in zip(visited, scores, strict=True) if np.isfinite(score)]
    scores = scores[np.isfinite(scores)]
    order = np.argsort(-scores, kind="stable")
    probability = np.exp(scores - scores.max())
    probability /= probability.sum()
    kind = dict.fromkeys(("merge", "weight", "decouple", "mixed"), 0.0)
    for labels, p in zip(visited, probability, strict=True):
        kind[kind_of(labels)] += float(p)
    return Ranked([visited[i] for i in order], probability[order], kind)


def kind_of(labels: Labels) -> str:
    """What an arrangement says of the whole set."""
    trunks = {trunk for trunk, _ in labels}
    heads = set(labels)
    if len(heads) == 1:
        return "merge"
    if len(trunks) == len(labels):
        return "decouple"
    return "weight" if len(trunks) == 1 and len(heads) == len(labels) else "mixed"


def name(labels: Labels, names: Sequence[str], sign: np.ndarray) -> Arrangement:
    """Labels as an arrangement.

    Parameters
    ----------
    sign : ndarray, shape (T, T)
        Sign of the correlation of each pair of functions: tells which tasks of a head are flipped.
    """
    trunks: dict[int, dict[int, list[int]]] = {}
    for t, (trunk, head) in enumerate(labels):
        trunks.setdefault(trunk, {}).setdefault(head, []).append(t)
    flipped = frozenset(
        names[t]
        for heads in trunks.values()
        for members in heads.values()
        for t in members[1:]
        if sign[members[0], t] < 0
    )
    return Arrangement(
        tuple(tuple(tuple(names[t] for t in members) for members in heads.values()) for heads in trunks.values()),
        flipped,
    )


def labels_of(arrangement: Arrangement, names: Sequence[str]) -> Labels:
    """Trunk and head of each task."""
    place = {
        own: (i, j) for i, trunk in enumerate(arrangement.trunks) for j, head in enumerate(trunk) for own in head
    }
    return tuple(place[own] for own in names)


def codes(labels: Labels) -> np.ndarray:
    """For every two tasks what they are to each other, as the position in `RELATIONS`, ``T × T``."""
    trunk, head = np.array(labels).T
    together = trunk[:, None] == trunk
    return np.where(together & (head[:, None] == head), 0, np.where(together, 1, 2))


def _score(labels: Labels, log_p: np.ndarray) -> float:
    code = codes(labels)
    i, j = np.triu_indices(len(labels), 1)
    return float(log_p[code[i, j], i, j].sum())


def partitions(n: int) -> Iterator[tuple[int, ...]]:
    """Set partitions of n things as restricted growth strings."""

    def grow(prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(prefix) == n:
            yield prefix
            return
        for block in range(max(prefix, default=-1) + 2):
            yield from grow((*prefix, block))

    return grow(())


def _all(n: int) -> Iterator[Labels]:
    """Every partition into heads, and every partition of those heads into trunks."""
    for heads in partitions(n):
        for trunks in partitions(max(heads) + 1):
            yield tuple((trunks[head], head) for head in heads)


def _climb(log_p: np.ndarray) -> list[Labels]:
    """Arrangements met while joining greedily from all apart, then moving single tasks while that helps."""
    n = log_p.shape[1]
    now: Labels = tuple((t, t) for t in range(n))
    best = _score(now, log_p)
    seen = {now: best}
    while True:
        for labels in _neighbours(now):
            if labels not in seen:
                seen[labels] = _score(labels, log_p)
        step = max(_neighbours(now), key=lambda labels: seen[labels])
        if seen[step] <= best + 1e-12:
            return list(seen)
        now, best = step, seen[step]


def _neighbours(labels: Labels) -> list[Labels]:
    """Arrangements one join of trunks or heads, or one move of a task, away (in canonical form)."""
    trunks = sorted({trunk for trunk, _ in labels})
    heads = sorted(set(labels))
    out: list[Labels] = []
    for i, a in enumerate(trunks):
        for b in trunks[i + 1 :]:
            out.append(_canonical(tuple((a if trunk == b else trunk, head) for trunk, head in labels)))
    for i, a_head in enumerate(heads):
        for b_head in heads[i + 1 :]:
            out.append(_canonical(tuple(a_head if own == b_head else own for own in labels)))
    fresh = max(head for _, head in labels) + 1
    for t in range(len(labels)):
        places = [*heads, *((trunk, fresh) for trunk in trunks), (max(trunks) + 1, fresh)]
        for place in places:
            if place != labels[t]:
                out.append(_canonical((*labels[:t], place, *labels[t + 1 :])))
    return out


def _canonical(labels: tuple[tuple[int, int], ...]) -> Labels:
    trunks: dict[int, int] = {}
    heads: dict[tuple[int, int], int] = {}
    for own in labels:
        trunks.setdefault(own[0], len(trunks))
        heads.setdefault(own, len(heads))
    return tuple((trunks[own[0]], heads[own]) for own in labels)
