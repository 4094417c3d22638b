"""Checks of the inputs and outcomes that users hand in, and the constants that standardise them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmtl import families as _families
from bmtl._frames import Array, Column, Encoder, at_rows, check_finite, listing, quoted, show
from bmtl.errors import TaskError
from bmtl.families import Family

Index = NDArray[np.int64]

EPS = float(np.finfo(np.float64).eps)

# Fewer observed outcomes than this say nothing about both a level and a slope.
MIN_CELLS = 3

# Identities among outcomes are looked for on at least this many rows where all of them are observed.
MIN_COMMON = 10

# Sums of three others are looked for among at most this many outcomes (the search grows with its fourth power).
MAX_TRIPLES = 40


def check_names(names: Iterable[Any], what: str) -> tuple[str, ...]:
    """The names as a tuple, after checking that they are strings, that there is one, and that none is repeated."""
    if isinstance(names, str):
        raise TaskError(f"{what}s must be a list of names, got the single string {names!r}")
    names = tuple(names)
    if not names:
        raise TaskError(f"no {what}s given")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TaskError(f"{what} names must be strings, got {listing(map(show, wrong))}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise TaskError(f"duplicate {what} names: {quoted(repeated)}")
    return names


def check_family(family: Any, task: str) -> Family:
    """The family of one task, from its name or as it is."""
    if not isinstance(family, (str, Family)):
        raise TaskError(f"the family of task {task!r} must be a name or a Family, got {show(family)}")
    try:
        return _families.get(family)
    except ValueError as error:
        raise TaskError(f"task {task!r}: {error}") from error


def check_importance(importance: Mapping[str, float] | Sequence[float] | None, names: tuple[str, ...]) -> Array:
    """One weight a task, from a mapping by task name (others weigh 1) or a sequence in task order."""
    if importance is None:
        return np.ones(len(names))
    if not isinstance(importance, Mapping):
        importance = list(importance)
        if len(importance) != len(names):
            raise TaskError(f"importance has {len(importance)} values for {len(names)} tasks")
        importance = dict(zip(names, importance, strict=True))
    reject_unknown(importance, names, "importance")
    weights = np.ones(len(names))
    for name, value in importance.items():
        if not (isinstance(value, (int, float, np.integer, np.floating)) and np.isfinite(value) and value > 0):
            raise TaskError(f"the importance of task {name!r} must be finite and > 0, got {show(value)}")
        weights[names.index(name)] = value
    return weights


def reject_unknown(given: Iterable[str], names: tuple[str, ...], what: str) -> None:
    """Raise `TaskError` if something given by task names an unknown task."""
    unknown = [name for name in given if name not in names]
    if unknown:
        raise TaskError(f"{what} names unknown tasks: {quoted(unknown)}; the tasks are {quoted(names, shown=20)}")


def reject_shared(what: str, names: Iterable[str], other: str, others: Sequence[str]) -> None:
    """Raise `TaskError` if a column is given two roles that exclude each other."""
    shared = [name for name in names if name in others]
    if shared:
        raise TaskError(f"{quoted(shared)} cannot be both {what} and {other}")


def as_matrix(values: Any, name: str, columns: str) -> Array:
    """A fresh float64 matrix; None and NaN become NaN.

    Raises
    ------
    TaskError
        If the values are not numbers, or not 2-D.
    """
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise TaskError(f"{name} must be 2-D (rows × {columns}): {error}") from error
    if raw.ndim != 2:
        raise TaskError(f"{name} must be 2-D (rows × {columns}), got shape {raw.shape}")
    if raw.dtype.kind not in "biuf":
        numeric = (int, float, np.number, np.bool_, type(None))
        bad = [at for at in np.ndindex(raw.shape) if not isinstance(raw[at], numeric) or np.iscomplexobj(raw[at])]
        if bad:
            cells = listing(f"row {row}, column {column} ({show(raw[row, column])})" for row, column in bad)
            raise TaskError(f"{name} has cells that are not numbers: {cells}")
    return np.array(raw, dtype=np.float64)


def check_arrays(
    X: Any, Y: Any, inputs: Sequence[str] | None, names: Sequence[str] | None
) -> tuple[Array, Array, tuple[str, ...], tuple[str, ...]]:
    """X (rows × d), Y (rows × T), and the d input and T task names, checked against each other."""
    X, Y = as_matrix(X, "X", "inputs"), as_matrix(Y, "Y", "tasks")
    if len(X) == 0 or len(Y) == 0:
        raise TaskError(f"no rows: X has {len(X)} and Y has {len(Y)}")
    if len(X) != len(Y):
        raise TaskError(f"X has {len(X)} rows but Y has {len(Y)}")
    inputs = check_names([f"x{j}" for j in range(X.shape[1])] if inputs is None else inputs, "input")
    names = check_names([f"y{t}" for t in range(Y.shape[1])] if names is None else names, "output")
    for what, given, expected in [("inputs", inputs, X.shape[1]), ("names", names, Y.shape[1])]:
        if len(given) != expected:
            raise TaskError(f"{what} has {len(given)} entries ({quoted(given)}) for {expected} columns")
    reject_shared("outcome", names, "input", inputs)
    for name, values in zip(inputs, X.T, strict=True):
        check_finite(name, values)
    return X, Y, inputs, names


def check_families(families: Any, names: tuple[str, ...]) -> tuple[Family, ...]:
    """One family a task, from their names or as they are."""
    if isinstance(families, (str, Family)):
        raise TaskError(f"families must be a list with one family a task, got the single family {families!r}")
    families = list(families)
    if len(families) != len(names):
        raise TaskError(f"families has {len(families)} entries for {len(names)} tasks ({quoted(names)})")
    return tuple(check_family(family, name) for family, name in zip(families, names, strict=True))


def check_groups(output: str, names: tuple[str, ...], counts: Index) -> None:
    """Raise `TaskError` if a group has too few observed outcomes."""
    small = [f"{name!r} ({count})" for name, count in zip(names, counts, strict=True) if count < MIN_CELLS]
    if small:
        raise TaskError(f"groups with fewer than {MIN_CELLS} observed outcomes of {output!r}: {listing(small)}")


def mean_and_sd(values: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (ddof=0) by column, without overflow or underflow of the squares."""
    largest = np.max(np.abs(values), axis=0)
    # A power of two, so that scaling by it is exact.
    unit = np.ldexp(1.0, np.frexp(np.where(largest > 0, largest, 1.0))[1] - 1)
    scaled = values / unit
    return unit * np.mean(scaled, axis=0), unit * np.std(scaled, axis=0)


