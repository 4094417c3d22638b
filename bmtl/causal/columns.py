"""What local scores see of tasks: the rows on which all are observed, and standardised columns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from bmtl import _inputs, _outcomes
from bmtl._frames import listing, quoted
from bmtl.causal.inputs import Group, grouped, together
from bmtl.causal.subsets import Array
from bmtl.errors import TaskError, TaskWarning
from bmtl.families import Family, Tailed
from bmtl.tasks import Tasks

#: A task is an exact combination of others if this share of its variance, or less, is not theirs.
COLLINEAR = 1e-10


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
    centre, scale : (T,) arrays
        Of outcomes as they enter their effects: z = (value − centre) / scale.
    own : (n, T) bool array
        Cells that are to be explained: those that nobody set from outside.
    inputs : tuple of (n, q) arrays
        Groups of columns of about unit variance: what one input can do to a task, all of it or nothing.
    input_names : tuple of str
        Names of the groups.
    groups : tuple of Group
        What the columns of each group are at other inputs.
    together : tuple of T tuples of tuples of int
        For each task the groups that act on it together or not at all; see `bmtl.causal.inputs.together`.
    """

    names: tuple[str, ...]
    families: tuple[Family, ...]
    rows: NDArray[np.int64]
    z: Array
    y: Array
    exposure: Array
    centre: Array
    scale: Array
    own: NDArray[np.bool_]
    inputs: tuple[Array, ...] = ()
    input_names: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    together: tuple[tuple[tuple[int, ...], ...], ...] = ()

    @property
    def n_tasks(self) -> int:
        return len(self.names)

    @cached_property
    def unit(self) -> Array:
        """The unit of each task's linear predictor, (T,): its scale where that is one of location, else 1."""
        located = [is_located(family, y) for family, y in zip(self.families, self.y.T, strict=True)]
        return np.where(located, self.scale, 1.0)

    @cached_property
    def design(self) -> Array:
        """All columns of inputs, (n, P)."""
        return np.hstack([np.empty((len(self.rows), 0)), *self.inputs])


def columns(tasks: Tasks, most_groups: int) -> Columns:
    """Tasks as local scores see them.

    Parameters
    ----------
    tasks : Tasks
    most_groups : int
        Groups of inputs at the most that act on a task each by itself.

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
    check(tasks)
    rows = complete(tasks)
    needed = tasks.n_tasks + 3
    counts = listing(f"{name!r} {n}" for name, n in zip(tasks.names, tasks.n_cells, strict=True))
    if len(rows) < needed:
        raise TaskError(f"only {len(rows)} rows have all {tasks.n_tasks} tasks, {needed} are needed (cells: {counts})")
    if len(rows) < tasks.n_rows:
        what = f"{len(rows)} of {tasks.n_rows} rows have all tasks; the others are left out (cells: {counts})"
        warnings.warn(what, TaskWarning, stacklevel=3)
    found = outcomes(tasks, rows)
    _reject_collinear(found.z, tasks.names)
    few = [name for name, n in zip(tasks.names, found.own.sum(axis=0), strict=True) if n < _inputs.MIN_CELLS]
    if few:
        raise TaskError(f"on the rows that have all tasks, next to all cells are intervened of {quoted(few)}")
    groups, blocks = grouped(tasks, rows, found.z, found.own)
    return replace(
        found, inputs=blocks, input_names=tuple(group.name for group in groups), groups=groups,
        together=together(blocks, found.z, found.own, most_groups),
    )


def check(tasks: Tasks) -> None:
    """Raise `TaskError` if there can be no graph of these tasks."""
    tasks.require(2, "a posterior over graphs")
    if tasks.layout != "wide":
        raise TaskError("tasks made from groups of rows are not observed together: no edge between them can be learned")
    several = [name for name, own in zip(tasks.names, tasks.families, strict=True) if own.n_predictors > 1]
    if several:
        raise TaskError(f"categorical tasks cannot be part of a graph yet: {quoted(several)}")


def complete(tasks: Tasks) -> NDArray[np.int64]:
    """The rows on which every task is observed."""
    return reduce(np.intersect1d, tasks.rows)


def outcomes(tasks: Tasks, rows: NDArray[np.int64]) -> Columns:
    """Tasks on rows that have them all, without their inputs.

    Raises
    ------
    TaskError
        If a task is constant there.
    """
    at = [np.searchsorted(own, rows) for own in tasks.rows]
    y = np.column_stack([own[i] for own, i in zip(tasks.y, at, strict=True)])
    of = zip(tasks.families, y.T, tasks.names, strict=True)
    values, centre, scale = zip(*(_located(family, own, name) for family, own, name in of), strict=True)
    exposure = np.column_stack([e[i] for e, i in zip(tasks.exposure, at, strict=True)])
    own = np.ones(y.shape, dtype=bool)
    for t, marks in enumerate(tasks.intervened):
        own[:, t] = ~marks[at[t]]
    z = (np.column_stack(values) - centre) / scale
    return Columns(tasks.names, tasks.families, rows, z, y, exposure, np.array(centre), np.array(scale), own)


def is_located(family: Family, y: Array) -> bool:
    """Whether outcomes, or their logarithms, are the linear predictor plus noise."""
    return family.gaussian_scale(y) is not None or isinstance(family, Tailed)


def _located(family: Family, y: Array, name: str) -> tuple[Array, float, float]:
    """Outcomes as they enter their effects, and their centre and scale."""
    values = family.entering(np, y)
    if _inputs.is_constant(values):
        raise TaskError(f"task {name!r} is constant on the {len(y)} rows that have all tasks")
    mean, sd = _inputs.mean_and_sd(values)
    centre, scale = _outcomes.outcome_scale(family, y) if isinstance(family, Tailed) else (float(mean), float(sd))
    return values, centre, scale


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
