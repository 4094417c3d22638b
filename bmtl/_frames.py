"""Reading data frames, and encoding their input columns as numbers."""

from __future__ import annotations

import decimal
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray

from bmtl.errors import TaskError

Array = NDArray[np.float64]
Frame = nw.DataFrame[Any]
Kind = Literal["number", "boolean", "levels"]

# Rows, values or names quoted in one message before "and N more".
SHOWN = 5


def listing(items: Iterable[str], shown: int = SHOWN) -> str:
    """The items separated by commas, cut after ``shown`` of them."""
    items = list(items)
    text = ", ".join(items[:shown])
    return f"{text} and {len(items) - shown} more" if len(items) > shown else text


def quoted(names: Iterable[object], shown: int = SHOWN) -> str:
    """The names in quotes, separated by commas."""
    return listing((repr(str(name)) for name in names), shown)


def show(value: object) -> str:
    """One value as it appears in a message."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.10g}"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def at_rows(rows: Iterable[int] | NDArray[Any], values: Sequence[object] | Array | None = None) -> str:
    """The rows (counted from 0), each with its value where ``values`` (aligned with ``rows``) is given."""
    rows = list(rows)
    if values is None:
        return ("row " if len(rows) == 1 else "rows ") + listing(str(int(row)) for row in rows)
    return listing(f"row {int(row)} ({show(value)})" for row, value in zip(rows, values, strict=True))


def as_frame(data: Any) -> Frame | None:
    """The data as an eager narwhals frame, or None if it is not a data frame; lazy frames are collected."""
    try:
        frame = nw.from_native(data, pass_through=True)
    except DuplicateError as error:
        raise TaskError(f"the data frame has columns of the same name: {error}") from error
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    return frame if isinstance(frame, nw.DataFrame) else None


def read(data: Any) -> Frame:
    """The data as an eager narwhals frame.

    Raises
    ------
    TaskError
        If it is not a data frame, or has no rows.
    """
    frame = as_frame(data)
    if frame is None:
        hint = "; use Tasks.from_arrays for arrays" if isinstance(data, np.ndarray) else ""
        raise TaskError(f"expected a pandas or polars data frame, got {type(data).__name__}{hint}")
    if len(frame) == 0:
        raise TaskError(f"the data frame has no rows (columns: {quoted(frame.columns)})")
    return frame


def require_columns(frame: Frame, names: Iterable[str]) -> None:
    """Raise `TaskError` unless the frame has all of these columns."""
    unknown = [name for name in names if name not in frame.columns]
    if unknown:
        raise TaskError(f"no such column: {quoted(unknown)}; the data frame has {quoted(frame.columns, shown=20)}")


def read_numbers(frame: Frame, name: str, role: str) -> Array:
    """One numeric column as float64, NaN where missing; ``role`` says in messages what the column is.

    Raises
    ------
    TaskError
        If a cell is neither missing nor a number.
    """
    series = frame.get_column(name)
    if series.dtype.is_numeric():
        return np.array(series.cast(nw.Float64()).to_numpy(), dtype=np.float64)
    cells = _cells(series)
    bad = [row for row, cell in enumerate(cells) if not (cell is None or _is_number(cell))]
    if bad:
        raise TaskError(f"{role} {name!r} has cells that are not numbers: {at_rows(bad, [cells[row] for row in bad])}")
    return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)


def read_categories(frame: Frame, name: str, role: str) -> tuple[list[str | None], tuple[str, ...], bool]:
    """A column of text, categories, booleans or whole numbers as labels.

    Returns
    -------
    cells : list of str or None
        The label of each row, None where missing.
    labels : tuple of str
        All labels: those declared by the column's type in its order, else those present, sorted.
    ordered : bool
        Whether that order means anything: numbers have one, and categories declared to be ordered.

    Raises
    ------
    TaskError
        If a cell is none of these.
    """
    series = frame.get_column(name)
    kind = _kind(series, role)
    if kind == "levels":
        cells = [None if cell is None else str(cell) for cell in _cells(series)]
        if not _declared(series):
            return cells, tuple(sorted({cell for cell in cells if cell is not None})), False
        labels = tuple(str(label) for label in series.cat.get_categories().to_list())
        # pandas has unordered categories too, whose order is often no more than the alphabet.
        ordered = series.dtype == nw.Enum or bool(getattr(series.to_native().dtype, "ordered", False))
        return cells, labels, ordered
    values = read_numbers(frame, name, role)
    bad = np.flatnonzero(~np.isnan(values) & ~(np.isfinite(values) & (values == np.floor(values))))
    if bad.size:
        raise TaskError(f"{role} {name!r} has cells that are no labels: {at_rows(bad, values[bad])}")
    present = np.unique(values[~np.isnan(values)]).tolist()
    called = {value: str(bool(value)) if kind == "boolean" else str(int(value)) for value in present}
    return [called.get(value) for value in values.tolist()], tuple(called.values()), True


def read_groups(frame: Frame, name: str) -> tuple[list[Any], NDArray[np.int64]]:
    """The labels of a grouping column in natural order, and for each row the position of its label.

    Numbers sort by value, categories in their own order, everything else as text in which runs of digits count as
    numbers ("school 2" before "school 10").

    Raises
    ------
    TaskError
        If a row has no label.
    """
    series = frame.get_column(name)
    cells = _cells(series)
    _reject_missing("group", name, [row for row, cell in enumerate(cells) if cell is None])
    key = None if all(_is_number(label) for label in set(cells)) else _natural_key
    labels = _ordered_labels(series, cells, key)
    position = {label: i for i, label in enumerate(labels)}
    return labels, np.array([position[cell] for cell in cells], dtype=np.int64)


def read_noise_groups(
    labels: Any, n_rows: int, known: Sequence[str] | None = None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Groups of rows in natural order (or as they are known), and for each row the position of its group.

    Raises
    ------
    TaskError
        If there is not one label a row, a label is missing, or one is not known.
    """
    values = np.asarray(labels, dtype=object)
    if values.shape != (n_rows,):
        raise TaskError(f"noise groups need one label for each of the {n_rows} rows, got shape {values.shape}")
    _reject_missing("noise group", "labels", np.flatnonzero(pd.isna(values)))
    cells = [str(cell) for cell in values]
    levels = tuple(sorted(set(cells), key=_natural_key) if known is None else known)
    unknown = sorted(set(cells) - set(levels))
    if unknown:
        raise TaskError(f"unknown noise groups: {quoted(unknown)}; known: {quoted(levels)}")
    position = {level: i for i, level in enumerate(levels)}
    return levels, np.array([position[cell] for cell in cells], dtype=np.int64)


