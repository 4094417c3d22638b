"""Tasks: outcomes to be modelled together, and the inputs they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bmtl import _assembly, _frames, _inputs, _outcomes
from bmtl._frames import Array, Column, Encoder, quoted
from bmtl._identities import identities
from bmtl._inputs import Index
from bmtl.errors import TaskError
from bmtl.families import Family


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
        For each task the outcome of each cell, in the user's units; the code of its label for families with labels.
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
    noise_group, noise_levels : int array of shape (n_rows,) or None, tuple of str
        For each row the position of its group, and the groups; see `with_noise_groups`.
    intervened : tuple of bool arrays
        For each task which of its cells were set from outside; empty if none of any task was.
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
    noise_group: Index | None = None
    noise_levels: tuple[str, ...] = ()
    intervened: tuple[NDArray[np.bool_], ...] = ()

    def __post_init__(self) -> None:
        for name in ("X", "x_centre", "x_scale", "importance", "y_centre", "y_scale"):
            object.__setattr__(self, name, _inputs.read_only(getattr(self, name), np.float64))
        object.__setattr__(self, "rows", tuple(_inputs.read_only(rows, np.int64) for rows in self.rows))
        for name in ("y", "exposure"):
            own = getattr(self, name)
            object.__setattr__(self, name, tuple(_inputs.read_only(values, np.float64) for values in own))
        object.__setattr__(self, "intervened", tuple(_inputs.read_only(own, np.bool_) for own in self.intervened))

    @classmethod
    def from_frame(
        cls,
        df: Any,
        inputs: Sequence[str],
        outputs: Mapping[str, str | Family],
        importance: Mapping[str, float] | None = None,
        exposure: Mapping[str, str] | None = None,
        intervened: Mapping[str, Any] | None = None,
    ) -> Tasks:
        """Tasks from a data frame with one row a unit and one column an outcome.

        Parameters
        ----------
        df : pandas or polars data frame
            Lazy frames are collected. Missing outcomes (null or NaN) are cells not observed.
        inputs : sequence of str
            Input columns. Booleans become 0 and 1; strings and categories become indicators ``name[level]`` of
            every level but the first (sorted, or in the order of the categories). None of them, ``[]``, is enough for
            a graph of causes (`bmtl.causal`), and not for models.
        outputs : mapping of str to str or Family
            The family of each outcome column; each is one task. Columns of categorical and ordinal outcomes hold
            labels: text, categories, booleans or whole numbers.
        importance : mapping of str to float, optional
            Weight of each task, > 0; 1 for those not named.
        exposure : mapping of str to str, optional
            For a task of counts the column with its exposures, > 0, in any unit; for a binomial task the column
            with the number of trials, which it needs.
        intervened : mapping of str to str or bool array of shape (rows,), optional
            For a task the column, or the mask, that marks the rows on which it was set from outside. There it may
            cause other tasks and is not explained itself (`bmtl.causal`; models without causes take it as any other
            cell). Rows without its outcome may be marked.

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
        inputs = _inputs.check_names(inputs, "input", least=0)
        names, families = _inputs.check_outputs(outputs)
        exposure = dict(exposure or {})
        _inputs.reject_unknown(exposure, names, "exposure")
        _inputs.reject_shared("outcome", names, "input", inputs)
        _inputs.reject_shared("exposure column", exposure.values(), "outcome", names)
        _frames.require_columns(frame, [*inputs, *names, *exposure.values()])
        families, Y = _outcomes.read_all(frame, names, families)
        exposures = {task: _frames.read_numbers(frame, column, "exposure") for task, column in exposure.items()}
        columns, raw = _frames.encode(frame, inputs)
        families, cells = _outcomes.wide_cells(names, families, Y, exposures)
        weights = _inputs.check_importance(importance, names)
        marks = _outcomes.intervened_cells(intervened, names, cells[0], len(frame), frame)
        fields = _assembly.assemble(columns, raw, names, families, cells, weights, related=identities(names, Y))
        return cls(**fields, intervened=marks)

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
        intervened: Any = None,
    ) -> Tasks:
        """Tasks from a matrix of inputs and a matrix of outcomes.

        Parameters
        ----------
        X : array of shape (rows, d), or None
            Inputs, in any units; none are enough for a graph of causes (`bmtl.causal`), and not for models.
        Y : array of shape (rows, T)
            Outcomes, in any units; NaN where not observed. Those with labels are codes 0, 1, ….
        families : sequence of str or Family
            The family of each of the T tasks.
        names : sequence of str, optional
            Names of the tasks; ``y0``, ``y1``, … if not given.
        inputs : sequence of str, optional
            Names of the inputs; ``x0``, ``x1``, … if not given.
        importance : mapping of str to float, or sequence of T floats, optional
            Weight of each task, > 0.
        exposure : array of shape (rows, T), optional
            Exposures, > 0 where the outcome is observed (the number of trials of a binomial one); NaN or 1 for
            families that take none.
        intervened : bool array of shape (rows, T) or (T, rows), or mapping of str to bool array, optional
            The cells whose task was set from outside, as in `from_frame`.

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
        exposures = {} if exposure is None else _outcomes.exposure_columns(exposure, names, checked, Y.shape)
        checked, cells = _outcomes.wide_cells(names, checked, Y, exposures)
        columns = tuple(Column(name, "number") for name in inputs)
        weights = _inputs.check_importance(importance, names)
        marks = _outcomes.intervened_cells(intervened, names, cells[0], len(Y))
        fields = _assembly.assemble(columns, X, names, checked, cells, weights, related=identities(names, Y))
        return cls(**fields, intervened=marks)

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
            For counts the column with the exposures, > 0, in any unit; for a binomial outcome the numbers of trials.

        Raises
        ------
        TaskError
            If an input has missing or infinite values, the outcome is constant over all groups or outside the
            family's support, a group has no observed outcome, or names do not fit the frame or each other.

        Warns
        -----
        TaskWarning
            If inputs are dropped because they are constant or copies of others.
        """
        frame = _frames.read(df)
        inputs = _inputs.check_names(inputs, "input")
        _inputs.check_roles(inputs, output, group, offset := [] if exposure is None else [exposure])
        _frames.require_columns(frame, [*inputs, output, group, *offset])
        likelihood, values = _outcomes.read(frame, output, _inputs.check_family(family, output))
        labels, codes = _frames.read_groups(frame, group)
        names = _inputs.check_names([str(label) for label in labels], "group")
        exposures = None if exposure is None else _frames.read_numbers(frame, exposure, "exposure")
        cells = _outcomes.group_cells(output, names, codes, likelihood, values, exposures)
        columns, raw = _frames.encode(frame, inputs)
        common = _outcomes.outcome_scale(likelihood, values[~np.isnan(values)])
        families, weights = (likelihood,) * len(names), np.ones(len(names))
        return cls(**_assembly.assemble(columns, raw, names, families, cells, weights, common))

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
        return _inputs.read_only((self.X - self.x_centre) / self.x_scale, np.float64)

    def y_std(self, t: int) -> Array:
        """Standardised outcomes (y − y_centre) / y_scale of task number ``t``, one a cell."""
        return (self.y[t] - self.y_centre[t]) / self.y_scale[t]

    def index(self, name: str) -> int:
        """Position of the task of that name; `TaskError` if there is none."""
        if name not in self.names:
            raise TaskError(f"no task {name!r}; the tasks are {quoted(self.names, shown=_assembly.SHOWN_TASKS)}")
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
        at = [self.index(name) for name in _inputs.check_names(names, "task")]
        return replace(self, **_assembly.some(self, at))

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
        masks = _inputs.check_masks(masks, self.names, self.rows)
        return replace(self, **_assembly.kept(self, masks))

    def with_noise_groups(self, labels: Any) -> Tasks:
        """The same tasks with groups of rows whose noises may differ (`bmtl.noise.ByGroup`): sites, instruments, years.

        Parameters
        ----------
        labels : sequence of n_rows labels
            A column of the frame that the tasks were made from, for example.

        Raises
        ------
        TaskError
            If there is not one label a row, or a label is missing.
        """
        levels, codes = _frames.read_noise_groups(labels, self.n_rows)
        return replace(self, noise_group=_inputs.read_only(codes, np.int64), noise_levels=levels)

    def permuted(self, name: str, seed: int, new_name: str | None = None) -> Tasks:
        """These tasks and a negative control: a copy of one task whose outcomes are shuffled among its rows.

        Exposures and interventions move with their outcomes. The control has the original's importance and scale.

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
        names = _inputs.check_names([*self.names, f"{name} (permuted)" if new_name is None else new_name], "task")
        order = np.random.default_rng(seed).permutation(self.rows[t].size)
        return replace(self, **_assembly.shuffled(self, t, order) | {"names": names})

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
        return _assembly.cells(self)

    def spec(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything `from_spec` needs to restore these tasks: JSON-able metadata, and arrays by name.

        Cells are concatenated over tasks in ``rows``, ``y``, ``exposure`` and, if any is, ``intervened``; ``n_cells``
        says how many each task has.
        """
        return _assembly.spec(self)

    @classmethod
    def from_spec(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Tasks:
        """The tasks described by `spec`; `TaskError` if a family is not known here."""
        return cls(**_assembly.restore(meta, arrays))

    def __repr__(self) -> str:
        return _assembly.describe(self)