def is_constant(values: Array) -> bool:
    """Whether the values differ by no more than rounding."""
    low, high = float(np.min(values)), float(np.max(values))
    return bool(high / 2 - low / 2 <= 4 * EPS * max(abs(low), abs(high)))


def distinct_inputs(X: Array, names: tuple[str, ...]) -> tuple[tuple[int, ...], list[str]]:
    """Positions of the inputs that are neither constant nor copies of an earlier one, and why others are not kept.

    Two inputs are copies if, standardised, they agree up to sign and rounding.
    """
    notes: dict[int, str] = {}
    for j, name in enumerate(names):
        if is_constant(X[:, j]):
            notes[j] = f"{name!r} is constant ({show(X[0, j])})"
    varying = [j for j in range(len(names)) if j not in notes]
    if not varying:
        return (), list(notes.values())
    centre, scale = mean_and_sd(X[:, varying])
    Z = (X[:, varying] - centre) / scale
    close = np.abs(Z.T @ Z) >= len(Z) * (1 - 1e-6)
    rounding = 4 * EPS * np.abs(centre) / scale
    for b in range(len(varying)):
        for a in range(b):
            if varying[a] in notes or not close[a, b]:
                continue
            sign = 1.0 if Z[:, a] @ Z[:, b] > 0 else -1.0
            if np.max(np.abs(Z[:, b] - sign * Z[:, a])) <= 1e-12 + rounding[a] + rounding[b]:
                notes[varying[b]] = _copy_note(X, names, varying[a], varying[b])
                break
    return tuple(j for j in varying if j not in notes), [notes[j] for j in sorted(notes)]


def _copy_note(X: Array, names: tuple[str, ...], original: int, copy: int) -> str:
    kind = "a copy" if np.array_equal(X[:, original], X[:, copy]) else "a rescaled copy"
    return f"{names[copy]!r} is {kind} of {names[original]!r}"


