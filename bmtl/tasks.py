"""Tasks: outcomes to be modelled together, and the inputs they share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bmtl import _frames, _inputs
from bmtl._frames import Array, Column, Encoder, listing, quoted
from bmtl._inputs import Index
from bmtl.errors import TaskError, TaskWarning
from bmtl.families import FAMILIES, Family

# Tasks shown by repr, and notes in one warning, before they are cut.
SHOWN_TASKS = 20
SHOWN_NOTES = 10


@final
@dataclass(frozen=True, eq=False, repr=False)
class Tasks:
    """Outcomes to be modelled together, checked and standardised, and the inputs they share.

    Make one with `from_frame`, `from_arrays` or `from_groups`. Arrays are read-only. A *cell* is one observed
    outcome of one task.

    Attributes
    ----------
    names : tuple of str
        The T tasks.
    families : tuple of Family
        The likelihood of each task.
    inputs : tuple of str
        The d encoded inputs, without those dropped as constant or copies.
    X : array of shape (n_rows, d)
        Encoded inputs in the user's units.
    x_centre, x_scale : arrays of shape (d,)
        Mean and standard deviation (ddof=0) of the inputs, in the user's units.
    rows : tuple of int arrays
        For each task the row of each cell, ascending.
    y : tuple of arrays
        For each task the outcome of each cell, in the user's units.
    exposure : tuple of arrays
        For each task the exposure of each cell, in the user's units; ones where none was given.
    importance : array of shape (T,)
        Weight of each task.
    y_centre, y_scale : arrays of shape (T,)
        Constants that standardise the outcomes, in the user's units; 0 and 1 for families that are not standardised.
    layout : {"wide", "long"}
        Whether rows carry every task's outcome, or each row belongs to one task.
    encoder : Encoder
        How a frame becomes `X`.
    """

    names: tuple[str, ...]
    families: tuple[Family, ...]
    inputs: tuple[str, ...]
    X: Array
    x_centre: Array
    x_scale: Array
    rows: tuple[Index, ...]
    y: tuple[Array, ...]
    exposure: tuple[Array, ...]
    importance: Array
    y_centre: Array
    y_scale: Array
    layout: Literal["wide", "long"]
    encoder: Encoder

    def __post_init__(self) -> None:
        for name in ("X", "x_centre", "x_scale", "importance", "y_centre", "y_scale"):
            object.__setattr__(self, name, _read_only(getattr(self, name), np.float64))
        object.__setattr__(self, "rows", tuple(_read_only(rows, np.int64) for rows in self.rows))
        for name in ("y", "exposure"):
            object.__setattr__(self, name, tuple(_read_only(values, np.float64) for values in getattr(self, name)))

    @classmethod
    def from_frame(
        cls,
        df: Any,
        inputs: Sequence[str],
        outputs: Mapping[str, str | Family],
        importance: Mapping[str, float] | None = None,
        exposure: Mapping[str, str] | None = None,
    ) -> Tasks:
        """Tasks from a data frame with one row a unit and one column an outcome.

        Parameters
        ----------
        df : pandas or polars data frame
            Lazy frames are collected. Missing outcomes (null or NaN) are cells not observed.
        inputs : sequence of str
            Input columns. Booleans become 0 and 1; strings and categories become indicators ``name[level]`` of
            every level but the first (sorted, or in the order of the categories).
        outputs : mapping of str to str or Family
            The family of each outcome column; each is one task.
        importance : mapping of str to float, optional
            Weight of each task, > 0; 1 for those not named.
        exposure : mapping of str to str, optional
            For a task of counts the column with its exposures, > 0, in any unit.

        Raises
        ------
        TaskError
            If an input has missing or infinite values, an outcome is constant, outside its family's support or
            observed fewer than 3 times, or names do not fit the frame or each other.

        Warns
        -----
        TaskWarning
            If inputs are dropped because they are constant or copies of others, or an outcome is exactly a copy or
            a sum of others.
        """
        frame = _frames.read(df)
        inputs = _inputs.check_names(inputs, "input")
        if not isinstance(outputs, Mapping):
            raise TaskError(f"outputs must map each outcome column to its family, got {type(outputs).__name__}")
        names = _inputs.check_names(outputs, "output")
        families = tuple(_inputs.check_family(outputs[name], name) for name in names)
        exposure = dict(exposure or {})
        _inputs.reject_unknown(exposure, names, "exposure")
        _inputs.reject_shared("outcome", names, "input", inputs)
        _inputs.reject_shared("exposure column", exposure.values(), "outcome", names)
        _frames.require_columns(frame, [*inputs, *names, *exposure.values()])
        Y = np.column_stack([_frames.read_numbers(frame, name, "outcome") for name in names])
        exposures = {task: _frames.read_numbers(frame, column, "exposure") for task, column in exposure.items()}
        columns = tuple(Column.fit(frame, name) for name in inputs)
        raw = np.column_stack([column.encode(frame) for column in columns])
        cells = _inputs.wide_cells(names, families, Y, exposures)
        return cls._assemble(
            columns, raw, names, families, *cells, _inputs.check_importance(importance, names),
            related=_inputs.identities(names, Y),
        )

    @classmethod
    def from_arrays(
        cls,
        X: Any,
        Y: Any,
        families: Sequence[str | Family],
        names: Sequence[str] | None = None,
        inputs: Sequence[str] | None = None,
        importance: Mapping[str, float] | Sequence[float] | None = None,
        exposure: Any = None,
    ) -> Tasks:
        """Tasks from a matrix of inputs and a matrix of outcomes.

        Parameters
        ----------
        X : array of shape (rows, d)
            Inputs, in any units.
        Y : array of shape (rows, T)
            Outcomes, in any units; NaN where not observed.
        families : sequence of str or Family
            The family of each of the T tasks.
        names : sequence of str, optional
            Names of the tasks; ``y0``, ``y1``, … if not given.
        inputs : sequence of str, optional
            Names of the inputs; ``x0``, ``x1``, … if not given.
        importance : mapping of str to float, or sequence of T floats, optional
            Weight of each task, > 0.
        exposure : array of shape (rows, T), optional
            Exposures, > 0 where the outcome is observed; NaN or 1 for families that take none.

        Raises
        ------
        TaskError
            As `from_frame`, and if shapes do not match.

        Warns
        -----
        TaskWarning
            As `from_frame`.
        """
        X, Y, inputs, names = _inputs.check_arrays(X, Y, inputs, names)
        checked = _inputs.check_families(families, names)
        exposures = {} if exposure is None else _inputs.exposure_columns(exposure, names, checked, Y.shape)
        cells = _inputs.wide_cells(names, checked, Y, exposures)
        return cls._assemble(
            tuple(Column(name, "number") for name in inputs), X, names, checked, *cells,
            _inputs.check_importance(importance, names), related=_inputs.identities(names, Y),
        )

    @classmethod
    def from_groups(
        cls,
        df: Any,
        inputs: Sequence[str],
        output: str,
        group: str,
        family: str | Family,
        exposure: str | None = None,
    ) -> Tasks:
        """Tasks from a data frame with one outcome column: each group of rows is one task.

        The outcome has the same units in every group, so its centre and scale are common to all tasks.

        Parameters
        ----------
        df : pandas or polars data frame
            Lazy frames are collected. Rows with a missing outcome are cells not observed.
        inputs : sequence of str
            Input columns, encoded as in `from_frame`.
        output : str
            The outcome column.
        group : str
            The column that says which task a row belongs to. Tasks are named by its labels, in natural order.
        family : str or Family
            The family of every task.
        exposure : str, optional
            For counts the column with the exposures, > 0, in any unit.

        Raises
        ------
        TaskError
            If an input has missing or infinite values, the outcome is constant over all groups or outside the
            family's support, a group has fewer than 3 observed outcomes, or names do not fit the frame or each other.

        Warns
        -----
        TaskWarning
            If inputs are dropped because they are constant or copies of others.
        """
        frame = _frames.read(df)
        inputs = _inputs.check_names(inputs, "input")
        _inputs.reject_shared("outcome", [output], "input", inputs)
        _inputs.reject_shared("outcome", [output], "group", [group])
        _inputs.reject_shared("group", [group], "input", inputs)
        offset = [] if exposure is None else [exposure]
        _inputs.reject_shared("exposure column", offset, "outcome", [output])
        _inputs.reject_shared("exposure column", offset, "group", [group])
        _frames.require_columns(frame, [*inputs, output, group, *offset])
        likelihood = _inputs.check_family(family, output)
        values = _frames.read_numbers(frame, output, "outcome")
        labels, codes = _frames.read_groups(frame, group)
        names = _inputs.check_names([str(label) for label in labels], "group")
        observed = ~np.isnan(values)
        counts = np.bincount(codes[observed], minlength=len(names))
        _inputs.check_groups(output, names, counts)
        cells = np.flatnonzero(observed)
        _inputs.check_task(output, likelihood, values[cells], cells)
        exposures = np.ones(len(values)) if exposure is None else _frames.read_numbers(frame, exposure, "exposure")
        if exposure is not None:
            _inputs.check_exposure(output, likelihood, exposures[cells], cells)
        columns = tuple(Column.fit(frame, name) for name in inputs)
        raw = np.column_stack([column.encode(frame) for column in columns])
        by_group = cells[np.argsort(codes[cells], kind="stable")]
        rows = tuple(np.split(by_group, np.cumsum(counts)[:-1]))
        return cls._assemble(
            columns, raw, names, (likelihood,) * len(names),
            rows, tuple(values[r] for r in rows), tuple(exposures[r] for r in rows), np.ones(len(names)),
            scales=[_inputs.outcome_scale(likelihood, values[cells])] * len(names),
        )

    @classmethod
    def _assemble(
        cls,
        columns: tuple[Column, ...],
        raw: Array,
        names: tuple[str, ...],
        families: tuple[Family, ...],
        rows: tuple[Index, ...],
        y: tuple[Array, ...],
        exposure: tuple[Array, ...],
        importance: Array,
        scales: Sequence[tuple[float, float]] | None = None,
        related: Sequence[str] = (),
    ) -> Tasks:
        """Put checked cells and encoded inputs together; ``scales`` are common to all tasks in the long layout."""
        encoder, dropped = _inputs.keep_distinct(columns, raw)
        for what, notes in [("inputs dropped", dropped), ("related outcomes", related)]:
            if notes:
                # The stack level is that of the caller of from_frame, from_arrays or from_groups.
                warnings.warn(f"{what}: {listing(notes, SHOWN_NOTES)}", TaskWarning, stacklevel=3)
        X = encoder.from_array(raw)
        x_centre, x_scale = _inputs.mean_and_sd(X)
        layout: Literal["wide", "long"] = "wide" if scales is None else "long"
        if scales is None:
            scales = [_inputs.outcome_scale(family, values) for family, values in zip(families, y, strict=True)]
        return cls(
            names=names, families=families, inputs=encoder.inputs, X=X, x_centre=x_centre, x_scale=x_scale,
            rows=rows, y=y, exposure=exposure, importance=importance,
            y_centre=np.array([centre for centre, _ in scales]), y_scale=np.array([scale for _, scale in scales]),
            layout=layout, encoder=encoder,
        )

    @property
    def n_rows(self) -> int:
        """Number of rows of `X`."""
        return len(self.X)

    @property
    def n_tasks(self) -> int:
        """Number of tasks T."""
        return len(self.names)

    @property
    def n_cells(self) -> Index:
        """Number of observed outcomes of each task, shape (T,)."""
        return np.array([r.size for r in self.rows], dtype=np.int64)

    @cached_property
    def Z(self) -> Array:
        """Standardised inputs (X − x_centre) / x_scale, shape (n_rows, d)."""
        return _read_only((self.X - self.x_centre) / self.x_scale, np.float64)

    def y_std(self, t: int) -> Array:
        """Standardised outcomes (y − y_centre) / y_scale of task number ``t``, one a cell."""
        return (self.y[t] - self.y_centre[t]) / self.y_scale[t]

    def index(self, name: str) -> int:
        """Position of the task of that name; `TaskError` if there is none."""
        if name not in self.names:
            raise TaskError(f"no task {name!r}; the tasks are {quoted(self.names, shown=SHOWN_TASKS)}")
        return self.names.index(name)

    def require(self, n: int, what: str = "this step") -> None:
        """Raise `TaskError` if there are fewer than ``n`` tasks; ``what`` is what needs them."""
        if self.n_tasks < n:
            raise TaskError(
                f"{what} compares tasks and needs at least {n}; got {self.n_tasks}: {quoted(self.names)}"
            )

    def select(self, names: Sequence[str]) -> Tasks:
        """The tasks of these names, in this order, on the same rows and with the same standardisation.

        Raises
        ------
        TaskError
            If a name is unknown or repeated, or none is given.
        """
        return self._take([self.index(name) for name in _inputs.check_names(names, "task")])

    def keep_cells(self, masks: Sequence[NDArray[np.bool_]]) -> Tasks:
        """The same tasks with some of their cells, standardised by the same constants.

        Parameters
        ----------
        masks : sequence of T bool arrays
            For each task which of its cells to keep.

        Raises
        ------
        TaskError
            If the masks do not match the cells.
        """
        if len(masks) != self.n_tasks:
            raise TaskError(f"expected one mask for each of the {self.n_tasks} tasks, got {len(masks)}")
        masks = [np.asarray(mask) for mask in masks]
        for name, r, mask in zip(self.names, self.rows, masks, strict=True):
            if mask.dtype != np.bool_ or mask.shape != r.shape:
                raise TaskError(
                    f"the mask of task {name!r} must be {r.size} booleans, got {mask.dtype} of shape {mask.shape}"
                )
        return replace(
            self,
            rows=tuple(r[mask] for r, mask in zip(self.rows, masks, strict=True)),
            y=tuple(y[mask] for y, mask in zip(self.y, masks, strict=True)),
            exposure=tuple(e[mask] for e, mask in zip(self.exposure, masks, strict=True)),
        )

    def permuted(self, name: str, seed: int, new_name: str | None = None) -> Tasks:
        """These tasks and a negative control: a copy of one task whose outcomes are shuffled among its rows.

        Exposures move with their outcomes. The control has the importance and standardisation of the original.

        Parameters
        ----------
        name : str
            The task to copy.
        seed : int
            Seed of the shuffle.
        new_name : str, optional
            Name of the control, by default ``"<name> (permuted)"``.

        Raises
        ------
        TaskError
            If ``name`` is unknown or ``new_name`` is already a task.
        """
        t = self.index(name)
        new_name = f"{name} (permuted)" if new_name is None else new_name
        names = _inputs.check_names([*self.names, new_name], "task")
        order = np.random.default_rng(seed).permutation(self.rows[t].size)
        extended = self._take([*range(self.n_tasks), t])
        return replace(
            extended,
            names=names,
            y=(*self.y, self.y[t][order]),
            exposure=(*self.exposure, self.exposure[t][order]),
        )

    def encode(self, X_new: Any) -> Array:
        """New inputs in the user's units, shape (n, d).

        Parameters
        ----------
        X_new : data frame or array of shape (n, columns)
            A frame with the columns these tasks were made from (others are ignored), or a matrix of all encoded
            inputs or of the d kept ones.

        Raises
        ------
        TaskError
            If a column is missing, the width is wrong, a value is missing or infinite, or a level is unknown.
        """
        frame = _frames.as_frame(X_new)
        if frame is not None:
            return self.encoder.from_frame(frame)
        return self.encoder.from_array(_inputs.as_matrix(X_new, "X_new", "inputs"))

    def standardise(self, X_new: Any) -> Array:
        """New inputs encoded as by `encode` and standardised as `Z`, shape (n, d)."""
        return (self.encode(X_new) - self.x_centre) / self.x_scale

    def cells(self) -> pd.DataFrame:
        """Every cell as one row of a frame with columns row, task, y and exposure, in the user's units."""
        return pd.DataFrame({
            "row": np.concatenate(self.rows),
            "task": np.repeat(np.array(self.names, dtype=object), self.n_cells),
            "y": np.concatenate(self.y),
            "exposure": np.concatenate(self.exposure),
        })

    def spec(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything `from_spec` needs to restore these tasks: JSON-able metadata, and arrays by name.

        Cells are concatenated over tasks in ``rows``, ``y`` and ``exposure``; ``n_cells`` says how many each has.
        """
        described = [
            {"name": family.name, "fields": {f.name: getattr(family, f.name) for f in fields(family)}}
            for family in self.families
        ]
        meta = {
            "names": list(self.names), "families": described, "layout": self.layout, "encoder": self.encoder.spec(),
        }
        arrays: dict[str, NDArray[Any]] = {
            name: getattr(self, name) for name in ("X", "x_centre", "x_scale", "importance", "y_centre", "y_scale")
        }
        arrays |= {name: np.concatenate(getattr(self, name)) for name in ("rows", "y", "exposure")}
        return meta, arrays | {"n_cells": self.n_cells}

    @classmethod
    def from_spec(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Tasks:
        """The tasks described by `spec`; `TaskError` if a family is not known here."""
        unknown = [family["name"] for family in meta["families"] if family["name"] not in FAMILIES]
        if unknown:
            raise TaskError(f"unknown families: {quoted(unknown)}; known: {quoted(sorted(FAMILIES))}")
        encoder = Encoder.from_spec(meta["encoder"])
        values = {name: np.asarray(array) for name, array in arrays.items()}
        ends = np.cumsum(values["n_cells"])[:-1]
        return cls(
            names=tuple(meta["names"]),
            families=tuple(FAMILIES[family["name"]](**family["fields"]) for family in meta["families"]),
            inputs=encoder.inputs, X=values["X"], x_centre=values["x_centre"], x_scale=values["x_scale"],
            rows=tuple(np.split(values["rows"], ends)),
            y=tuple(np.split(values["y"], ends)),
            exposure=tuple(np.split(values["exposure"], ends)),
            importance=values["importance"], y_centre=values["y_centre"], y_scale=values["y_scale"],
            layout=meta["layout"], encoder=encoder,
        )

    def __repr__(self) -> str:
        table: dict[str, Any] = {"task": self.names, "family": [family.name for family in self.families]}
        table["cells"] = self.n_cells
        if self.layout == "wide":
            table["missing"] = self.n_rows - self.n_cells
        shown = pd.DataFrame(table)[:SHOWN_TASKS].to_string(index=False)
        more = f"\nand {self.n_tasks - SHOWN_TASKS} more" if self.n_tasks > SHOWN_TASKS else ""
        head = f"Tasks: {self.n_tasks} on {self.n_rows} rows × {len(self.inputs)} inputs ({listing(self.inputs)})"
        return f"{head}\n{shown}{more}"

    def _take(self, at: Sequence[int]) -> Tasks:
        at = list(at)
        return replace(
            self,
            names=tuple(self.names[t] for t in at), families=tuple(self.families[t] for t in at),
            rows=tuple(self.rows[t] for t in at), y=tuple(self.y[t] for t in at),
            exposure=tuple(self.exposure[t] for t in at),
            importance=self.importance[at], y_centre=self.y_centre[at], y_scale=self.y_scale[at],
        )


def _read_only(values: Any, dtype: type) -> NDArray[Any]:
    values = np.asarray(values, dtype=dtype)
    # Views and writeable arrays may change under us; arrays frozen before are shared.
    if values.flags.writeable or values.base is not None:
        values = values.copy()
        values.flags.writeable = False
    return values
