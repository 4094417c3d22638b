"""The search for identities among outcomes: copies, rescaled copies and sums of others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bmtl._frames import Array
from bmtl._inputs import EPS, Index, is_constant

# Identities are looked for on at least this many rows where all outcomes in them are observed.
MIN_COMMON = 10

# Sums of three others are looked for among at most this many outcomes (the search grows with its fourth power).
MAX_TRIPLES = 40


def identities(names: tuple[str, ...], Y: Array) -> list[str]:
    """Outcomes that are exactly copies, rescaled copies or sums of two or three others, in words.

    Parameters
    ----------
    names : tuple of str
        The T tasks.
    Y : array of shape (rows, T)
        Outcomes in the user's units, NaN where not observed. Each identity holds on all the rows, at least
        `MIN_COMMON`, where the outcomes in it are observed.
    """
    notes = []
    for a, b in combinations(range(len(names)), 2):
        line = _line(Y[:, a], Y[:, b])
        if line is not None:
            slope, offset = line
            factor = "" if slope == 1 else "-" if slope == -1 else f"{slope:.6g} × "
            shift = "" if offset == 0 else f" {'+' if offset > 0 else '-'} {abs(offset):.6g}"
            notes.append(f"{names[b]!r} is exactly {factor}{names[a]!r}{shift}")
    for total, parts in _sums(Y):
        notes.append(f"{names[total]!r} is exactly {' + '.join(repr(names[part]) for part in parts)}")
    return notes


def _line(x: Array, y: Array) -> tuple[float, float] | None:
    """Slope and offset of y on x where every common point lies on one line, else None."""
    common = ~(np.isnan(x) | np.isnan(y))
    x, y = x[common], y[common]
    if x.size < MIN_COMMON or is_constant(x) or is_constant(y):
        return None
    low, high = np.argmin(x), np.argmax(x)
    slope = (y[high] - y[low]) / (x[high] - x[low])
    tolerance = 1e-9 * np.ptp(y) + 8 * EPS * (np.max(np.abs(y)) + abs(slope) * np.max(np.abs(x)))
    if not np.max(np.abs(y - y[low] - slope * (x - x[low]))) <= tolerance:
        return None
    if abs(slope - round(slope)) <= 1e-9:
        slope = float(round(slope))
    offset = y[low] - slope * x[low]
    return float(slope), 0.0 if abs(offset) <= tolerance else float(offset)


def _sums(Y: Array) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each (total, parts) in which one column is the sum of two or three others.

    Candidates are screened on the total's most complete rows and then verified on all rows, so that a sum of
    outcomes almost never observed together may go unnoticed.
    """
    observed = ~np.isnan(Y)
    common = observed.T.astype(np.float64) @ observed
    n_tasks = Y.shape[1]
    for total in range(n_tasks):
        others = [t for t in range(n_tasks) if t != total and common[t, total] >= MIN_COMMON]
        screen = _screening_rows(Y, observed, total)
        for size in (2, 3) if n_tasks <= MAX_TRIPLES else (2,):
            candidates = np.array(list(combinations(others, size)), dtype=np.int64).reshape(-1, size)
            for rows in (screen[:64], screen):
                candidates = candidates[_uncontradicted(Y[rows], total, candidates)]
            shared = observed[screen][:, total, None] & np.all(observed[screen][:, candidates], axis=2)
            for parts in candidates[np.sum(shared, axis=0) >= MIN_COMMON]:
                if _is_sum(Y, total, parts):
                    yield total, tuple(int(part) for part in parts)


def _screening_rows(Y: Array, observed: NDArray[np.bool_], total: int, half: int = 256) -> Index:
    """Rows on which to screen sums, the most complete first, alternating unusual and usual values of the total."""
    rows = np.flatnonzero(observed[:, total])
    rows = rows[np.argsort(-np.sum(observed[rows], axis=1), kind="stable")]
    # Mostly-zero outcomes agree with any sum on most rows; the rows away from the median tell them apart.
    unusual = Y[rows, total] != np.median(Y[rows, total])
    order = np.concatenate([np.arange(np.sum(unusual)), np.arange(np.sum(~unusual))])
    merged = np.concatenate([rows[unusual], rows[~unusual]])
    return merged[order < half][np.argsort(order[order < half], kind="stable")]


def _uncontradicted(Y: Array, total: int, candidates: Index) -> NDArray[np.bool_]:
    """For each candidate (a row of column indices), whether no row shows that its sum is not the total."""
    target = Y[:, [total]]
    summed, size = np.zeros((len(Y), len(candidates))), np.abs(target)
    for column in candidates.T:
        summed = summed + Y[:, column]
        size = size + np.abs(Y[:, column])
    # Comparisons with NaN are false: rows with a missing outcome contradict nothing.
    return ~np.any(np.abs(summed - target) > 1e-9 * size, axis=0)


def _is_sum(Y: Array, total: int, parts: Index) -> bool:
    columns = Y[:, [total, *parts]]
    columns = columns[~np.any(np.isnan(columns), axis=1)]
    if any(is_constant(column) for column in columns.T):
        return False
    return bool(_uncontradicted(columns, 0, np.arange(1, columns.shape[1])[None, :])[0])