def keep_distinct(columns: tuple[Column, ...], raw: Array) -> tuple[Encoder, list[str]]:
    """The encoder of the `distinct_inputs` of the encoded columns ``raw``, and why others are not kept.

    Raises
    ------
    TaskError
        If every input is constant.
    """
    everything = Encoder(columns, ())
    # A single level has no indicator at all, and would otherwise vanish without a word.
    notes = [f"{c.name!r} is constant ({c.levels[0]!r})" for c in columns if not c.encoded]
    kept: tuple[int, ...] = ()
    if everything.encoded:
        kept, more = distinct_inputs(raw, check_names(everything.encoded, "encoded input"))
        notes += more
    if not kept:
        raise TaskError(f"no input is left: {listing(notes)}")
    return replace(everything, kept=kept), notes


def check_support(name: str, family: Family, y: Array, rows: Index) -> None:
    """Raise `TaskError` if an outcome is outside the family's support."""
    bad = np.flatnonzero(~family.valid(y))
    if bad.size:
        raise TaskError(
            f"outcome {name!r} has values that {family.name} does not allow ({family.support}): "
            f"{at_rows(rows[bad], y[bad])}"
        )


def check_task(name: str, family: Family, y: Array, rows: Index) -> None:
    """Raise `TaskError` unless one task's outcomes are enough, in the support, and not all the same."""
    if y.size < MIN_CELLS:
        raise TaskError(f"task {name!r} has {y.size} observed outcomes, needs at least {MIN_CELLS} ({at_rows(rows)})")
    check_support(name, family, y, rows)
    if is_constant(y):
        raise TaskError(f"outcome {name!r} is constant: all {y.size} observed values are {show(y[0])}")


def check_exposure(name: str, family: Family, exposure: Array, rows: Index) -> None:
    """Raise `TaskError` unless the family takes exposures and these, one a cell, are finite and > 0."""
    if not family.takes_exposure:
        raise TaskError(f"task {name!r} is {family.name}, which takes no exposure")
    bad = np.flatnonzero(~(np.isfinite(exposure) & (exposure > 0)))
    if bad.size:
        raise TaskError(
            f"the exposure of task {name!r} must be finite and > 0: {at_rows(rows[bad], exposure[bad])}"
        )


def exposure_columns(
    exposure: Any, names: tuple[str, ...], families: tuple[Family, ...], shape: tuple[int, ...]
) -> dict[str, Array]:
    """The columns of a (rows × tasks) matrix of exposures by task, without the blank ones of families that take none.

    One matrix serves all tasks, so those columns have to be something: NaN or 1.
    """
    exposure = as_matrix(exposure, "exposure", "tasks")
    if exposure.shape != shape:
        raise TaskError(f"exposure has shape {exposure.shape} but Y has shape {shape}")
    return {
        name: column
        for name, family, column in zip(names, families, exposure.T, strict=True)
        if family.takes_exposure or not np.all(np.isnan(column) | (column == 1))
    }


def wide_cells(
    names: tuple[str, ...], families: tuple[Family, ...], Y: Array, exposures: Mapping[str, Array]
) -> tuple[tuple[Index, ...], tuple[Array, ...], tuple[Array, ...]]:
    """Rows, outcomes and exposures of the observed cells of each task, checked, from Y (rows × tasks, NaN missing)."""
    rows = tuple(np.flatnonzero(~np.isnan(column)) for column in Y.T)
    y = tuple(column[r] for column, r in zip(Y.T, rows, strict=True))
    exposure = []
    for name, family, r, values in zip(names, families, rows, y, strict=True):
        check_task(name, family, values, r)
        if name in exposures:
            check_exposure(name, family, exposures[name][r], r)
        exposure.append(exposures[name][r] if name in exposures else np.ones(r.size))
    return rows, y, tuple(exposure)


def outcome_scale(family: Family, y: Array) -> tuple[float, float]:
    """Centre and scale of outcomes: 0 and 1 unless the family is standardised, robust for ``student_t``."""
    if not family.standardised:
        return 0.0, 1.0
    mean, sd = (float(value) for value in mean_and_sd(y))
    if family.name != "student_t":
        return mean, sd
    median = float(np.median(y))
    # 1.4826 makes the median absolute deviation estimate the standard deviation of a gaussian.
    scale = 1.4826 * float(np.median(np.abs(y - median)))
    return median, scale if scale > 0 else sd


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
