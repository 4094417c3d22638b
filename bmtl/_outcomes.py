"""Outcomes as users hand them in: reading labels as codes, checking every cell, and constants that standardise them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmtl import _frames
from bmtl._frames import Array, Frame, at_rows, listing, quoted, show
from bmtl._inputs import MIN_CELLS, Index, as_matrix, is_constant, mean_and_sd, reject_unknown
from bmtl.errors import TaskError
from bmtl.families import Family, Labelled, Tailed

if TYPE_CHECKING:
    from bmtl.tasks import Tasks

Cells = tuple[tuple[Index, ...], tuple[Array, ...], tuple[Array, ...]]
"""Rows, outcomes and exposures of the observed cells of each task."""


def read(frame: Frame, name: str, family: Family) -> tuple[Family, Array]:
    """One outcome column as numbers, NaN where missing, and its family, with the labels if it has any.

    Raises
    ------
    TaskError
        If cells are not numbers, or for a labelled family not labels or not those of the family; if the family has
        to take its labels from the column and they are fewer than three, never occur, or have no order that is needed.
    """
    if not isinstance(family, Labelled):
        return family, _frames.read_numbers(frame, name, "outcome")
    cells, found, ordered = _frames.read_categories(frame, name, "outcome")
    if not family.labels:
        if family.ordered and not ordered:
            raise TaskError(
                f"outcome {name!r} is {family.name}, but its column of text has no order: give "
                f"{_call(family, found)} with the {family.field} in ascending order, or an ordered categorical column"
            )
        family = _with_labels(name, family, found, set(cells))
    position: dict[str | None, float] = {label: float(code) for code, label in enumerate(family.labels)}
    position[None] = np.nan
    unknown = [row for row, cell in enumerate(cells) if cell not in position]
    if unknown:
        raise TaskError(
            f"outcome {name!r} has labels that are none of its {family.field}: "
            f"{at_rows(unknown, [cells[row] for row in unknown])}; known: {quoted(family.labels, shown=20)}"
        )
    return family, np.array([position[cell] for cell in cells])


def read_all(frame: Frame, names: Sequence[str], families: Sequence[Family]) -> tuple[tuple[Family, ...], Array]:
    """Several outcome columns by `read`: their families, and the outcomes (rows × tasks)."""
    found = [read(frame, name, family) for name, family in zip(names, families, strict=True)]
    return tuple(family for family, _ in found), np.column_stack([values for _, values in found])


def from_codes(name: str, family: Family, y: Array, rows: Index) -> Family:
    """The family of observed outcomes that are numbers; of a labelled one without labels, the codes become labels."""
    if not isinstance(family, Labelled) or family.labels or y.size < MIN_CELLS:
        return family
    check_support(name, family, y, rows)
    labels = tuple(str(code) for code in range(int(np.max(y)) + 1))
    return _with_labels(name, family, labels, {str(int(code)) for code in np.unique(y)})


def _with_labels(name: str, family: Labelled, labels: Sequence[str], seen: set[Any]) -> Labelled:
    never = [label for label in labels if label not in seen]
    if never:
        raise TaskError(
            f"outcome {name!r} has {family.field} that never occur: {quoted(never)}; if they are meant, give "
            f"{_call(family, labels)}"
        )
    try:
        return family.labelled(labels)
    except ValueError as error:
        raise TaskError(f"outcome {name!r}: {error}") from error


def _call(family: Labelled, labels: Sequence[str]) -> str:
    return f"{type(family).__name__}({family.field}=({listing(map(repr, labels))}))"


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


def check_exposure(name: str, family: Family, y: Array, exposure: Array | None, rows: Index) -> Array:
    """The exposures of one task's cells, ones where there are none.

    Raises
    ------
    TaskError
        If the family takes none, needs some, or these are not allowed.
    """
    if exposure is None:
        if family.needs_exposure:
            raise TaskError(f"task {name!r} is {family.name} and needs an exposure: {family.exposures}")
        return np.ones(y.size)
    if not family.takes_exposure:
        raise TaskError(f"task {name!r} is {family.name}, which takes no exposure")
    bad = np.flatnonzero(~family.valid_exposure(y, exposure))
    if bad.size:
        raise TaskError(
            f"the exposure of task {name!r} must be {family.exposures}: {at_rows(rows[bad], exposure[bad])}"
        )
    return exposure


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


def _intervened_rows(
    given: Any, names: tuple[str, ...], n_rows: int, frame: Frame | None
) -> dict[str, NDArray[np.bool_]]:
    """For each task named, or in a matrix (rows × tasks or its transpose), which rows it was set on from outside."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        marks = np.asarray(given)
        if marks.shape not in {(n_rows, len(names)), (len(names), n_rows)}:
            raise TaskError(
                f"intervened needs a mask of shape {(n_rows, len(names))} or {(len(names), n_rows)}, or a mapping "
                f"from task to mask, got shape {marks.shape}"
            )
        given = dict(zip(names, marks.T if marks.shape == (n_rows, len(names)) else marks, strict=True))
    reject_unknown(given, names, "intervened")
    out = {}
    for task, marks in given.items():
        if isinstance(marks, str):
            if frame is None:
                raise TaskError(f"intervened of task {task!r} must be a mask, got the name {marks!r}")
            _frames.require_columns(frame, [marks])
            marks = _frames.read_numbers(frame, marks, "intervened")
        values = np.asarray(marks)
        if values.shape != (n_rows,):
            raise TaskError(f"intervened of task {task!r} needs {n_rows} booleans, got shape {values.shape}")
        bad = [row for row, value in enumerate(values.tolist()) if value not in (0, 1)]
        if bad:
            raise TaskError(
                f"intervened of task {task!r} must be true or false: {at_rows(bad, [values[row] for row in bad])}"
            )
        out[task] = values.astype(bool)
    return out


