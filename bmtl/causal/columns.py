"""What local scores see of tasks: the rows on which all are observed, standardised columns, and groups of inputs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from bmtl import _inputs, _outcomes
from bmtl._frames import listing, quoted
from bmtl.advice.features import Dictionary
from bmtl.causal.normal import PRECISION, log_evidence
from bmtl.causal.subsets import Array
from bmtl.errors import TaskError, TaskWarning
from bmtl.families import Family
from bmtl.tasks import Tasks

#: A task is an exact combination of others if this share of its variance, or less, is not theirs.
COLLINEAR = 1e-10
#: Fewer distinct values of an input than this have no curve to speak of.
FEWEST_VALUES = 5
N_CURVED = 3
CURVED_LEVEL = 2
#: Gain in log evidence of some task for which an input's curve is worth three more columns.
CURVE_PAYS = 5.0


@dataclass(frozen=True, eq=False)
class Columns:
    """Tasks on n common rows.

    Attributes
    ----------
    names : tuple of str
    families : tuple of Family
    rows : (n,) int array
        The rows of the tasks on which every task is observed.
    z : (n, T) array
        Standardised outcomes, as they enter their effects: logs of a lognormal task, else as they are observed.
    y, exposure : (n, T) arrays
        Outcomes and exposures in the user's units.
    own : (n, T) bool array
        Cells that are to be explained: those that nobody set from outside.
    inputs : tuple of (n, q) arrays
        Groups of columns of about unit variance: what one input can do to a task, all of it or nothing.
    input_names : tuple of str
        Names of the groups.
    """

    names: tuple[str, ...]
    families: tuple[Family, ...]
    rows: NDArray[np.int64]
    z: Array
    y: Array
    exposure: Array
    own: NDArray[np.bool_]
    inputs: tuple[Array, ...]
    input_names: tuple[str, ...]

    @property
    def n_tasks(self) -> int:
        return len(self.names)


def columns(tasks: Tasks, most_groups: int) -> Columns:
    """Tasks as local scores see them.

    Parameters
    ----------
    tasks : Tasks
    most_groups : int
        Groups of inputs at the most; of more, those of least use to any task become one group.

    Raises
    ------
    TaskError
        If tasks do not share rows, have several linear predictors, are constant or an exact linear combination of
        each other, or too few rows have them all.

    Warns
    -----
    TaskWarning
        If rows are left out because a task is missing there.
    """
    tasks.require(2, "a posterior over graphs")
    if tasks.layout != "wide":
        raise TaskError("tasks made from groups of rows are not observed together: no edge between them can be learned")
    several = [name for name, own in zip(tasks.names, tasks.families, strict=True) if own.n_predictors > 1]
    if several:
        raise TaskError(f"categorical tasks cannot be part of a graph yet: {quoted(several)}")
    rows = reduce(np.intersect1d, tasks.rows)
    needed = tasks.n_tasks + 3
    counts = listing(f"{name!r} {n}" for name, n in zip(tasks.names, tasks.n_cells, strict=True))
    if len(rows) < needed:
        raise TaskError(f"only {len(rows)} rows have all {tasks.n_tasks} tasks, {needed} are needed (cells: {counts})")
    if len(rows) < tasks.n_rows:
        what = f"{len(rows)} of {tasks.n_rows} rows have all tasks; the others are left out (cells: {counts})"
        warnings.warn(what, TaskWarning, stacklevel=3)
    at = [np.searchsorted(own, rows) for own in tasks.rows]
    y = np.column_stack([own[i] for own, i in zip(tasks.y, at, strict=True)])
    of = zip(tasks.families, y.T, tasks.names, strict=True)
    z = np.column_stack([_standardised(family, own, name) for family, own, name in of])
    _reject_collinear(z, tasks.names)
    own = np.ones(y.shape, dtype=bool)
    for t, marks in enumerate(tasks.intervened):
        own[:, t] = ~marks[at[t]]
    few = [name for name, n in zip(tasks.names, own.sum(axis=0), strict=True) if n < _inputs.MIN_CELLS]
    if few:
        raise TaskError(f"on the rows that have all tasks, next to all cells are intervened of {quoted(few)}")
    groups, names = _grouped(tasks, rows, z, own, most_groups)
    return Columns(
        tasks.names, tasks.families, rows, z, y,
        np.column_stack([e[i] for e, i in zip(tasks.exposure, at, strict=True)]), own, groups, names,
    )


def _standardised(family: Family, y: Array, name: str) -> Array:
    located = family.gaussian_scale(y)
    values = y if located is None else located
    if _inputs.is_constant(values):
        raise TaskError(f"task {name!r} is constant on the {len(y)} rows that have all tasks")
    mean, sd = _inputs.mean_and_sd(values)
    centre, scale = _outcomes.outcome_scale(family, y) if family.name == "student_t" else (float(mean), float(sd))
    return (values - centre) / scale


def _reject_collinear(z: Array, names: tuple[str, ...]) -> None:
    """Raise `TaskError` if tasks are an exact linear combination of each other."""
    centred = (z - z.mean(axis=0)) / z.std(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(z))
    null = vectors[:, values <= COLLINEAR]
    if null.size:
        # A null vector of fewest tasks: those that one of them, chosen by pivoting, is a combination of.
        share = np.abs(_sparsest(null))
        which = np.flatnonzero(share > 1e-4 * share.max())
        raise TaskError(
            f"tasks are an exact linear combination of each other: {quoted([names[t] for t in which], shown=20)}; "
            "leave one of them out"
        )


def _sparsest(null: Array) -> Array:
    """The vector with the fewest entries of the echelon form of a null space (T, k)."""
    rest = null.T.copy()
    for i in range(len(rest)):
        pivot = int(np.argmax(np.abs(rest[i])))
        rest[i] /= rest[i, pivot]
        for j in range(len(rest)):
            if j != i:
                rest[j] -= rest[j, pivot] * rest[i]
    sizes = np.sum(np.abs(rest) > 1e-4 * np.abs(rest).max(axis=1, keepdims=True), axis=1)
    found: Array = rest[np.argmin(sizes)]
    return found


def _grouped(
    tasks: Tasks, rows: NDArray[np.int64], z: Array, own: NDArray[np.bool_], most: int
) -> tuple[tuple[Array, ...], tuple[str, ...]]:
    """Groups of columns, one an input column of the user's (with all its levels, and its curve where that pays)."""
    found: dict[str, Array] = {}
    dictionary = Dictionary(tasks.Z[rows])
    linear = tasks.Z[rows] - tasks.Z[rows].mean(axis=0)
    for column in tasks.encoder.columns:
        kept = [j for j, name in enumerate(tasks.inputs) if name in column.encoded]
        if kept:
            found[column.name] = linear[:, kept]

    def gain(block: Array, beside: list[Array]) -> float:
        """The most that a block adds to the log evidence of a task."""
        return max(_gain(z[cells, t], [x[cells] for x in beside], block[cells]) for t, cells in enumerate(own.T))

    curved = {}
    for name, block in found.items():
        if block.shape[1] == 1 and len(np.unique(block)) >= FEWEST_VALUES:
            curve = _curve(dictionary, tasks.inputs.index(name))
            if gain(curve, list(found.values())) > CURVE_PAYS:
                curved[name] = np.hstack([block, curve])
    found |= curved
    if len(found) <= most:
        return tuple(found.values()), tuple(found)
    use = {}
    for name, block in found.items():
        others = [x for other, x in found.items() if other != name]
        use[name] = max(gain(block, []), gain(block, others))
    first = sorted(found, key=lambda name: -use[name])[: most - 1]
    last = [name for name in found if name not in first]
    joined = np.hstack([found[name] for name in last])
    return (*(found[name] for name in first), joined), (*first, " + ".join(last))


def _curve(dictionary: Dictionary, j: int) -> Array:
    """The leading smooth functions of one input that are not linear in it, (n, ≤ 3), of unit variance."""
    phi, values = dictionary.factor(j, CURVED_LEVEL)
    x = np.column_stack([np.ones(len(phi)), dictionary.Z[:, j]])
    curved = phi * np.sqrt(values)
    curved = curved - x @ np.linalg.lstsq(x, curved, rcond=None)[0]
    left, size, _ = np.linalg.svd(curved, full_matrices=False)
    kept = left[:, : int(np.sum(size[:N_CURVED] > 1e-6 * size[0]))]
    return kept * np.sqrt(len(phi))


def _gain(z: Array, given: list[Array], block: Array) -> float:
    """Gain in the log evidence of one task from a block of columns beside others that are given."""

    def evidence(blocks: list[Array]) -> float:
        X = np.hstack([np.empty((len(z), 0)), *blocks])
        return log_evidence(z, X, np.array([PRECISION * x.shape[1] for x in blocks for _ in range(x.shape[1])]))

    return evidence([*given, block]) - evidence(given)