def check_finite(name: str, values: Array) -> None:
    """Raise `TaskError` if an input has missing or infinite values."""
    _reject_missing("input", name, np.flatnonzero(np.isnan(values)))
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise TaskError(f"input {name!r} has infinite values: {at_rows(infinite, values[infinite])}")


@dataclass(frozen=True)
class Column:
    """How one input column becomes numbers.

    Attributes
    ----------
    name : str
        The column's name in the user's frame.
    kind : {"number", "boolean", "levels"}
        Numbers are kept, booleans become 0 and 1, levels become indicators.
    levels : tuple of str
        The levels in order; the first is the reference and has no indicator.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()

    @classmethod
    def fit(cls, frame: Frame, name: str) -> Column:
        """Decide from the column's type how to encode it."""
        series = frame.get_column(name)
        kind = _kind(series)
        if kind != "levels":
            return cls(name, kind)
        cells = _cells(series)
        labels = _ordered_labels(series, [cell for cell in cells if cell is not None], None)
        return cls(name, kind, tuple(str(label) for label in labels))

    @property
    def encoded(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return tuple(f"{self.name}[{level}]" for level in self.levels[1:]) if self.kind == "levels" else (self.name,)

    def encode(self, frame: Frame) -> Array:
        """The column as numbers, shape (rows, len(encoded)), checked for missing, infinite and unknown values."""
        if self.kind == "levels":
            return self._indicators(_cells(frame.get_column(self.name)))
        values = read_numbers(frame, self.name, "input")
        check_finite(self.name, values)
        if self.kind == "boolean":
            bad = np.flatnonzero((values != 0) & (values != 1))
            if bad.size:
                raise TaskError(f"input {self.name!r} must be true or false: {at_rows(bad, values[bad])}")
        return values[:, None]

    def _indicators(self, cells: list[Any]) -> Array:
        _reject_missing("input", self.name, [row for row, cell in enumerate(cells) if cell is None])
        labels = [str(cell) for cell in cells]
        position = {level: i for i, level in enumerate(self.levels)}
        unknown = [row for row, label in enumerate(labels) if label not in position]
        if unknown:
            raise TaskError(
                f"input {self.name!r} has unknown levels: {at_rows(unknown, [labels[row] for row in unknown])}; "
                f"known: {quoted(self.levels, shown=20)}"
            )
        codes = np.array([position[label] for label in labels], dtype=np.int64)
        return (codes[:, None] == np.arange(1, len(self.levels))).astype(np.float64)


def encode(frame: Frame, names: Sequence[str]) -> tuple[tuple[Column, ...], Array]:
    """How these input columns become numbers, and the numbers, shape (rows, encoded columns)."""
    columns = tuple(Column.fit(frame, name) for name in names)
    return columns, np.hstack([np.empty((len(frame), 0)), *(column.encode(frame) for column in columns)])


@dataclass(frozen=True)
class Encoder:
    """Turns the input columns of a frame into the matrix of inputs that were kept.

    Attributes
    ----------
    columns : tuple of Column
        The columns the user named.
    kept : tuple of int
        Positions, among all encoded columns, of those kept as inputs.
    """

    columns: tuple[Column, ...]
    kept: tuple[int, ...]

    @property
    def encoded(self) -> tuple[str, ...]:
        """Names of all encoded columns, kept or not."""
        return tuple(name for column in self.columns for name in column.encoded)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the kept encoded columns."""
        return tuple(self.encoded[i] for i in self.kept)

    def from_frame(self, frame: Frame) -> Array:
        """Kept inputs, shape (rows, len(kept)); columns of which nothing was kept may be absent from the frame."""
        needed = [column for column in self.columns if set(column.encoded) & set(self.inputs)]
        require_columns(frame, [column.name for column in needed])
        values: dict[str, Array] = {}
        for column in needed:
            values.update(zip(column.encoded, column.encode(frame).T, strict=True))
        return np.array([values[name] for name in self.inputs]).reshape(-1, len(frame)).T

    def from_array(self, X: Array) -> Array:
        """Kept inputs from a matrix of all encoded columns, or of the kept ones only."""
        if X.shape[1] == len(self.encoded):
            X = X[:, list(self.kept)]
        elif X.shape[1] != len(self.kept):
            raise TaskError(
                f"expected {len(self.encoded)} input columns ({quoted(self.encoded)}), got {X.shape[1]}"
                if len(self.kept) == len(self.encoded)
                else f"expected {len(self.encoded)} input columns, or the {len(self.kept)} kept ones "
                f"({quoted(self.inputs)}), got {X.shape[1]}"
            )
        for name, values in zip(self.inputs, X.T, strict=True):
            check_finite(name, values)
        return X

    def spec(self) -> dict[str, Any]:
        """The encoder as JSON-able data."""
        columns = [{"name": c.name, "kind": c.kind, "levels": list(c.levels)} for c in self.columns]
        return {"columns": columns, "kept": list(self.kept)}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Encoder:
        """The encoder described by `spec`."""
        columns = tuple(Column(c["name"], c["kind"], tuple(c["levels"])) for c in spec["columns"])
        return cls(columns, tuple(spec["kept"]))


def _cells(series: nw.Series[Any]) -> list[Any]:
    """The cells as Python objects, None where missing."""
    missing = series.is_null().to_list()
    return [
        None if null or (isinstance(cell, float) and np.isnan(cell)) else cell
        for cell, null in zip(series.to_list(), missing, strict=True)
    ]


def _is_number(cell: object) -> bool:
    return isinstance(cell, (numbers.Real, decimal.Decimal, np.bool_))


def _kind(series: nw.Series[Any], role: str = "input") -> Kind:
    if series.dtype.is_numeric():
        return "number"
    if series.dtype in (nw.Boolean, nw.String, nw.Categorical, nw.Enum):
        return "boolean" if series.dtype == nw.Boolean else "levels"
    # Columns of Python objects (as pandas makes of booleans with gaps) are what all their cells are.
    cells = _cells(series)
    present = [cell for cell in cells if cell is not None]
    if present and all(isinstance(cell, (bool, np.bool_)) for cell in present):
        return "boolean"
    if all(_is_number(cell) for cell in present):
        return "number"
    if all(isinstance(cell, str) for cell in present):
        return "levels"
    bad = [row for row, cell in enumerate(cells) if cell is not None and not _is_number(cell)]
    raise TaskError(
        f"{role} {series.name!r} is neither numbers, booleans nor levels: {at_rows(bad, [cells[row] for row in bad])}; "
        "convert it to one of these first"
    )


def _declared(series: nw.Series[Any]) -> bool:
    """Whether the column's type lists its categories."""
    # A polars Categorical lists them by first appearance, which is an accident of the rows.
    return series.dtype == nw.Enum or (series.dtype == nw.Categorical and not series.implementation.is_polars())


def _ordered_labels(series: nw.Series[Any], present: list[Any], key: Callable[[Any], Any] | None) -> list[Any]:
    """The distinct labels present: categories in their declared order, others sorted by ``key``."""
    labels = set(present)
    if _declared(series):
        return [label for label in series.cat.get_categories().to_list() if label in labels]
    return sorted(labels, key=key)


def _natural_key(label: object) -> tuple[list[tuple[bool, int, str]], str]:
    text = str(label)
    parts = re.split(r"([0-9]+)", text)
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts if p], text


def _reject_missing(role: str, name: str, rows: Sequence[int] | NDArray[Any]) -> None:
    if len(rows):
        raise TaskError(f"{role} {name!r} has missing values (NaN or null) at {at_rows(rows)}")