def intervened_cells(
    given: Any, names: tuple[str, ...], rows: tuple[Index, ...], n_rows: int, frame: Frame | None = None
) -> tuple[NDArray[np.bool_], ...]:
    """For each task which of its cells were set from outside, empty if none was.

    Parameters
    ----------
    given : mapping of str to str or mask, or mask of shape (n_rows, T) or (T, n_rows), or None

    Raises
    ------
    TaskError
        If a task is unknown, a column is missing, marks are not one boolean a row, or all cells of a task are marked.
    """
    masks = _intervened_rows(given, names, n_rows, frame)
    marks = tuple(
        masks[name][r] if name in masks else np.zeros(r.size, dtype=bool) for name, r in zip(names, rows, strict=True)
    )
    for name, own in zip(names, marks, strict=True):
        if np.all(own):
            raise TaskError(f"every cell of task {name!r} is intervened: nothing is left to explain; make it an input")
    return marks if any(np.any(own) for own in marks) else ()


def wide_cells(
    names: tuple[str, ...], families: tuple[Family, ...], Y: Array, exposures: Mapping[str, Array]
) -> tuple[tuple[Family, ...], Cells]:
    """Families, and the observed cells of each task, checked, from Y (rows × tasks, NaN missing)."""
    rows = tuple(np.flatnonzero(~np.isnan(column)) for column in Y.T)
    y = tuple(column[r] for column, r in zip(Y.T, rows, strict=True))
    known, exposure = [], []
    for name, family, r, values in zip(names, families, rows, y, strict=True):
        known.append(from_codes(name, family, values, r))
        check_task(name, known[-1], values, r)
        given = exposures[name][r] if name in exposures else None
        exposure.append(check_exposure(name, known[-1], values, given, r))
    return tuple(known), (rows, y, tuple(exposure))


def group_cells(
    output: str, names: tuple[str, ...], codes: Index, family: Family, values: Array, exposure: Array | None
) -> Cells:
    """The observed cells of each group, checked, from one outcome and one group's code a row."""
    cells = np.flatnonzero(~np.isnan(values))
    counts = np.bincount(codes[cells], minlength=len(names))
    empty = [f"{name!r}" for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        raise TaskError(f"groups without an observed outcome of {output!r}: {listing(empty)}")
    check_task(output, family, values[cells], cells)
    exposures = np.ones(len(values))
    exposures[cells] = check_exposure(
        output, family, values[cells], None if exposure is None else exposure[cells], cells
    )
    by_group = cells[np.argsort(codes[cells], kind="stable")]
    rows = tuple(np.split(by_group, np.cumsum(counts)[:-1]))
    return rows, tuple(values[r] for r in rows), tuple(exposures[r] for r in rows)


def new_exposures(tasks: Tasks, exposure: Any, n: int) -> Array:
    """Exposures (tasks × n rows) to predict at, from a number, one a row, or either by task; ones if not given.

    Raises
    ------
    TaskError
        If a task is unknown or takes no exposure, or cannot have these.
    """
    by_task = isinstance(exposure, Mapping)
    given = exposure if by_task else {
        name: exposure for name, family in zip(tasks.names, tasks.families, strict=True) if family.takes_exposure
    }
    reject_unknown(given, tasks.names, "exposure")
    out = np.ones((tasks.n_tasks, n))
    for name, values in given.items():
        t = tasks.index(name)
        out[t] = values
        check_exposure(name, tasks.families[t], np.zeros(n), out[t], np.arange(n))
    return out


def outcome_scale(family: Family, y: Array) -> tuple[float, float]:
    """Centre and scale of outcomes: 0 and 1 unless the family is standardised, robust where tails are heavy."""
    if not family.standardised:
        return 0.0, 1.0
    mean, sd = (float(value) for value in mean_and_sd(y))
    if not isinstance(family, Tailed):
        return mean, sd
    median = float(np.median(y))
    # 1.4826 makes the median absolute deviation estimate the standard deviation of a gaussian.
    scale = 1.4826 * float(np.median(np.abs(y - median)))
    return median, scale if scale > 0 else sd
